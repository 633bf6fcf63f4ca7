//! The engine against a naive model, and its refusals.

mod model;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use gantry_harness::tools::setting;

use super::*;
use model::Model;

/// Histories, and operations of each.
const SEEDS: u64 = 300;
const STEPS: usize = 250;

fn bounds() -> Bounds {
    Bounds {
        groups: 3,
        messages: 60,
        bytes: usize::MAX,
        consumers: 6,
    }
}

fn declaration(partitions: u16, topics: &[&str], queue_messages_max: u64) -> Declaration {
    Declaration {
        partitions,
        topics: topics.iter().map(|topic| (*topic).to_owned()).collect(),
        queue_messages_max,
    }
}

fn message(topic: &str, key: &str, id: u64) -> Arc<Message> {
    Arc::new(Message {
        topic: topic.to_owned(),
        key: key.to_owned(),
        headers: Headers::from([("id".to_owned(), id.to_string())]),
        body: Bytes::new(),
    })
}

/// What is on disk: every journal, applied.
#[derive(Debug, Default)]
struct Disk {
    groups: BTreeMap<u64, (Arc<str>, Declaration)>,
    kept: BTreeMap<(u64, u64), Kept>,
    last: u64,
}

impl Disk {
    fn write(&mut self, journal: Journal, last: u64) {
        for (id, group) in journal.groups {
            if let Some(group) = group {
                self.groups.insert(id, group);
            } else {
                self.groups.remove(&id);
                self.kept.retain(|(group, _), _| *group != id);
            }
        }
        for (at, kept) in journal.kept {
            match kept {
                Some(kept) => self.kept.insert(at, kept),
                None => self.kept.remove(&at),
            };
        }
        self.last = last;
    }

    fn saved(&self) -> Saved {
        let groups = self.groups.iter();
        let groups = groups.map(|(id, (name, it))| (*id, Arc::clone(name), it.clone()));
        Saved {
            last: self.last,
            groups: groups.collect(),
            kept: self.kept.iter().map(|(at, it)| (*at, it.clone())).collect(),
        }
    }
}

/// An engine, what it has on disk, and the model of both.
struct Run {
    random: fastrand::Rng,
    engine: Engine,
    disk: Disk,
    model: Model,
    now: Millis,
    last_message: u64,
    last_consumer: u64,
}

impl Run {
    fn new(seed: u64) -> Self {
        Self {
            random: fastrand::Rng::with_seed(seed),
            engine: Engine::new(bounds()),
            disk: Disk::default(),
            model: Model::new(bounds()),
            now: 1_000,
            last_message: 0,
            last_consumer: 0,
        }
    }

    fn name(&mut self) -> String {
        let names = ["a.one", "a.two", "b.one", "c"];
        names[self.random.usize(..names.len())].to_owned()
    }

    fn step(&mut self) {
        match self.random.u8(..100) {
            0..8 => self.declare(),
            8..10 => {
                let name = self.name();
                self.engine.remove(&name);
                self.model.remove(&name);
            }
            10..45 => self.publish(),
            45..55 => self.subscribe(),
            55..60 => {
                if let Some(id) = self.random_consumer() {
                    self.engine.leave(id);
                    self.model.leave(id);
                }
            }
            60..88 => self.settle(),
            88..94 => {
                self.now += self.random.u64(..30);
                self.engine.wake(self.now);
                self.model.wake(self.now);
            }
            94..98 => self.settle_dead(),
            _ => self.restart(),
        }
        self.disk
            .write(self.engine.take_journal(), self.engine.last());
        assert_eq!(self.model.take_told(), self.engine.take_told());
        assert_eq!(self.model.groups(), self.engine.groups(None));
        for group in self.engine.groups(None) {
            let dead = self.engine.dead_letters(&group.name, 0).unwrap();
            let dead: Vec<_> = dead.map(|(_, dead)| dead.clone()).collect();
            assert_eq!(self.model.dead_letters(&group.name), dead);
        }
    }

    fn declare(&mut self) {
        let topics: &[&str] = [&["x"][..], &["x", "y"], &["y", "z"], &[]][self.random.usize(..4)];
        let declared = declaration(self.random.u16(1..3), topics, self.random.u64(..12));
        let name = self.name();
        let narrow = self.random.bool();
        let expected = self.model.declare(&name, &declared, narrow);
        let declared = if narrow {
            self.engine.narrow(&name, declared)
        } else {
            self.engine.declare(&name, declared)
        };
        assert_eq!(expected, declared);
    }

