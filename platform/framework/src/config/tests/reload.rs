//! A configuration that changes under a running process.
//!
//! The file system is real and so are its signs in the last tests; elsewhere the test gives the
//! signs itself, on a paused clock.

use std::fs;

use tokio::time::{self, Instant};

use super::{process::Process, *};
use crate::{
    journal::{Journal, Kind},
    shutdown::Tasks,
};

/// Goal: a changed live key is in use, with the next version, and only those who read it are woken.
/// Method: change it, and look at two parts.
#[tokio::test(start_paused = true)]
async fn a_live_key_is_applied() {
    let process = Process::start("share = 0.1");
    let share = process.live.map(|root| &root.share);
    let listen = process.live.map(|root| &root.listen);
    let (share_changes, listen_changes) = (share.subscribe(), listen.subscribe());

    let status = process.change("share = 0.2").await;

    assert_eq!((2, 1, 0), (status.version, status.applied, status.refused));
    assert!(share.read(|share| (share - 0.2).abs() < f64::EPSILON));
    assert!(share_changes.has_changed().unwrap());
    assert!(!listen_changes.has_changed().unwrap());
    assert_eq!(
        vec!["version 2: share"],
        process.entries(Kind::ConfigApplied)
    );
}

/// Goal: a wrong file changes nothing and says why, once; a right one ends that.
/// Method: break the file, ask for it twice, mend it.
#[tokio::test(start_paused = true)]
async fn a_wrong_file_leaves_the_last_good_one() {
    let process = Process::start("share = 0.1");

    let broken = "share = 0.2\nnames = ['a', 1]\nlisten = ";
    let status = process.change(broken).await;

    let shown = process.path().display().to_string();
    let expected =
        format!("{shown}:3:10: not TOML: string values must be quoted, expected literal string");
    assert_eq!((1, 1), (status.version, status.refused));
    assert_eq!(expected, status.refusal.unwrap().to_string());
    assert_eq!(vec![expected], process.entries(Kind::ConfigRefused));
    assert!((process.live.load().share - 0.1).abs() < f64::EPSILON);

    let status = process.change("share = 1.2").await;
    assert_eq!((1, 2), (status.version, status.refused));
    let status = process.change("share = 0.3").await;
    assert_eq!((2, 2), (status.version, status.refused));
    assert!(status.refusal.is_none());
}

/// Goal: a file that is still wrong is not reported again and again.
/// Method: break it, give more signs without a change.
#[tokio::test(start_paused = true)]
async fn the_same_mistake_is_reported_once() {
    let process = Process::start("");
    process.write("share = 2");
    process.sign(false);
    process.until(|status| status.refused == 1).await;

    for _ in 0..5 {
        process.sign(false);
        time::sleep(Duration::from_secs(1)).await;
    }

    assert_eq!(1, process.handle.status().borrow().refused);
}

/// Goal: a file that goes away is an alarm and no change; someone who asks goes on without it.
/// Method: remove it, give a sign, put another back, remove that and ask.
#[tokio::test(start_paused = true)]
async fn a_file_that_is_gone_leaves_the_last_good_one() {
    let process = Process::start("share = 0.1");

    fs::remove_file(process.path()).unwrap();
    process.sign(true);
    let status = process.until(|status| status.refused == 1).await;
    assert!((process.live.load().share - 0.1).abs() < f64::EPSILON);
    assert_eq!(
        format!(
            "{}: the file is gone; put it back, or ask for a reload to go on without it",
            process.path().display()
        ),
        status.refusal.unwrap().to_string()
    );

    process.write("share = 0.2");
    process.sign(false);
    let status = process.until(|status| status.version == 2).await;
    assert!(status.refusal.is_none());

    fs::remove_file(process.path()).unwrap();
    let status = process.handle.reload().await;
    assert_eq!((3, 1), (status.version, status.refused));
    assert_eq!(Root::default(), *process.live.load());
}

