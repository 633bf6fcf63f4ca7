use std::collections::VecDeque;

use super::*;

const SECOND: i64 = 1_000_000;

fn lane(key: &str) -> Arc<Lane> {
    Arc::new(Lane {
        source: "/test".to_owned(),
        key: key.to_owned(),
    })
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_micros(seconds * SECOND)
}

fn lanes() -> Lanes<u64> {
    Lanes::new(4, SECOND)
}

/// Goal: events of one key are handled one after the other in their order, those of others meanwhile.
/// Method: two keys, one of them out of order.
#[test]
fn a_key_is_handled_in_its_order() {
    let mut lanes = lanes();
    for (key, sequence) in [("a", 2), ("a", 1), ("b", 7)] {
        lanes.arrive(lane(key), Some(sequence), sequence);
    }
    let handle = |item| Step::Handle {
        item,
        held: false,
        overdue: false,
    };
    assert_eq!(Some((lane("a"), handle(1))), lanes.step(at(0)));
    assert_eq!(Some((lane("b"), handle(7))), lanes.step(at(0)));
    assert_eq!(None, lanes.step(at(0)));
    lanes.done(&lane("a"));
    assert_eq!(Some((lane("a"), handle(2))), lanes.step(at(0)));
    assert_eq!(2, lanes.len());
}

/// Goal: what comes behind a held event waits at hand where that comes again soon, comes again later
/// where not, and goes on once it is done.
/// Method: a held event that comes soon, then one that comes late.
#[test]
fn what_is_behind_a_held_event_waits() {
    let mut lanes = lanes();
    lanes.hold(&lane("a"), 1, at(1));
    lanes.arrive(lane("a"), Some(2), 2);
    assert_eq!(None, lanes.step(at(0)));
    assert!(lanes.is_blocked());
    lanes.arrive(lane("a"), Some(1), 1);
    let again = Step::Handle {
        item: 1,
        held: true,
        overdue: false,
    };
    assert_eq!(Some((lane("a"), again)), lanes.step(at(1)));
    lanes.free(&lane("a"), 1);
    assert_eq!(None, lanes.step(at(1)), "the first is not done");
    lanes.done(&lane("a"));
    let next = Step::Handle {
        item: 2,
        held: false,
        overdue: false,
    };
    assert_eq!(Some((lane("a"), next)), lanes.step(at(1)));
    lanes.done(&lane("a"));

    lanes.hold(&lane("a"), 3, at(60));
    lanes.arrive(lane("a"), Some(4), 4);
    let later = Step::Postpone {
        item: 4,
        until: at(60),
    };
    assert_eq!(Some((lane("a"), later)), lanes.step(at(1)));
    lanes.hold(&lane("a"), 4, at(60));
    lanes.done(&lane("a"));
    assert_eq!((0, 2), (lanes.len(), lanes.held()));
}

/// Goal: those that wait for a held event leave room for other keys.
/// Method: more of them than may wait.
#[test]
fn what_waits_at_hand_is_bounded() {
    let mut lanes = lanes();
    lanes.hold(&lane("a"), 1, at(1));
    for sequence in 2..6 {
        lanes.arrive(lane("a"), Some(sequence), sequence);
        assert_eq!(None, lanes.step(at(0)));
    }
    lanes.arrive(lane("a"), Some(6), 6);
    let step = lanes.step(at(0));
    assert!(
        matches!(step, Some((_, Step::Postpone { item: 2, .. }))),
        "{step:?}"
    );
}

/// Goal: an event that comes before its predecessor waits for it, and goes on when that does not come.
/// Method: one that is put back, its predecessor in time, and then none.
#[test]
fn what_comes_early_waits() {
    let mut lanes = lanes();
    lanes.arrive(lane("a"), Some(2), 2);
    assert!(lanes.step(at(0)).is_some());
    lanes.put_back(&lane("a"), 2, 2, at(5));
    lanes.done(&lane("a"));
    assert_eq!(None, lanes.step(at(4)));
    assert!(lanes.is_blocked());
    lanes.arrive(lane("a"), Some(1), 1);
    let step = |item, overdue| {
        let held = false;
        let handle = Step::Handle {
            item,
            held,
            overdue,
        };
        Some((lane("a"), handle))
    };
    assert_eq!(step(1, false), lanes.step(at(4)));
    lanes.done(&lane("a"));
    assert_eq!(step(2, false), lanes.step(at(4)));

    lanes.put_back(&lane("a"), 2, 2, at(5));
    lanes.done(&lane("a"));
    lanes.look_again();
    assert_eq!(None, lanes.step(at(4)));
    lanes.look_again();
    assert_eq!(step(2, true), lanes.step(at(5)));
}

