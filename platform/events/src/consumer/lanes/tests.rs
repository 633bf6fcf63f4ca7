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

const LIMITS: Limits = Limits {
    parked_max: 4,
    park_max: Duration::from_secs(1),
    pause_max: Duration::from_mins(10),
    pauses: &[],
    lost_after: Duration::from_secs(100),
};

fn lanes() -> Lanes<u64> {
    Lanes::new(LIMITS)
}

fn handle(key: &str, item: u64) -> Step<u64> {
    Step::Handle {
        lane: lane(key),
        item,
        held: false,
        overdue: false,
    }
}

/// Those of one key that are put off, and until when.
fn postpone(key: &str, items: impl IntoIterator<Item = u64>, after: u64) -> Step<u64> {
    let behind = |item| Behind {
        lane: lane(key),
        item,
        after: Duration::from_millis(after),
    };
    Step::Postpone(items.into_iter().map(behind).collect())
}

/// Goal: events of one key are handled one after the other in their order, those of others meanwhile.
/// Method: two keys, one of them out of order.
#[test]
fn a_key_is_handled_in_its_order() {
    let mut lanes = lanes();
    for (key, sequence) in [("a", 2), ("a", 1), ("b", 7)] {
        lanes.arrive(lane(key), Some(sequence), sequence);
    }
    assert_eq!(Some(handle("a", 1)), lanes.step(at(0)));
    assert_eq!(Some(handle("b", 7)), lanes.step(at(0)));
    assert_eq!(None, lanes.step(at(0)));
    lanes.done(&lane("a"));
    assert_eq!(Some(handle("a", 2)), lanes.step(at(0)));
    assert_eq!(2, lanes.len());
}

/// Goal: what comes behind a held event waits at hand where that comes again soon, and goes on once it is
/// done.
/// Method: a held event that comes soon, with one behind it.
#[test]
fn what_is_behind_a_held_event_waits() {
    let mut lanes = lanes();
    lanes.hold(&lane("a"), 1, at(1));
    lanes.arrive(lane("a"), Some(2), 2);
    lanes.look_again();
    assert_eq!(None, lanes.step(at(0)));
    assert!(lanes.is_blocked());
    lanes.arrive(lane("a"), Some(1), 1);
    let again = Step::Handle {
        lane: lane("a"),
        item: 1,
        held: true,
        overdue: false,
    };
    assert_eq!(Some(again), lanes.step(at(1)));
    lanes.free(&lane("a"), 1);
    assert_eq!(None, lanes.step(at(1)), "the first is not done");
    lanes.done(&lane("a"));
    assert_eq!(Some(handle("a", 2)), lanes.step(at(1)));
}

/// Goal: those behind an event that comes late are put off with it, all that have gathered at once.
/// Method: three of them, looked at once.
#[test]
fn what_is_behind_a_late_event_is_put_off_at_once() {
    let mut lanes = lanes();
    lanes.hold(&lane("a"), 3, at(60));
    for sequence in 4..7 {
        lanes.arrive(lane("a"), Some(sequence), sequence);
        assert_eq!(None, lanes.step(at(1)));
    }
    lanes.look_again();
    assert_eq!(Some(postpone("a", 4..7, 59_000)), lanes.step(at(1)));
    assert_eq!((None, 3), (lanes.step(at(1)), lanes.len()));
    for sequence in 4..7 {
        lanes.hold(&lane("a"), sequence, at(60));
    }
    lanes.done(&lane("a"));
    assert_eq!((0, 4), (lanes.len(), lanes.held()));
}

/// Goal: those that wait for a held event leave room for other keys.
/// Method: more of them than may wait, beside some that wait for something else.
#[test]
fn what_waits_at_hand_is_bounded() {
    let mut lanes = lanes();
    lanes.hold(&lane("a"), 1, at(1));
    lanes.arrive(lane("b"), Some(1), 1);
    assert_eq!(Some(handle("b", 1)), lanes.step(at(0)));
    for sequence in 2..6 {
        lanes.arrive(lane("b"), Some(sequence), sequence);
        lanes.arrive(lane("a"), Some(sequence), sequence);
        assert_eq!(None, lanes.step(at(0)));
    }
    lanes.arrive(lane("a"), Some(6), 6);
    // The next three stay.
    assert_eq!(Some(postpone("a", 5..7, 1_000)), lanes.step(at(0)));
}