    fn publish(&mut self) {
        self.last_message += 1;
        let topic = ["x", "y", "z"][self.random.usize(..3)];
        let key = self.random.u8(..5).to_string();
        let message = message(topic, &key, self.last_message);
        let expected = self.model.publish(&message);
        assert_eq!(expected, self.engine.publish(&message));
    }

    fn subscribe(&mut self) {
        self.last_consumer += 1;
        let (id, group) = (self.last_consumer, self.name());
        let (partition, prefetch) = (self.random.u16(..2), self.random.u16(1..4));
        let expected = self.model.subscribe(id, &group, partition, prefetch);
        let joined = self.engine.subscribe(id, &group, partition, prefetch);
        assert_eq!(expected, joined);
    }

    fn random_consumer(&mut self) -> Option<ConsumerId> {
        let ids: Vec<_> = self.model.consumers().collect();
        self.random.choice(ids)
    }

    fn settle(&mut self) {
        let out: Vec<_> = self.model.handed_out().collect();
        // Now and then one that nobody has.
        let wild = (self.last_consumer, self.random.u64(..20));
        let wild = Some(wild).filter(|_| self.random.u8(..20) == 0);
        let Some((id, tag)) = wild.or_else(|| self.random.choice(out)) else {
            return;
        };
        let headers = Headers::from([("n".to_owned(), self.random.u8(..9).to_string())]);
        let how = match self.random.u8(..10) {
            0..4 => How::Ack,
            4..6 => How::Requeue,
            6..8 => How::Retry {
                pause: self.random.u64(..60),
                headers,
            },
            _ => How::Reject(headers),
        };
        let expected = self.model.settle(id, tag, &how, self.now);
        assert_eq!(expected, self.engine.settle(id, tag, how, self.now));
    }

    fn settle_dead(&mut self) {
        let group = self.name();
        let place = match self.engine.dead_letters(&group, 0) {
            Ok(mut dead) => dead.next().map_or(1, |(place, _)| place),
            Err(_) => 1,
        };
        let headers = self.random.bool().then(Headers::new);
        let expected = self.model.settle_oldest_dead(&group, headers.as_ref());
        let settled = self.engine.settle_dead(&group, place, headers);
        assert_eq!(expected, settled);
    }

    fn restart(&mut self) {
        self.disk
            .write(self.engine.take_journal(), self.engine.last());
        self.engine = Engine::restored(self.disk.saved(), bounds(), self.now);
        self.model.restart();
    }
}

/// Goal: whatever is asked in whatever order, and whenever it is started anew from what it wrote, the
/// engine does what its contract says: routing, order, one consumer at a time, prefetch, retries,
/// dead letters, bounds.
/// Method: random operations on it and on a model that has one list of everything; after each, what
/// was answered, what consumers were told, and all that can be listed are the same.
#[test]
fn the_engine_does_what_a_naive_model_does() {
    let number = |name| setting(name).map(|text| text.parse().unwrap());
    let seeds: Vec<u64> = match number("TESTS_SEED") {
        Some(seed) => vec![seed],
        None => (1..=number("TESTS_SEEDS").unwrap_or(SEEDS)).collect(),
    };
    for seed in seeds {
        let ran = std::panic::catch_unwind(|| {
            let mut run = Run::new(seed);
            for _ in 0..STEPS {
                run.step();
            }
        });
        assert!(ran.is_ok(), "seed {seed}");
    }
}

