use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{Notify, mpsc},
    time::{self, Instant},
};

use super::{
    MS,
    fake::{Fake, Kind, put_at},
};
use crate::{
    discovery::etcd::{
        Error,
        feed::{Change, Feed, Update},
    },
    journal::Journal,
    shutdown::Tasks,
};

/// A feed that runs, and what it tells.
struct Running {
    fake: Fake,
    updates: mpsc::Receiver<Update>,
    suspicion: Arc<Notify>,
    tasks: Tasks,
}

impl Running {
    /// Begins with two keys, and takes the first list in.
    async fn start() -> Self {
        let fake = Fake::new();
        fake.put("orders/a", "1");
        fake.put("orders/b", "2");
        fake.put("accounts/a", "not asked for");
        let mut running = Self::at(fake);
        assert_eq!(["orders/a", "orders/b"], running.list().await[..]);
        running
    }

    fn at(fake: Fake) -> Self {
        let suspicion = Arc::new(Notify::new());
        let feed = Feed {
            etcd: fake.etcd(),
            prefix: "orders/".to_owned(),
            wanted: |_| true,
            suspicion: Arc::clone(&suspicion),
        };
        let (sender, updates) = mpsc::channel(1);
        let tasks = Tasks::new(Journal::new());
        tasks.spawn("feed", feed.run(sender));
        Self {
            fake,
            updates,
            suspicion,
            tasks,
        }
    }

    async fn next(&mut self) -> Update {
        let next = time::timeout(Duration::from_mins(10), self.updates.recv()).await;
        next.expect("it tells something").expect("it runs")
    }

    /// The keys of a list, which must be what comes next.
    async fn list(&mut self) -> Vec<String> {
        match self.next().await {
            Update::List(pairs, _) => pairs.into_iter().map(|(key, _)| text(key)).collect(),
            other => panic!("not a list: {other:?}"),
        }
    }

    /// Changes as `key=value`, which must be what comes next; a value is empty where the key went.
    async fn changes(&mut self) -> Vec<String> {
        let Update::Changes(changes) = self.next().await else {
            panic!("no changes");
        };
        let changes = changes.into_iter().map(|change| match change {
            Change::Put((key, value)) => format!("{}={}", text(key), text(value)),
            Change::Delete(key) => format!("{}=", text(key)),
        });
        changes.collect()
    }