/// Goal: the first change is applied at once, many are not applied more often than ten times a
/// second, and the last one always is.
/// Method: a hundred writes within a second of the paused clock.
#[tokio::test(start_paused = true)]
async fn many_changes_are_applied_together() {
    let process = Process::start("");
    // The look that follows the start is over.
    time::sleep(Duration::from_secs(1)).await;
    let begun = Instant::now();

    process.write("[listen]\nconnections_max = 1");
    process.sign(false);
    process.until(|status| status.version == 2).await;
    assert!(begun.elapsed() <= Duration::from_millis(30));

    for connections in 2..=100 {
        process.write(&format!("[listen]\nconnections_max = {connections}"));
        process.sign(false);
        time::sleep(Duration::from_millis(10)).await;
    }
    let all = |status: &Status| {
        let shown = status.entries.iter().find(|e| e.key.ends_with("_max"));
        shown.unwrap().value.as_deref() == Some("100")
    };
    let status = process.until(all).await;
    assert!(begun.elapsed() <= Duration::from_millis(1_200));
    assert!((3..=12).contains(&status.version), "{}", status.version);
}

/// Goal: half a file is never taken for the whole, even where it is valid.
/// Method: write a valid half, let the writer take its time, write the rest and close.
#[tokio::test(start_paused = true)]
async fn a_file_that_is_being_written_is_left_alone() {
    let process = Process::start("share = 0.1");
    time::sleep(Duration::from_secs(1)).await;

    process.write("");
    process.sign(true);
    for _ in 0..10 {
        time::sleep(Duration::from_millis(400)).await;
        assert_eq!(1, process.handle.status().borrow().version);
        process.sign(true);
    }
    process.write("share = 0.2");
    process.sign(true);
    process.sign(false);

    process.until(|status| status.version == 2).await;
    assert!((process.live.load().share - 0.2).abs() < f64::EPSILON);
}

/// Goal: what is written while it is looked at is not taken either.
/// Method: let a look begin at a finished half, and the next write within it.
#[tokio::test(start_paused = true)]
async fn a_write_during_the_look_undoes_it() {
    let process = Process::start("share = 0.1");
    time::sleep(Duration::from_secs(1)).await;

    process.write("");
    process.sign(false);
    time::sleep(Duration::from_millis(22)).await;
    process.sign(true);
    time::sleep(Duration::from_millis(300)).await;
    assert_eq!(1, process.handle.status().borrow().version);
    process.write("share = 0.2");
    process.sign(false);

    let status = process.until(|status| status.version > 1).await;
    assert_eq!(2, status.version);
    assert!((process.live.load().share - 0.2).abs() < f64::EPSILON);
}

/// Goal: where nobody tells that a write is finished, silence does.
/// Method: one sign of a write, and nothing after it.
#[tokio::test(start_paused = true)]
async fn silence_ends_a_write() {
    let process = Process::start("");
    time::sleep(Duration::from_secs(1)).await;
    let begun = Instant::now();

    process.write("share = 0.2");
    process.sign(true);

    process.until(|status| status.version == 2).await;
    assert!(begun.elapsed() >= Duration::from_millis(500));
    assert!(begun.elapsed() < Duration::from_secs(1));
}

/// Goal: a change without any sign is found, as on file systems that give none.
/// Method: write and wait.
#[tokio::test(start_paused = true)]
async fn a_change_without_a_sign_is_found() {
    let process = Process::start("");
    time::sleep(Duration::from_secs(1)).await;
    let begun = Instant::now();

    process.write("share = 0.2");

    process.until(|status| status.version == 2).await;
    assert!(begun.elapsed() < Duration::from_secs(7));
}