/// Goal: an event that comes before its predecessor waits for it, and goes on when that does not come.
/// Method: one that is put back, its predecessor in time, and then none.
#[test]
fn what_comes_early_waits() {
    let mut lanes = lanes();
    lanes.arrive(lane("a"), Some(2), 2);
    assert!(lanes.step(at(0)).is_some());
    let wait = Wait {
        sequence: Some(2),
        until: at(5),
        overdue: true,
    };
    lanes.put_back(&lane("a"), 2, wait);
    lanes.done(&lane("a"));
    assert_eq!(None, lanes.step(at(4)));
    assert!(lanes.is_blocked());
    lanes.arrive(lane("a"), Some(1), 1);
    assert_eq!(Some(handle("a", 1)), lanes.step(at(4)));
    lanes.done(&lane("a"));
    assert_eq!(Some(handle("a", 2)), lanes.step(at(4)));

    lanes.put_back(&lane("a"), 2, wait);
    lanes.done(&lane("a"));
    lanes.look_again();
    assert_eq!(None, lanes.step(at(4)));
    lanes.look_again();
    let overdue = Step::Handle {
        lane: lane("a"),
        item: 2,
        held: false,
        overdue: true,
    };
    assert_eq!(Some(overdue), lanes.step(at(5)));
}

/// Goal: while an event waits at hand to be tried again, those of its key wait behind it, and others do
/// not.
/// Method: put one back, and have some of two keys come.
#[test]
fn what_is_behind_one_that_rests_waits() {
    let mut lanes = lanes();
    lanes.arrive(lane("a"), Some(1), 1);
    assert!(lanes.step(at(0)).is_some());
    let wait = Wait {
        sequence: Some(1),
        until: at(3),
        overdue: false,
    };
    lanes.put_back(&lane("a"), 1, wait);
    lanes.done(&lane("a"));
    for sequence in 2..20 {
        lanes.arrive(lane("a"), Some(sequence), sequence);
    }
    lanes.arrive(lane("b"), Some(1), 1);
    assert_eq!(Some(handle("b", 1)), lanes.step(at(0)));
    lanes.look_again();
    assert_eq!(None, lanes.step(at(2)));
    lanes.look_again();
    assert_eq!(Some(handle("a", 1)), lanes.step(at(3)));
    lanes.done(&lane("a"));
    assert_eq!(Some(handle("a", 2)), lanes.step(at(3)));
}

/// Goal: a held event whose message is gone keeps its key no longer than it may, and not a shorter time.
/// Method: one behind it that is put off again and again; it is the queue that shows that the other must
/// have come before.
#[test]
fn what_is_held_and_gone_is_given_up() {
    let mut lanes = lanes();
    lanes.hold(&lane("a"), 1, at(10));
    for due in [12, 50, 109, 110] {
        lanes.hold(&lane("a"), 2, at(due));
        lanes.arrive(lane("a"), Some(2), 2);
        lanes.look_again();
        let step = lanes.step(at(200));
        if due < 110 {
            assert_eq!(Some(postpone("a", [2], 5_000)), step, "{due}");
        } else {
            let lane = lane("a");
            let sequence = 1;
            assert_eq!(Some(Step::GiveUp { lane, sequence }), step);
        }
        lanes.done(&lane("a"));
    }
    lanes.free(&lane("a"), 1);
    let again = Step::Handle {
        lane: lane("a"),
        item: 2,
        held: true,
        overdue: false,
    };
    assert_eq!(Some(again), lanes.step(at(200)));
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

/// Goal: whatever fails, is put off, waits or ends in between, the events of a key have their effects in
/// their order, and all of them come to have it.
/// Method: a queue of four keys and random outcomes, by seeds; now and then all that is at hand is
/// forgotten and comes again, as with a new subscription.
#[test]
fn order_holds_whatever_happens() {
    for seed in 0..2_000 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut play = Play::new(random.usize(0..4), 4, 10);
        while play.applied.iter().map(Vec::len).sum::<usize>() < 40 {
            play.now += random.i64(0..SECOND);
            assert!(play.now < 10_000 * SECOND, "seed {seed}: no progress");
            play.go(8);
            if random.u8(..) < 8 {
                play.end();
            }
            if play.busy.is_empty() {
                continue;
            }
            let at = random.usize(..play.busy.len());
            match random.u8(..) {
                0..60 => play.put_off(at, random.i64(1..30)),
                60..100 => play.rest(at, random.i64(1..3)),
                _ => play.apply(at),
            }
        }
        let in_order: Vec<u64> = (0..10).collect();
        assert_eq!(vec![in_order; 4], play.applied, "seed {seed}");
        assert_eq!(0, play.lanes.held(), "seed {seed}");
    }
}