    /// Waits `duration` and expects not to be told of anything.
    async fn nothing(&mut self, duration: Duration) {
        let told = time::timeout(duration, self.updates.recv()).await;
        assert!(told.is_err(), "{told:?}");
    }
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

/// Goal: a watch that says nothing any more is asked for its progress after ten seconds, given up
/// five seconds later, and what it kept to itself is listed.
/// Method: silence the watches; put a key.
#[tokio::test(start_paused = true)]
async fn a_silent_watch_is_given_up() {
    let mut running = Running::start().await;
    running.fake.faults(|faults| faults.silent = true);
    running.fake.put("orders/c", "3");
    let begun = Instant::now();

    let Update::Failed(Error::TimedOut { what, .. }) = running.next().await else {
        panic!("not given up");
    };
    assert_eq!("ask for progress", what);
    assert_eq!(15, begun.elapsed().as_secs());
    assert_eq!(1, running.fake.asked(Kind::Progress));
    running.fake.faults(|faults| faults.silent = false);
    assert_eq!(
        ["orders/a", "orders/b", "orders/c"],
        running.list().await[..]
    );
    assert!(begun.elapsed() < Duration::from_secs(16));
}

/// Goal: a watch that is quiet but answers is kept, however long nothing changes.
/// Method: an hour of quiet; then a change comes over the same watch.
#[tokio::test(start_paused = true)]
async fn a_quiet_watch_is_kept() {
    let mut running = Running::start().await;
    running.nothing(Duration::from_hours(1)).await;
    assert_eq!(1, running.fake.asked(Kind::WatchStream));
    assert_eq!(1, running.fake.asked(Kind::Range));
    let asked = running.fake.asked(Kind::Progress);
    assert!((300..=360).contains(&asked), "{asked}");

    running.fake.put("orders/c", "3");
    running.fake.delete("orders/a");
    assert_eq!(["orders/c=3"], running.changes().await[..]);
    assert_eq!(["orders/a="], running.changes().await[..]);
}

/// Goal: suspicion asks a watch at once, and so gives up a dead one early; however many suspect,
/// there is one question in five seconds.
/// Method: suspect a quiet watch every millisecond for a minute; then one that is silent.
#[tokio::test(start_paused = true)]
async fn suspicion_asks_at_once_and_seldom() {
    let mut running = Running::start().await;
    for _ in 0..60_000 {
        running.suspicion.notify_one();
        running.nothing(MS).await;
    }
    let asked = running.fake.asked(Kind::Progress);
    assert!((6..=13).contains(&asked), "{asked}");

    // The last hint was followed after a pause; another pause on, and before the next question.
    running.nothing(Duration::from_secs(11)).await;
    running.fake.faults(|faults| faults.silent = true);
    let begun = Instant::now();
    running.suspicion.notify_one();
    assert!(matches!(running.next().await, Update::Failed(_)));
    assert_eq!(5, begun.elapsed().as_secs());
}

/// Goal: where the history that is to be followed is compacted away, all is listed again at once,
/// and nothing is lost; it is no failure that anybody is told of.
/// Method: compact under a watch that was told nothing for a while, and between list and watch.
#[tokio::test(start_paused = true)]
async fn compaction_loses_nothing() {
    let mut running = Running::start().await;
    running.nothing(MS).await;
    running.fake.faults(|faults| faults.silent = true);
    running.fake.put("orders/c", "3");
    running.fake.delete("orders/a");
    running.fake.faults(|faults| faults.silent = false);
    let begun = Instant::now();
    running.fake.compact();
    assert_eq!(["orders/b", "orders/c"], running.list().await[..]);
    running.nothing(MS).await;

    running
        .fake
        .faults(|faults| faults.compacts_before_watch = true);
    running.fake.compact();
    assert_eq!(["orders/b", "orders/c"], running.list().await[..]);
    let late = ["orders/b", "orders/c", "orders/late-1", "orders/late-2"];
    assert_eq!(late, running.list().await[..]);
    assert!(begun.elapsed() < 10 * MS, "{:?}", begun.elapsed());

    running.fake.put("orders/d", "4");
    assert_eq!(["orders/d=4"], running.changes().await[..]);
}

/// Goal: each change is told once and in the order of revisions, whatever is said twice, late or
/// out of order.
/// Method: messages with events of the past, of another order, and twice the same.
#[tokio::test(start_paused = true)]
async fn each_change_is_told_once_and_in_order() {
    let mut running = Running::start().await;
    let next = running.fake.revision() + 1;
    let event = |number: i64| put_at("orders/x", &number.to_string(), next + number);

    running.fake.say(vec![event(0), event(1)]);
    assert_eq!(["orders/x=0", "orders/x=1"], running.changes().await[..]);
    running.fake.say(vec![event(0), event(1)]);
    running.fake.say(vec![event(1)]);
    running.fake.say(vec![put_at("orders/a", "old", next - 1)]);
    running.nothing(MS).await;
    running.fake.say(vec![event(1), event(2)]);
    assert_eq!(["orders/x=2"], running.changes().await[..]);
    running
        .fake
        .say(vec![event(5), event(3), event(4), event(3)]);
    let expected = ["orders/x=3", "orders/x=4", "orders/x=5"];
    assert_eq!(expected, running.changes().await[..]);
}

/// Goal: a revision that comes in several messages is told whole.
/// Method: two keys of one revision in two fragments; then the same again, and the next revision.
#[tokio::test(start_paused = true)]
async fn fragments_of_a_revision_are_all_told() {
    let mut running = Running::start().await;
    let next = running.fake.revision() + 1;
    let fragments = ["orders/x", "orders/y"].map(|key| vec![put_at(key, "1", next)]);
    for _ in 0..2 {
        running.fake.say_in_fragments(fragments.to_vec());
    }
    running.fake.say(vec![put_at("orders/z", "1", next + 1)]);
    for expected in ["orders/x=1", "orders/y=1", "orders/z=1"] {
        assert_eq!([expected], running.changes().await[..]);
    }
}

/// Goal: a value that can be nobody's instance is told as one that is empty, listed or changed.
/// Method: one of 64 KiB, and one that is a byte larger; both again over the watch.
#[tokio::test(start_paused = true)]
async fn a_value_that_is_too_large_is_not_kept() {
    let fits = "x".repeat(64 << 10);
    let fake = Fake::new();
    fake.put("orders/a", &fits);
    fake.put("orders/b", &format!("{fits}x"));
    let mut running = Running::at(fake);
    let Update::List(pairs, _) = running.next().await else {
        panic!("not a list");
    };
    let sizes: Vec<_> = pairs.iter().map(|(_, value)| value.len()).collect();
    assert_eq!([64 << 10, 0], sizes[..]);

    running.fake.put("orders/a", &format!("{fits}x"));
    running.fake.put("orders/b", &fits);
    assert_eq!(["orders/a="], running.changes().await[..]);
    assert_eq!([format!("orders/b={fits}")], running.changes().await[..]);
}

/// Goal: what happens between list and watch is told.
/// Method: let the watch take a second to begin, and put a key meanwhile.
#[tokio::test(start_paused = true)]
async fn nothing_is_lost_between_list_and_watch() {
    let fake = Fake::new();
    fake.faults(|faults| faults.delay = Duration::from_secs(1));
    let mut running = Running::at(fake);
    assert!(running.list().await.is_empty());
    running.fake.put("orders/a", "1");
    assert_eq!(["orders/a=1"], running.changes().await[..]);
}

/// Goal: a feed that nobody listens to ends, whatever it waits for.
/// Method: drop the listener of one that watches, and of one whose etcd answers nothing.
#[tokio::test(start_paused = true)]
async fn a_feed_without_listener_ends() {
    let watching = Running::start().await;
    let fake = Fake::new();
    fake.faults(|faults| faults.delay = Duration::from_hours(1));
    let waiting = Running::at(fake);
    for running in [watching, waiting] {
        let Running { updates, tasks, .. } = running;
        drop(updates);
        super::until("its end", || (tasks.running() == 0).then_some(())).await;
    }
}