/// A queue that hands out what it has, in order, and again later what is put off.
struct Queue {
    ready: VecDeque<(usize, u64)>,
    later: Vec<(i64, (usize, u64))>,
}

impl Queue {
    fn tick(&mut self, now: i64) {
        let due = self.later.extract_if(.., |(at, _)| *at <= now);
        self.ready.extend(due.map(|(_, event)| event));
    }
}

/// Goal: whatever fails, is put off or ends in between, the events of a key have their effects in
/// their order, and all of them come to have it.
/// Method: a queue of four keys and random outcomes, by seeds; now and then all that is at hand is
/// forgotten and comes again, as with a new subscription.
#[test]
fn order_holds_whatever_happens() {
    for seed in 0..2_000 {
        let mut random = fastrand::Rng::with_seed(seed);
        let events = (0..10).flat_map(|sequence| (0..4).map(move |key| (key, sequence)));
        let mut queue = Queue {
            ready: events.collect(),
            later: Vec::new(),
        };
        let keys: Vec<_> = ["a", "b", "c", "d"].map(lane).into();
        let mut lanes: Lanes<(usize, u64)> = Lanes::new(random.usize(0..4), SECOND);
        let mut unsettled: Vec<(usize, u64)> = Vec::new();
        let mut busy: Vec<((usize, u64), bool)> = Vec::new();
        let mut applied = vec![Vec::new(); 4];
        let mut now = 0;
        while applied.iter().map(Vec::len).sum::<usize>() < 40 {
            now += random.i64(0..SECOND);
            assert!(now < 10_000 * SECOND, "seed {seed}: no progress");
            queue.tick(now);
            while lanes.len() < 8
                && let Some(event) = queue.ready.pop_front()
            {
                unsettled.push(event);
                lanes.arrive(Arc::clone(&keys[event.0]), Some(event.1), event);
            }
            lanes.look_again();
            while let Some((lane, step)) = lanes.step(Timestamp::from_micros(now)) {
                match step {
                    Step::Handle { item, held, .. } => busy.push((item, held)),
                    Step::Postpone { item, until } => {
                        let until = until.micros().max(now + SECOND);
                        lanes.hold(&lane, item.1, Timestamp::from_micros(until));
                        queue.later.push((until, item));
                        unsettled.retain(|it| *it != item);
                        lanes.done(&lane);
                    }
                }
            }
            if random.u8(..) < 8 {
                // The subscription ends: what is busy comes to its end, the rest comes again.
                lanes.forget();
                let again = |event: &(usize, u64)| busy.iter().all(|(it, _)| it != event);
                let mut again: Vec<_> = unsettled.extract_if(.., |it| again(it)).collect();
                again.reverse();
                for event in again {
                    queue.ready.push_front(event);
                }
            }
            if busy.is_empty() {
                continue;
            }
            let (event, held) = busy.swap_remove(random.usize(..busy.len()));
            let lane = &keys[event.0];
            unsettled.retain(|it| *it != event);
            if random.u8(..) < 100 {
                let until = now + random.i64(1..30) * SECOND;
                lanes.hold(lane, event.1, Timestamp::from_micros(until));
                queue.later.push((until, event));
            } else {
                applied[event.0].push(event.1);
                if held {
                    lanes.free(lane, event.1);
                }
            }
            lanes.done(lane);
        }
        let in_order: Vec<u64> = (0..10).collect();
        assert_eq!(vec![in_order; 4], applied, "seed {seed}");
        assert_eq!(0, lanes.held(), "seed {seed}");
    }
}