/// Goal: a backlog goes out though one of its events is tried again later: where that waits at hand
/// nothing behind it is put off, and where the broker has it, all that is at hand at once.
/// Method: three keys with a hundred events each, one of which fails once, an event handled each
/// millisecond; writes beside effects are counted.
#[test]
fn a_backlog_drains_behind_one_that_fails() {
    let drain = |fails: fn(&mut Play, usize)| {
        let mut play = Play::new(8, 3, 100);
        let mut failed = false;
        while play.applied.iter().map(Vec::len).sum::<usize>() < 300 {
            play.now += 1_000;
            play.go(16);
            match play.busy.first() {
                Some(((0, 10), _)) if !failed => {
                    failed = true;
                    fails(&mut play, 0);
                }
                Some(_) => play.apply(0),
                None => {}
            }
        }
        let in_order: Vec<u64> = (0..100).collect();
        assert_eq!(vec![in_order; 3], play.applied);
        play
    };
    let rested = drain(|play, at| play.rest(at, 1));
    assert_eq!((0, 0), (rested.writes, rested.postponed));
    assert!(rested.now < 2 * SECOND, "{}", rested.now);
    let put_off = drain(|play, at| play.put_off(at, 5));
    // All 89 behind it, and none of them twice; nine of them find no room at hand any more.
    assert_eq!((11, 89), (put_off.writes, put_off.postponed));
    assert!(put_off.now < 8 * SECOND, "{}", put_off.now);
}

/// Pauses as RabbitMQ has them.
const PAUSES: [Duration; 4] = [
    Duration::from_secs(1),
    Duration::from_secs(5),
    Duration::from_secs(25),
    Duration::from_secs(125),
];

/// Goal: a backlog whose order is mixed up goes out many events a pause.
/// Method: two hundred events of one key, all of them put off, that come again within a second in an order
/// drawn by a seed; brokers that have every pause, and some.
#[test]
fn a_backlog_in_no_order_goes_out() {
    for seed in 0..40 {
        let mut random = fastrand::Rng::with_seed(seed);
        let pauses: &[_] = if seed % 2 == 0 { &[] } else { &PAUSES };
        let mut play = Play::with(48, 1, 0, pauses);
        for sequence in 0..200 {
            play.hold_until(&Play::key(0), (0, sequence), random.i64(0..SECOND));
        }
        while play.applied[0].len() < 200 {
            play.now += 1_000;
            assert!(play.now < 15 * SECOND, "seed {seed}: {:?}", play.applied);
            play.go(64);
            if !play.busy.is_empty() {
                play.apply(0);
            }
        }
        let in_order: Vec<u64> = (0..200).collect();
        assert_eq!(in_order, play.applied[0], "seed {seed}");
    }
}

/// Goal: a key that is never quiet has no backlog any more soon after one of its events was put off.
/// Method: twenty events of it a second, one of which is put off for as long as the broker takes for 25
/// seconds; how many are held a minute later.
#[test]
fn a_busy_key_catches_up() {
    for pauses in [&[][..], &PAUSES] {
        let mut play = Play::with(48, 1, 0, pauses);
        let mut failed = false;
        for event in 0..1_800_u64 {
            play.queue.ready.push_back((0, event));
            for _ in 0..50 {
                play.now += 1_000;
                play.go(64);
                match play.busy.first() {
                    Some(((_, 100), _)) if !failed => {
                        failed = true;
                        let after = pause(pauses, Duration::from_secs(25)).as_secs();
                        play.put_off(0, i64::try_from(after).expect("short"));
                    }
                    Some(_) => play.apply(0),
                    None => {}
                }
            }
        }
    }
}

/// Goal: nobody waits behind another for longer than any waits by itself, whatever another clock said.
/// Method: behind one that is due next year.
#[test]
fn who_waits_behind_another_comes_again_in_time() {
    let after = pause_behind(at(365 * 24 * 3_600), at(0), &LIMITS);
    assert_eq!(LIMITS.pause_max, after);
}