/// Goal: a group whose consumer is down is refused what it has no room for, by its name, and takes
/// nobody else's room; it has room again for what is settled.
/// Method: room for eight messages, and three groups: one that nobody reads, one that one does, and one
/// that comes last.
#[test]
fn a_group_that_nobody_reads_takes_nobody_elses_room() {
    let cost = message("x", "k", 1).cost();
    for bounds in [
        Bounds {
            bytes: 8 * cost,
            ..bounds()
        },
        Bounds {
            messages: 8,
            ..bounds()
        },
    ] {
        let mut engine = Engine::new(bounds);
        for (name, topic) in [("down", "x"), ("read", "y"), ("late", "z")] {
            engine.declare(name, declaration(1, &[topic], 0)).unwrap();
        }
        engine.subscribe(1, "read", 0, 1).unwrap();
        for id in 1..=4 {
            assert_eq!(Outcome::Confirmed, engine.publish(&message("x", "k", id)));
        }
        let full = |name: &str| Outcome::QueueFull(name.into());
        assert_eq!(full("down"), engine.publish(&message("x", "k", 5)));
        for id in 1..=20 {
            assert_eq!(Outcome::Confirmed, engine.publish(&message("y", "k", id)));
            engine.settle(1, id, How::Ack, 0).unwrap();
        }
        for id in 1..=2 {
            assert_eq!(Outcome::Confirmed, engine.publish(&message("z", "k", id)));
        }
        assert_eq!(full("late"), engine.publish(&message("z", "k", 3)));
        // What goes to both is held up by the one that is full.
        engine
            .declare("read", declaration(1, &["x", "y"], 0))
            .unwrap();
        assert_eq!(full("down"), engine.publish(&message("x", "k", 5)));
        engine.remove("late");
        engine.subscribe(2, "down", 0, 1).unwrap();
        engine.settle(2, 1, How::Ack, 0).unwrap();
        assert_eq!(Outcome::Confirmed, engine.publish(&message("x", "k", 5)));
        engine.remove("down");
        engine.remove("read");
        assert_eq!(Amount::default(), engine.held);
    }
}

/// Goal: what is wanted by more groups than there is room for is refused as a whole, and by nobody's name.
/// Method: room for two, and a message for three groups that have none.
#[test]
fn what_all_want_is_taken_by_all_or_by_none() {
    let mut engine = Engine::new(Bounds {
        messages: 2,
        ..bounds()
    });
    for name in ["a", "b", "c"] {
        engine.declare(name, declaration(1, &["x"], 0)).unwrap();
    }
    assert_eq!(Outcome::NoRoom, engine.publish(&message("x", "k", 1)));
    assert_eq!(Amount::default(), engine.held);
    engine.remove("c");
    assert_eq!(Outcome::Confirmed, engine.publish(&message("x", "k", 1)));
}

/// Goal: a clock that was set back delays nobody longer than was asked.
/// Method: restore a delayed message a day before it was put off.
#[test]
fn a_clock_that_was_set_back_delays_no_longer_than_asked() {
    let day = 86_400_000;
    let mut disk = Disk::default();
    let mut engine = Engine::new(bounds());
    engine.declare("a", declaration(1, &["x"], 0)).unwrap();
    engine.publish(&message("x", "k", 1));
    engine.subscribe(1, "a", 0, 1).unwrap();
    let how = How::Retry {
        pause: 50,
        headers: Headers::new(),
    };
    engine.settle(1, 1, how, 2 * day).unwrap();
    disk.write(engine.take_journal(), engine.last());
    let engine = Engine::restored(disk.saved(), bounds(), day);
    assert_eq!(Some(day + 50), engine.next_due());
}

/// Goal: who waits is told of nothing until it is its turn, and then of what was left unsettled first.
/// Method: two consumers of one queue; the first leaves with one of two settled.
#[test]
fn the_next_in_line_has_what_was_left() {
    let mut engine = Engine::new(bounds());
    engine.declare("a", declaration(1, &["x"], 0)).unwrap();
    for id in 1..=3 {
        engine.publish(&message("x", "k", id));
    }
    engine.subscribe(1, "a", 0, 2).unwrap();
    engine.subscribe(2, "a", 0, 2).unwrap();
    engine.settle(1, 1, How::Ack, 0).unwrap();
    assert!(engine.take_told().iter().all(|(id, _)| *id == 1));
    engine.leave(1);
    let told = engine.take_told();
    let ids: BTreeSet<_> = told.iter().map(|(id, _)| *id).collect();
    assert_eq!(BTreeSet::from([2]), ids);
    let delivered = |id: u64, tag, redelivered| Told::Delivered {
        tag,
        message: message("x", "k", id),
        redelivered,
    };
    let told: Vec<_> = told.into_iter().map(|(_, told)| told).collect();
    assert_eq!(
        vec![Told::Active, delivered(2, 1, true), delivered(3, 2, true)],
        told
    );
}
