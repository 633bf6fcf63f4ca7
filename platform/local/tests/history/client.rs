//! Clients that do what comes to their minds, and write down what came of it.

mod ask;

use std::{
    cell::{Cell, RefCell},
    time::Duration,
};

use etcd_client::{Client, KeyValue};
use fastrand::Rng;
use tokio::time::{Instant, sleep, timeout};

use crate::record::{Entry, Moment, Operation, Outcome, What};
use ask::{ask, failed};

pub(crate) use ask::NO_LEASE;

/// Keys there are; few, so that clients meet.
pub(crate) const KEYS: [&str; 5] = ["k/0", "k/1", "k/2", "k/3", "k/4"];

/// Longest wait for an answer; what is not answered by then is given up.
const PATIENCE: Duration = Duration::from_secs(2);

/// How far ahead of all there is a revision is asked for that is not there yet.
const FUTURE: i64 = 1_000_000;

/// What all of one run share.
pub(crate) struct Shared {
    pub(crate) url: String,
    start: Instant,
    /// Counts beginnings and ends.
    clock: Cell<u64>,
    pub(crate) operations: RefCell<Vec<Operation>>,
    /// How far the first watcher is: nothing after it is compacted.
    pub(crate) told: Cell<i64>,
    pub(crate) restarts: RefCell<Vec<(Duration, Duration)>>,
    pub(crate) ended: Cell<bool>,
    leases: RefCell<Vec<i64>>,
    revoked: RefCell<Vec<i64>>,
}

impl Shared {
    pub(crate) fn new(url: String) -> Self {
        Self {
            url,
            start: Instant::now(),
            clock: Cell::new(0),
            operations: RefCell::default(),
            told: Cell::new(1),
            restarts: RefCell::default(),
            ended: Cell::new(false),
            leases: RefCell::default(),
            revoked: RefCell::default(),
        }
    }

    /// Now, after all that was before.
    pub(crate) fn now(&self) -> Moment {
        self.clock.set(self.clock.get() + 1);
        Moment {
            order: self.clock.get(),
            at: self.start.elapsed(),
        }
    }

    pub(crate) async fn connect(&self) -> Client {
        Client::connect([&self.url], None)
            .await
            .expect("an address")
    }
}

/// One client.
pub(crate) struct Worker<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) number: usize,
    pub(crate) random: Rng,
}

impl Worker<'_> {
    /// Does `count` things, one after another.
    pub(crate) async fn work(&mut self, count: usize) {
        let mut client = self.shared.connect().await;
        for turn in 0..count {
            let key = KEYS[self.random.usize(..KEYS.len())];
            let (key, what) = self.think(key, &mut client, turn).await;
            // Now and then it loses patience while it is answered, and its connection with it.
            let cut = self.random.u8(..20) == 0;
            let patience = if cut {
                Duration::from_micros(self.random.u64(..3_000))
            } else {
                PATIENCE
            };
            let outcome = self.act(&mut client, &key, what, patience).await;
            if cut {
                client = self.shared.connect().await;
            } else if outcome == Outcome::Unknown {
                // It may come again at once, or take a moment.
                sleep(Duration::from_millis(self.random.u64(..30))).await;
            }
        }
    }

    /// Reads every key.
    pub(crate) async fn look(&mut self) {
        let mut client = self.shared.connect().await;
        let what = What::Range {
            to: "k0".to_owned(),
            revision: 0,
        };
        self.act(&mut client, "k/", what, PATIENCE).await;
    }

    async fn think(&mut self, key: &str, client: &mut Client, turn: usize) -> (String, What) {
        let value = format!("{}-{turn}", self.number);
        let lease = self.lease();
        let what = match self.random.u8(..100) {
            ..14 => What::Put { value, lease: 0 },
            14..24 => What::Put { value, lease },
            24..32 => What::Delete,
            32..48 => {
                let read = self.act(client, key, What::Read, PATIENCE).await;
                let modified = match read {
                    Outcome::Done { before, .. } => before.get(key).map_or(0, |it| it.modified),
                    _ => 0,
                };
                What::Swap { modified, value }
            }
            48..58 => return (String::new(), self.many(&value, lease)),
            58..63 => self.grant(lease, turn),
            63..66 if lease != 0 => {
                self.shared.leases.borrow_mut().retain(|id| *id != lease);
                self.shared.revoked.borrow_mut().push(lease);
                What::Revoke(lease)
            }
            66..69 if lease != 0 => What::KeepAlive(lease),
            69..73 => {
                let told = self.shared.told.get();
                let future = self.random.u8(..6) == 0;
                let revision = if future {
                    told + FUTURE
                } else {
                    told - self.random.i64(0..5)
                };
                What::Compact(revision.max(1))
            }
            73..90 => return self.range(key),
            _ => What::Read,
        };
        (key.to_owned(), what)
    }

    /// A lease that was granted, perhaps; now and then one that is gone.
    fn lease(&mut self) -> i64 {
        let gone = self.random.u8(..10) == 0;
        let leases = if gone {
            &self.shared.revoked
        } else {
            &self.shared.leases
        };
        self.random
            .choice(leases.borrow().iter())
            .copied()
            .unwrap_or(0)
    }

    /// Grants a new lease, now and then with the id of one that is there.
    fn grant(&mut self, lease: i64, turn: usize) -> What {
        if lease != 0 && self.random.u8(..6) == 0 {
            return What::Grant(lease);
        }
        let id = i64::try_from(self.number * 1_000 + turn + 1).expect("a small number");
        self.shared.leases.borrow_mut().push(id);
        What::Grant(id)
    }

    /// Changes two keys or more.
    fn many(&mut self, value: &str, lease: i64) -> What {
        let mut keys = KEYS;
        self.random.shuffle(&mut keys);
        let count = self.random.usize(2..=KEYS.len());
        let lease = if self.random.u8(..4) == 0 { lease } else { 0 };
        let changes = keys.iter().take(count).map(|key| {
            let puts = self.random.u8(..4) > 0;
            ((*key).to_owned(), puts.then(|| format!("{value}-{key}")))
        });
        let changes = changes.collect();
        What::Many { changes, lease }
    }

    /// Reads one key or several, now or as they were.
    fn range(&mut self, key: &str) -> (String, What) {
        let told = self.shared.told.get();
        let revision = match self.random.u8(..12) {
            ..4 => 0,
            4..11 => (told - self.random.i64(0..40)).max(1),
            _ => told + FUTURE,
        };
        let (from, to) = match self.random.u8(..4) {
            0 => (key, ""),
            1 => ("k/1", "k/4"),
            _ => ("k/", "k0"),
        };
        let to = to.to_owned();
        (from.to_owned(), What::Range { to, revision })
    }

    /// Asks, and writes down what came of it.
    async fn act(&self, client: &mut Client, key: &str, what: What, patience: Duration) -> Outcome {
        let begun = self.shared.now();
        let asked = timeout(patience, ask(client, key, &what)).await;
        let outcome = match asked {
            Err(_) => Outcome::Unknown,
            Ok(Ok(outcome)) => outcome,
            Ok(Err(error)) => failed(&error),
        };
        self.shared.operations.borrow_mut().push(Operation {
            begun,
            ended: self.shared.now(),
            key: key.to_owned(),
            what,
            outcome: outcome.clone(),
        });
        outcome
    }
}

pub(crate) fn entry(kv: &KeyValue) -> Entry {
    Entry {
        value: String::from_utf8_lossy(kv.value()).into_owned(),
        created: kv.create_revision(),
        modified: kv.mod_revision(),
        version: kv.version(),
        lease: kv.lease(),
    }
}