/// Goal: a section that panics while it is read costs neither the process nor its watcher.
/// Method: let a rule panic for one value, then give another.
#[tokio::test(start_paused = true)]
async fn a_rule_that_panics_refuses() {
    section! {
        /// Panics at 13.
        struct Unlucky {
            /// Any number.
            number: u32 = 1, live;
        }
        validate = Unlucky::check;
    }
    impl Unlucky {
        fn check(&self, _: &mut Check<'_, '_>) {
            assert_ne!(13, self.number, "unlucky");
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.toml");
    fs::write(&path, "").unwrap();
    let loaded = load::<Unlucky>(Sources::new().file(&path)).expect("valid");
    let tasks = Tasks::new(Journal::new());
    let (watcher, live, handle) = loaded.watcher(Journal::new());
    tasks.spawn("config", watcher.run(tasks.stopping()));

    fs::write(&path, "number = 13").unwrap();
    assert_eq!(1, handle.reload().await.refused);
    fs::write(&path, "number = 14").unwrap();
    assert_eq!(2, handle.reload().await.version);
    assert_eq!(14, live.load().number);
}

/// Goal: the task ends with the others, and who asks afterwards is not left waiting.
/// Method: stop, then ask.
#[tokio::test(start_paused = true)]
async fn after_the_end_nothing_is_read() {
    let process = Process::start("share = 0.1");
    process.tasks.stop().await;

    let status = process.change("share = 0.2").await;

    assert_eq!(1, status.version);
    assert_eq!(0, process.tasks.running());
}

/// Goal: each way in which files are replaced is noticed within a second.
/// Method: the real file system and clock; write in place, rename over, swap a symbolic link to a
/// folder as mounted configurations do.
#[cfg(unix)]
#[tokio::test]
async fn every_way_to_replace_a_file_is_noticed() {
    use std::os::unix::fs::symlink;
    let process = Process::start_watching("share = 0.1");
    let folder = process.folder.path();
    let reaches = async |version: u64| {
        let begun = Instant::now();
        process.until(|status| status.version == version).await;
        assert!(begun.elapsed() < Duration::from_secs(3), "{version}");
    };

    process.write("share = 0.2");
    reaches(2).await;

    fs::write(folder.join("orders.toml.new"), "share = 0.3").unwrap();
    fs::rename(folder.join("orders.toml.new"), process.path()).unwrap();
    reaches(3).await;

    for (data, share) in [("one", 0.4), ("two", 0.5)] {
        fs::create_dir(folder.join(data)).unwrap();
        fs::write(
            folder.join(data).join("orders.toml"),
            format!("share = {share}"),
        )
        .unwrap();
    }
    symlink("one", folder.join("..data")).unwrap();
    symlink("..data/orders.toml", folder.join("link")).unwrap();
    fs::rename(folder.join("link"), process.path()).unwrap();
    reaches(4).await;

    symlink("two", folder.join("..data_new")).unwrap();
    fs::rename(folder.join("..data_new"), folder.join("..data")).unwrap();
    reaches(5).await;
    assert!((process.live.load().share - 0.5).abs() < f64::EPSILON);
}

/// Goal: neither a log beside the files nor our own reading is a sign of change.
/// Method: write a log, ask for many reads, then change the file and count the signs of it all.
#[tokio::test]
async fn a_log_in_the_same_folder_is_no_sign() {
    use std::io::Write as _;
    let process = Process::start_watching("share = 0.1");
    let mut log = fs::File::create(process.folder.path().join("orders.log")).unwrap();
    for line in 0..1_000 {
        writeln!(log, "line {line}").unwrap();
    }
    for _ in 0..20 {
        process.handle.reload().await;
    }

    process.write("share = 0.2");
    process.until(|status| status.version == 2).await;

    let signs = process.notices.borrow().signs;
    assert!((1..=5).contains(&signs), "{signs} signs of one write");
}

/// Goal: a change that is valid by itself is refused by the rule of those who know more, and tells so
/// like any other; what that rule takes is applied.
/// Method: a rule that bounds a value, shown the value and where it stands; one change beyond it.
#[tokio::test(start_paused = true)]
async fn a_rule_of_the_running_process_is_heeded() {
    let process = Process::start("share = 0.1");
    process.handle.judge_by(|root: &Root, entries: &[Entry]| {
        let share = entries.iter().find(|entry| entry.key == "share").unwrap();
        let fault = Fault {
            origin: share.origin.clone(),
            key: share.key.clone(),
            reason: "share: expected less".to_owned(),
        };
        (root.share > 0.5).then_some(fault).into_iter().collect()
    });

    let status = process.change("\nshare = 0.6").await;
    assert_eq!((1, 1), (status.version, status.refused));
    let expected = format!("{}:2: share: expected less", process.path().display());
    assert_eq!(vec![expected], process.entries(Kind::ConfigRefused));
    assert!((process.live.load().share - 0.1).abs() < f64::EPSILON);

    let status = process.change("share = 0.4").await;
    assert_eq!((2, 1), (status.version, status.refused));
    assert!(status.refusal.is_none());
}