/// A consumer of some keys, with the queue it has them from.
struct Play {
    queue: Queue,
    lanes: Lanes<(usize, u64)>,
    unsettled: Vec<(usize, u64)>,
    /// What is handled, and whether it is held.
    busy: Vec<((usize, u64), bool)>,
    applied: Vec<Vec<u64>>,
    now: i64,
    /// Times that events were put off behind others, and writes that this took.
    postponed: usize,
    writes: usize,
}

impl Play {
    fn new(parked_max: usize, keys: usize, each: u64) -> Self {
        Self::with(parked_max, keys, each, &[])
    }

    fn with(parked_max: usize, keys: usize, each: u64, pauses: &'static [Duration]) -> Self {
        let events = (0..each).flat_map(|sequence| (0..keys).map(move |key| (key, sequence)));
        Self {
            queue: Queue {
                ready: events.collect(),
                later: Vec::new(),
            },
            lanes: Lanes::new(Limits {
                parked_max,
                pauses,
                ..LIMITS
            }),
            unsettled: Vec::new(),
            busy: Vec::new(),
            applied: vec![Vec::new(); keys],
            now: 0,
            postponed: 0,
            writes: 0,
        }
    }

    fn key(key: usize) -> Arc<Lane> {
        lane(["a", "b", "c", "d"][key])
    }

    /// Takes in what comes, and begins what is possible.
    fn go(&mut self, prefetch: usize) {
        self.queue.tick(self.now);
        while self.unsettled.len() < prefetch
            && let Some(event) = self.queue.ready.pop_front()
        {
            self.unsettled.push(event);
            self.lanes.arrive(Self::key(event.0), Some(event.1), event);
        }
        // As if by a clock of its own.
        if self.now % (100 * 1_000) < 1_000 || self.queue.ready.is_empty() {
            self.lanes.look_again();
        }
        while let Some(step) = self.lanes.step(Timestamp::from_micros(self.now)) {
            match step {
                Step::Handle { item, held, .. } => self.busy.push((item, held)),
                Step::Postpone(items) => self.postpone(items),
                Step::GiveUp { .. } => panic!("nothing is lost"),
            }
        }
    }

    fn postpone(&mut self, items: Vec<Behind<(usize, u64)>>) {
        self.writes += 1;
        self.postponed += items.len();
        let lanes: BTreeSet<_> = items.iter().map(|it| Arc::clone(&it.lane)).collect();
        for behind in items {
            let until = self.now + i64::try_from(behind.after.as_micros()).expect("few");
            self.hold_until(&behind.lane, behind.item, until);
        }
        for lane in lanes {
            self.lanes.done(&lane);
        }
    }

    fn hold_until(&mut self, lane: &Arc<Lane>, item: (usize, u64), until: i64) {
        self.lanes.hold(lane, item.1, Timestamp::from_micros(until));
        self.queue.later.push((until, item));
        self.unsettled.retain(|it| *it != item);
    }

    fn put_off(&mut self, at: usize, seconds: i64) {
        let (item, _) = self.busy.swap_remove(at);
        let lane = Self::key(item.0);
        self.hold_until(&lane, item, self.now + seconds * SECOND);
        self.lanes.done(&lane);
    }

    fn rest(&mut self, at: usize, seconds: i64) {
        let (item, _) = self.busy.swap_remove(at);
        let lane = Self::key(item.0);
        // Of what was forgotten meanwhile it is known no more.
        if self.unsettled.contains(&item) {
            let wait = Wait {
                sequence: Some(item.1),
                until: Timestamp::from_micros(self.now + seconds * SECOND),
                overdue: false,
            };
            self.lanes.put_back(&lane, item, wait);
        }
        self.lanes.done(&lane);
    }

    fn apply(&mut self, at: usize) {
        let (item, held) = self.busy.swap_remove(at);
        let lane = Self::key(item.0);
        self.unsettled.retain(|it| *it != item);
        self.applied[item.0].push(item.1);
        if held {
            self.lanes.free(&lane, item.1);
        }
        self.lanes.done(&lane);
    }

    /// The subscription ends: what is busy comes to its end, the rest comes again.
    fn end(&mut self) {
        self.lanes.forget();
        let busy = &self.busy;
        let again = |event: &(usize, u64)| busy.iter().all(|(it, _)| it != event);
        let mut again: Vec<_> = self.unsettled.extract_if(.., |it| again(it)).collect();
        again.sort_by_key(|event| std::cmp::Reverse(event.1));
        for event in again {
            self.queue.ready.push_front(event);
        }
    }
}
