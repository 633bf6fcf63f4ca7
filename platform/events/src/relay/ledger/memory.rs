//! An outbox in memory, for tests on a paused clock: it takes time, and fails by chance.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use gantry_store::{Error, Timestamp};
use tokio::time::{self, Duration, Instant};

use super::{BEHIND_MAX, Backlog, Claimed, Event, Ledger, Most, Outcome, Release, Settled};
use crate::{Message, broker::memory::Memory as Broker};

/// When its clock begins.
const BEGAN: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);

/// The topic of all its events.
pub(in crate::relay) const TOPIC: &str = "test.v1.Happened";

/// An outbox in memory; clones share it.
#[derive(Debug, Clone)]
pub(in crate::relay) struct Memory {
    state: Arc<Mutex<State>>,
    began: Instant,
}

#[derive(Debug)]
struct State {
    keys: BTreeMap<String, Key>,
    relays: HashMap<String, Timestamp>,
    random: fastrand::Rng,
    /// How likely an answer is an error; half of the time what was asked is done all the same.
    failing: f64,
    /// How often it was asked anything.
    asked: u64,
    /// How often it was asked for the backlog.
    counted: u64,
    /// Events that can be claimed at once; more take too long.
    claimed_max: usize,
    /// How long the upkeep takes, which then fails; none where it does not.
    upkeep: Option<Duration>,
    /// The broker whose publications are counted whenever something is written down, and how many those
    /// were.
    beside: Option<Broker>,
    published: Vec<u64>,
}

#[derive(Debug)]
struct Key {
    last: i64,
    sent: i64,
    due_at: Timestamp,
    tries: u32,
    claimed_by: Option<String>,
    /// Those not forgotten, with the time at which they were done with.
    events: BTreeMap<i64, Option<Timestamp>>,
    dropped: Vec<i64>,
}

