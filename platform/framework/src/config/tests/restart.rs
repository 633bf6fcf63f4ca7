//! What only a restart changes.

use std::fs;

use super::{process::Process, *};
use crate::{
    journal::{Journal, Kind},
    shutdown::Tasks,
};

/// Goal: a key that needs a restart keeps its value and says what waits; the others of the file
/// are applied; taking the change back ends the waiting.
/// Method: change one of each, look at the value and its entry, change back.
#[tokio::test(start_paused = true)]
async fn a_restart_key_waits() {
    let process = Process::start("[listen]\naddress = '127.0.0.1:1'\nconnections_max = 1");

    let status = process
        .change("[listen]\nconnections_max = 2\naddress = '127.0.0.1:2'")
        .await;

    assert_eq!("127.0.0.1:1", process.listening_at());
    assert_eq!(2, process.live.load().listen.connections_max);
    assert_eq!(vec!["listen.address"], status.pending);
    let address = status.entries.iter().find(|e| e.key == "listen.address");
    let address = address.unwrap();
    assert_eq!(Some("\"127.0.0.1:1\""), address.value.as_deref());
    let pending = address.pending.as_ref().unwrap();
    assert_eq!(Some("\"127.0.0.1:2\""), pending.value.as_deref());
    assert!(pending.origin.to_string().ends_with("orders.toml:3"));
    assert_eq!(
        vec![
            "version 2: listen.connections_max",
            "waits for a restart: listen.address"
        ],
        process.entries(Kind::ConfigApplied)
    );

    // It goes on waiting while other things change, also from a default.
    let status = process.change("share = 0.1").await;
    assert_eq!("127.0.0.1:1", process.listening_at());
    assert_eq!(
        (3, vec!["listen.address".to_owned()]),
        (status.version, status.pending)
    );

    let status = process
        .change("share = 0.1\n[listen]\naddress = '127.0.0.1:1'")
        .await;
    assert_eq!((3, Vec::<String>::new()), (status.version, status.pending));
    assert!(status.entries.iter().all(|entry| entry.pending.is_none()));
}

/// Goal: what is written otherwise and means the same is no change.
/// Method: write a duration in other words, and a comment above it.
#[tokio::test(start_paused = true)]
async fn other_words_for_the_same_value_are_no_change() {
    let process = Process::start("[peers.a.retry]\nwait_max = '3s'");

    let status = process
        .change("# Three.\n[peers.a.retry]\nwait_max = '3000ms'")
        .await;

    assert_eq!(1, status.version);
    let origin = status
        .entries
        .iter()
        .find(|entry| entry.key == "peers.a.retry.wait_max")
        .map(|entry| entry.origin.to_string());
    assert!(
        origin.unwrap().ends_with("orders.toml:3"),
        "where it is now"
    );
}

/// Goal: members of a live map come and go whole; an optional section that needs a restart stays
/// as it is.
/// Method: in one change let one member come, one go, one change its restart key, and the section
/// come; then the reverse for the section.
#[tokio::test(start_paused = true)]
async fn members_come_and_go_as_they_are_marked() {
    let process = Process::start("[peers.gone]\n[peers.stays]\ntarget = 'old'");

    let status = process
        .change(
            "[peers.stays]\ntarget = 'new'\n[peers.come]\ntarget = 'c'\n[fallback]\ntarget = 'f'",
        )
        .await;

    let root = process.live.load();
    let peers: Vec<_> = root
        .peers
        .iter()
        .map(|(name, peer)| (name.as_str(), peer.target.as_deref()))
        .collect();
    assert_eq!(vec![("come", Some("c")), ("stays", Some("old"))], peers);
    assert_eq!(None, root.fallback);
    assert_eq!(vec!["fallback", "peers.stays.target"], status.pending);

    let process = Process::start("[fallback]\ntarget = 'f'");
    let status = process.change("").await;
    let fallback = process.live.load().fallback.clone().unwrap();
    assert_eq!(Some("f"), fallback.target.as_deref());
    assert_eq!(vec!["fallback"], status.pending);
}

section! {
    /// A pair of which one needs a restart.
    struct Pair {
        /// The lesser.
        least: u32 = 1, live;
        /// The greater.
        most: u32 = 5, restart;
    }
    validate = Pair::check;
}

impl Pair {
    fn check(&self, check: &mut Check<'_, '_>) {
        if self.least > self.most {
            check.refuse("least", "expected no more than most");
        }
    }
}

/// Goal: what is valid only after a restart is refused as long as that has not happened.
/// Method: raise both bounds, of which one waits.
#[tokio::test(start_paused = true)]
async fn what_does_not_go_with_what_waits_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.toml");
    fs::write(&path, "").unwrap();
    let loaded = load::<Pair>(Sources::new().file(&path)).expect("valid");
    let tasks = Tasks::new(Journal::new());
    let (watcher, live, handle) = loaded.watcher(Journal::new());
    tasks.spawn("config", watcher.run(tasks.stopping()));

    fs::write(&path, "least = 7\nmost = 9").unwrap();
    let status = handle.reload().await;

    assert_eq!(Pair::default(), *live.load());
    assert_eq!(
        format!(
            "{}:1: least = 7: expected no more than most \
             (valid by itself, but not before a restart changes most)",
            path.display()
        ),
        status.refusal.unwrap().to_string()
    );
}
