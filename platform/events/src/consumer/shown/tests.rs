use super::*;

fn shown() -> (Shown, Journal) {
    let journal = Journal::new();
    (Shown::new(&"test.counts".into(), journal.clone()), journal)
}

fn told(journal: &Journal) -> Vec<String> {
    let (entries, _) = journal.watch();
    entries.into_iter().map(|entry| entry.detail).collect()
}

fn missing() -> BrokerError {
    BrokerError::Missing("test.counts.0".to_owned())
}

/// Goal: a trouble is told once when it begins and once when it is over, however often and with however
/// many queues it is met; operators see what it is with, how often it was met and what was said last.
/// Method: two queues that are missing, tried again and again, and found one after the other.
#[tokio::test(start_paused = true)]
async fn a_trouble_is_told_once() {
    let (shown, journal) = shown();
    for _ in 0..3 {
        for part in [0, 1] {
            shown.broker(Where::Part(part), &missing());
        }
    }
    let held_up = "held up, missing: test.counts.0 is not there";
    assert_eq!([held_up], *told(&journal));
    let [trouble] = &*shown.on_wire().troubles else {
        panic!("{:?}", shown.on_wire());
    };
    assert_eq!(
        ("missing", &[0, 1][..], 6),
        (&*trouble.reason, &*trouble.partitions, trouble.attempts)
    );
    shown.fine(Where::Part(0));
    assert_eq!(1, told(&journal).len(), "one is missing still");
    shown.fine(Where::Part(1));
    shown.fine(Where::Part(1));
    assert_eq!([held_up, "held up no more, missing"], *told(&journal));
    assert!(shown.on_wire().troubles.is_empty());
}

/// Goal: where something else is wrong than before, both are told.
/// Method: a queue that is missing, and then a broker that is away.
#[tokio::test(start_paused = true)]
async fn another_trouble_takes_the_place_of_the_first() {
    let (shown, journal) = shown();
    shown.broker(Where::All, &missing());
    shown.broker(Where::All, &BrokerError::TimedOut);
    let [_, over, new] = &*told(&journal) else {
        panic!("{:?}", told(&journal));
    };
    assert_eq!("held up no more, missing", over);
    assert!(new.starts_with("held up, timed_out"), "{new}");
    assert_eq!(1, shown.on_wire().troubles.len());
}

/// Goal: what a partition held is not counted when it is somebody else's.
/// Method: two partitions, of which one goes in trouble.
#[tokio::test(start_paused = true)]
async fn what_is_gone_is_not_counted() {
    let (shown, _) = shown();
    shown.holds(0, 3, 1);
    shown.holds(4, 2, 2);
    shown.broker(Where::Part(0), &missing());
    let all = shown.on_wire();
    assert_eq!((5, 3), (all.held, all.held_keys));
    assert_eq!([0, 4], *all.partitions);
    shown.gone(0);
    let all = shown.on_wire();
    assert_eq!((2, 2), (all.held, all.held_keys));
    assert_eq!([4], *all.partitions);
    assert!(all.troubles.is_empty());
}
