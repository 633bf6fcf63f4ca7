use std::{convert::Infallible, sync::atomic::AtomicUsize};

use tokio::{sync::mpsc, task::JoinSet};

use super::*;

const INTERVAL: Duration = Duration::from_millis(500);

/// An order as the database has it, and how often it was looked at.
#[derive(Default)]
struct Row {
    version: AtomicI64,
    looks: AtomicUsize,
}

impl Row {
    async fn hear(&self, listener: &mut Listener) {
        let version = || async {
            self.looks.fetch_add(1, Ordering::Relaxed);
            Ok::<_, Infallible>(self.version.load(Ordering::Relaxed))
        };
        listener.hear(|| INTERVAL, version).await.unwrap();
    }

    fn looks(&self) -> usize {
        self.looks.load(Ordering::Relaxed)
    }
}

/// Fifty that listen for one order of version 1; each tells its number whenever it heard.
fn fifty(changes: &Changes, row: &Arc<Row>) -> (JoinSet<()>, mpsc::Receiver<usize>) {
    row.version.store(1, Ordering::Relaxed);
    let (heard, news) = mpsc::channel(64);
    let mut tasks = JoinSet::new();
    for number in 0..50 {
        let mut listener = changes.listen("tea", 50).unwrap();
        let (row, heard) = (Arc::clone(row), heard.clone());
        tasks.spawn(async move {
            loop {
                row.hear(&mut listener).await;
                heard.send(number).await.unwrap();
            }
        });
    }
    (tasks, news)
}

/// The next fifty that heard, each once.
async fn all(news: &mut mpsc::Receiver<usize>) {
    let mut numbers = Vec::new();
    for _ in 0..50 {
        numbers.push(news.recv().await.unwrap());
    }
    numbers.sort_unstable();
    assert_eq!((0..50).collect::<Vec<_>>(), numbers);
}

/// Goal: however many watch an order, it is looked at once in an interval, and all hear of what
/// another replica changed.
/// Method: fifty listeners on a paused clock; count looks while nothing changes, then change.
#[tokio::test(start_paused = true)]
async fn one_looks_for_all() {
    let (changes, row) = (Changes::default(), Arc::new(Row::default()));
    let (_tasks, mut news) = fifty(&changes, &row);
    all(&mut news).await;
    assert_eq!(1, row.looks());
    // A little more than ten intervals, for the clock's granularity.
    let quiet = time::timeout(INTERVAL * 10 + INTERVAL / 2, news.recv()).await;
    assert!(quiet.is_err(), "{quiet:?}");
    assert_eq!(11, row.looks());

    row.version.store(2, Ordering::Relaxed);
    all(&mut news).await;
    assert_eq!(12, row.looks());

    changes.tell("coffee");
    let quiet = time::timeout(INTERVAL / 4, news.recv()).await;
    assert!(quiet.is_err(), "{quiet:?}");
    changes.tell("tea");
    all(&mut news).await;
    assert_eq!(12, row.looks(), "what is told is not looked for");
}

/// Goal: when the one that looks leaves, another one does.
/// Method: two listeners; drop the first in the middle of an interval, then change.
#[tokio::test(start_paused = true)]
async fn another_looks_when_one_leaves() {
    let (changes, row) = (Changes::default(), Row::default());
    let mut one = changes.listen("tea", 2).unwrap();
    let mut other = changes.listen("tea", 2).unwrap();
    tokio::select! {
        biased;
        () = row.hear(&mut one) => panic!("nothing has changed"),
        () = row.hear(&mut other) => panic!("nothing has changed"),
        () = time::sleep(INTERVAL * 3 / 2) => {}
    }
    drop(one);
    row.version.store(1, Ordering::Relaxed);
    let heard = time::timeout(INTERVAL * 2, row.hear(&mut other)).await;
    assert!(heard.is_ok());
}

/// Goal: listeners are bounded over all orders, and one that leaves makes room and leaves nothing.
/// Method: fill the bound, ask for one more, drop one, ask again, drop all.
#[tokio::test]
async fn listeners_are_bounded() {
    let changes = Changes::default();
    let one = changes.listen("tea", 2);
    let other = changes.listen("coffee", 2);
    assert!(one.is_some() && other.is_some());
    assert!(changes.listen("tea", 2).is_none());
    drop(one);
    let third = changes.listen("coffee", 2);
    assert!(third.is_some());
    drop((other, third));
    assert!(changes.registry().orders.is_empty());
    assert_eq!(0, changes.registry().listeners);
}