impl Memory {
    pub(in crate::relay) fn new(seed: u64) -> Self {
        let state = State {
            keys: BTreeMap::new(),
            relays: HashMap::new(),
            random: fastrand::Rng::with_seed(seed),
            failing: 0.0,
            asked: 0,
            counted: 0,
            claimed_max: usize::MAX,
            upkeep: None,
            beside: None,
            published: Vec::new(),
        };
        Self {
            state: Arc::new(Mutex::new(state)),
            began: Instant::now(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(in crate::relay) fn failing(&self, failing: f64) {
        self.lock().failing = failing;
    }

    pub(in crate::relay) fn asked(&self) -> u64 {
        self.lock().asked
    }

    /// How often it was asked for the backlog.
    pub(in crate::relay) fn counted(&self) -> u64 {
        self.lock().counted
    }

    /// Claims of more events take too long.
    pub(in crate::relay) fn claims_at_most(&self, events: usize) {
        self.lock().claimed_max = events;
    }

    /// Whatever is done beside fails after so long.
    pub(in crate::relay) fn upkeep_fails_after(&self, time: Duration) {
        self.lock().upkeep = Some(time);
    }

    /// Notes how many publications `broker` has whenever something begins to be written down.
    pub(in crate::relay) fn beside(&self, broker: &Broker) {
        self.lock().beside = Some(broker.clone());
    }

    /// How many there were each time.
    pub(in crate::relay) fn published(&self) -> Vec<u64> {
        self.lock().published.clone()
    }

    /// Writes an event down by a clock that is that much ahead.
    pub(in crate::relay) fn add_ahead(&self, key: &str, ahead: Duration) {
        self.add_at(key, self.now().after(ahead));
    }

    /// Writes an event down.
    pub(in crate::relay) fn add(&self, key: &str) {
        self.add_at(key, self.now());
    }

    fn add_at(&self, key: &str, now: Timestamp) {
        let mut state = self.lock();
        let key = state.keys.entry(key.to_owned()).or_insert(Key {
            last: 0,
            sent: 0,
            due_at: now,
            tries: 0,
            claimed_by: None,
            events: BTreeMap::new(),
            dropped: Vec::new(),
        });
        if key.last == key.sent {
            key.due_at = now;
        }
        key.last += 1;
        key.events.insert(key.last, None);
    }

    /// Each key with its last event, and the last of those that are done with.
    pub(in crate::relay) fn keys(&self) -> Vec<(String, i64, i64)> {
        let state = self.lock();
        let keys = state.keys.iter();
        keys.map(|(name, key)| (name.clone(), key.last, key.sent))
            .collect()
    }

    /// Those dropped of a key.
    pub(in crate::relay) fn dropped(&self, key: &str) -> Vec<i64> {
        self.lock().keys[key].dropped.clone()
    }

    /// Fails after long, where the upkeep does.
    async fn upkeep(&self) -> Result<(), Error> {
        let time = self.lock().upkeep;
        if let Some(time) = time {
            time::sleep(time).await;
            return Err(Error::broken("test.upkeep", "as scripted"));
        }
        Ok(())
    }

    /// Does `work` after a moment, or fails, or does both.
    async fn ask<T>(&self, work: impl FnOnce(&mut State) -> T) -> Result<T, Error> {
        let (moment, fails, done) = {
            let mut state = self.lock();
            state.asked += 1;
            let failing = state.failing;
            let moment = Duration::from_micros(state.random.u64(100..3_000));
            let fails = failing > 0.0 && state.random.f64() < failing;
            (moment, fails, !fails || state.random.bool())
        };
        time::sleep(moment).await;
        let outcome = done.then(|| work(&mut self.lock()));
        time::sleep(moment).await;
        match outcome {
            Some(outcome) if !fails => Ok(outcome),
            _ => Err(Error::broken("test.memory", "it is away")),
        }
    }
}

impl State {
    fn count_beside(&mut self) {
        let published = self.beside.as_ref().map(Broker::publications);
        self.published.extend(published);
    }

    fn is_free(&self, key: &Key) -> bool {
        let relay = key.claimed_by.as_ref();
        key.sent < key.last && relay.is_none_or(|relay| !self.relays.contains_key(relay))
    }

    /// Names of keys that nobody has claimed, by when they are due.
    fn free(&self) -> Vec<(Timestamp, String)> {
        let free = self.keys.iter().filter(|(_, key)| self.is_free(key));
        let mut free: Vec<_> = free.map(|(name, key)| (key.due_at, name.clone())).collect();
        free.sort();
        free
    }
}

impl Ledger for Memory {
    fn now(&self) -> Timestamp {
        BEGAN.after(self.began.elapsed())
    }

    async fn enter(&self, relay: &str, until: Timestamp) -> Result<(), Error> {
        self.ask(|state| {
            let twice = state.relays.insert(relay.to_owned(), until);
            assert!(twice.is_none(), "{relay} enters twice");
        })
        .await
    }

    async fn renew(&self, relay: &str, now: Timestamp, until: Timestamp) -> Result<bool, Error> {
        self.ask(|state| {
            let known = state.relays.get_mut(relay).map(|it| *it = until).is_some();
            state
                .relays
                .retain(|name, until| name == relay || *until > now);
            known
        })
        .await
    }

    async fn leave(&self, relay: &str) -> Result<(), Error> {
        self.ask(|state| {
            state.relays.remove(relay);
        })
        .await
    }

    async fn due(&self) -> Result<Option<Timestamp>, Error> {
        self.ask(|state| state.free().first().map(|it| it.0)).await
    }

    async fn claim(&self, relay: &str, _: i64, most: Most) -> Result<Vec<Claimed>, Error> {
        let claimed = self.ask(|state| {
            let now = self.now();
            let due = state
                .free()
                .into_iter()
                .filter(|(due_at, _)| *due_at <= now);
            let due: Vec<_> = due.take(most.keys).collect();
            let each = most.events.div_ceil(due.len().max(1));
            let claim = |(_, name): (Timestamp, String)| {
                let key = state.keys.get_mut(&name)?;
                key.claimed_by = Some(relay.to_owned());
                let pending = key.events.iter().filter(|(_, ended)| ended.is_none());
                let pending = pending.map(|(sequence, _)| *sequence);
                Some(Claimed {
                    sent: key.sent,
                    tries: key.tries,
                    events: pending
                        .take(each)
                        .map(|sequence| event(&name, sequence))
                        .collect(),
                    unread: false,
                    key: name,
                })
            };
            due.into_iter().filter_map(claim).collect::<Vec<_>>()
        });
        let claimed = claimed.await?;
        let events: usize = claimed.iter().map(|it| it.events.len()).sum();
        if events > self.lock().claimed_max {
            return Err(Error::broken("test.claim", "as scripted"));
        }
        Ok(claimed)
    }

    async fn claim_patiently(
        &self,
        relay: &str,
        claim: i64,
        most: Most,
    ) -> Result<Vec<Claimed>, Error> {
        self.claim(relay, claim, Most { keys: 1, ..most }).await
    }

    async fn settle_patiently(&self, relay: &str, outcome: &Outcome) -> Result<Settled, Error> {
        let settled = self.settle(relay, std::slice::from_ref(outcome)).await?;
        Ok(settled[0])
    }

    async fn bring_near(&self, due_max: Timestamp, known_max: Timestamp) -> Result<u64, Error> {
        self.ask(|state| {
            for until in state.relays.values_mut() {
                *until = known_max.min(*until);
            }
            let mut near = 0;
            for key in state.keys.values_mut().filter(|it| it.due_at > due_max) {
                key.due_at = due_max;
                near += 1;
            }
            near
        })
        .await
    }

    async fn settle(&self, relay: &str, outcomes: &[Outcome]) -> Result<Vec<Settled>, Error> {
        self.lock().count_beside();
        let busy: Vec<bool> = {
            let mut state = self.lock();
            let chance = state.failing;
            let busy = outcomes.iter().map(|_| state.random.f64() < chance);
            busy.collect()
        };
        let settle = |state: &mut State| {
            let now = self.now();
            let each = outcomes.iter().zip(busy);
            each.map(|(outcome, busy)| {
                let key = state
                    .keys
                    .get_mut(&outcome.key)
                    .expect("a key that was claimed");
                if outcome.advances {
                    if key.claimed_by.as_deref() != Some(relay) {
                        return Settled::Lost;
                    }
                    if busy {
                        return Settled::Busy;
                    }
                }
                key.settle(outcome, now);
                Settled::Written
            })
            .collect()
        };
        self.ask(settle).await
    }

    async fn backlog(&self) -> Result<Backlog, Error> {
        self.lock().counted += 1;
        self.upkeep().await?;
        self.ask(|_| Backlog::default()).await
    }

    async fn prune(&self, before: Timestamp) -> Result<u64, Error> {
        self.upkeep().await?;
        self.ask(|state| {
            let mut pruned = 0;
            for key in state.keys.values_mut() {
                let count = key.events.len();
                key.events
                    .retain(|_, ended| ended.is_none_or(|it| it >= before));
                pruned += count - key.events.len();
            }
            u64::try_from(pruned).expect("a count")
        })
        .await
    }
}

impl Key {
    fn settle(&mut self, outcome: &Outcome, now: Timestamp) {
        for sequence in outcome.before + 1..=outcome.sent {
            let ended = self.events.entry(sequence).or_default();
            if ended.replace(now).is_none() && outcome.dropped.contains(&sequence) {
                self.dropped.push(sequence);
            }
        }
        if outcome.advances {
            assert!(self.sent <= outcome.sent, "{outcome:?} goes back");
            self.sent = outcome.sent;
        }
        let behind = self.events.range(self.sent + 1..);
        let behind = behind.filter(|(_, ended)| ended.is_some()).count();
        assert!(
            i64::try_from(behind).is_ok_and(|it| it < BEHIND_MAX),
            "{behind} behind"
        );
        if let Some(Release { due_at, tries }) = outcome.release {
            self.due_at = due_at;
            self.tries = tries;
            self.claimed_by = None;
        }
    }
}

fn event(key: &str, sequence: i64) -> Event {
    Event {
        sequence,
        message: Arc::new(Message {
            topic: TOPIC.to_owned(),
            key: key.to_owned(),
            headers: BTreeMap::from([("sequence".to_owned(), sequence.to_string())]),
            body: bytes::Bytes::new(),
        }),
    }
}
