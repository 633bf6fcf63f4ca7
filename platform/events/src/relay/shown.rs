//! What operators see of a relay.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use gantry_api::admin::v1;
use tokio::time::{Duration, Instant};

use super::{holds::Reason, ledger::Backlog};
use crate::state;

/// Keys that are remembered as put off, at most; further ones are not counted.
const KEYS_MAX: usize = 65_536;

/// How long a key counts as put off once it is due: until somebody has tried it.
const SLACK: Duration = Duration::from_secs(2);

/// What operators see of a relay. While nothing goes wrong it is two numbers.
#[derive(Debug, Default)]
pub(crate) struct Shown {
    under_way: AtomicUsize,
    claimed: AtomicUsize,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    backlog: Option<(Backlog, Instant)>,
    waits: Vec<Wait>,
    refused: BTreeMap<Reason, Refused>,
    database: String,
}

/// What waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wait {
    pub(super) reason: Reason,
    /// None where everything does.
    pub(super) topic: Option<String>,
    pub(super) keys: usize,
    pub(super) tries: u32,
    pub(super) begun: Instant,
    /// None while it is tried.
    pub(super) next: Option<Instant>,
}

/// What was not taken.
#[derive(Debug)]
struct Refused {
    count: u64,
    last: Instant,
    topic: String,
    error: String,
}

impl Shown {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn counts(&self, under_way: usize, claimed: usize) {
        self.under_way.store(under_way, Relaxed);
        self.claimed.store(claimed, Relaxed);
    }

    pub(super) fn backlog(&self, backlog: Backlog) {
        self.seen().backlog = Some((backlog, Instant::now()));
    }

    pub(super) fn waits(&self, waits: Vec<Wait>) {
        self.seen().waits = waits;
    }

    pub(super) fn refused(&self, reason: Reason, topic: &str, error: String) {
        let mut seen = self.seen();
        let count = seen.refused.get(&reason).map_or(0, |it| it.count);
        let refused = Refused {
            count: count.saturating_add(1),
            last: Instant::now(),
            topic: topic.to_owned(),
            error,
        };
        seen.refused.insert(reason, refused);
    }

    /// Why the database does not do what it is asked; empty where it does.
    pub(super) fn database(&self, error: String) {
        self.seen().database = error;
    }

    /// All of it.
    pub(crate) fn on_wire(&self) -> v1::EventOutbox {
        let seen = self.seen();
        let counted = seen.backlog.as_ref();
        let oldest = counted.and_then(|(backlog, _)| backlog.oldest);
        v1::EventOutbox {
            pending: counted.map_or(0, |(backlog, _)| backlog.events),
            oldest_time: oldest.map(Into::into),
            count_time: counted.map(|(_, at)| state::time_of(*at)),
            in_flight: state::count(self.under_way.load(Relaxed)),
            keys_claimed: state::count(self.claimed.load(Relaxed)),
            waits: seen.waits.iter().map(Wait::on_wire).collect(),
            refused: seen
                .refused
                .iter()
                .map(|(reason, it)| it.on_wire(*reason))
                .collect(),
            error: seen.database.clone(),
        }
    }
}

impl Wait {
    fn on_wire(&self) -> v1::EventWait {
        let left = self
            .next
            .map(|next| next.saturating_duration_since(Instant::now()));
        v1::EventWait {
            reason: self.reason.on_wire().into(),
            topic: self.topic.clone().unwrap_or_default(),
            keys: state::count(self.keys),
            attempts: self.tries,
            begin_time: Some(state::time_of(self.begun)),
            next_attempt: left.and_then(|left| left.try_into().ok()),
        }
    }
}

impl Refused {
    fn on_wire(&self, reason: Reason) -> v1::RefusedEvents {
        v1::RefusedEvents {
            reason: reason.on_wire().into(),
            count: self.count,
            last_time: Some(state::time_of(self.last)),
            last_topic: self.topic.clone(),
            last_error: self.error.clone(),
        }
    }
}

impl Reason {
    fn on_wire(self) -> v1::EventRefusal {
        match self {
            Self::Unroutable => v1::EventRefusal::Unroutable,
            Self::Refused => v1::EventRefusal::Refused,
            Self::Blocked => v1::EventRefusal::Blocked,
            Self::TimedOut => v1::EventRefusal::TimedOut,
            Self::Awaiting => v1::EventRefusal::Awaiting,
            Self::Denied => v1::EventRefusal::Denied,
            Self::Disconnected => v1::EventRefusal::Disconnected,
        }
    }
}

/// Which keys a relay has put off, and why.
#[derive(Debug, Default)]
pub(super) struct PutOff {
    keys: HashMap<String, (Reason, Arc<str>, Instant)>,
}

impl PutOff {
    /// A key is not tried before `until`, as an event of `topic` was not taken.
    pub(super) fn add(&mut self, key: &str, reason: Reason, topic: &str, until: Instant) {
        if let Some(known) = self.keys.get_mut(key) {
            let same = *known.1 == *topic;
            let topic = if same { known.1.clone() } else { topic.into() };
            *known = (reason, topic, until);
        } else if self.keys.len() < KEYS_MAX {
            let put_off = (reason, topic.into(), until);
            self.keys.insert(key.to_owned(), put_off);
        }
    }

    /// An event of a key was taken.
    pub(super) fn remove(&mut self, key: &str) {
        if !self.keys.is_empty() {
            self.keys.remove(key);
        }
    }

    /// How many there are of each topic; what others may have tried since is forgotten.
    pub(super) fn count(&mut self, now: Instant) -> BTreeMap<(Reason, Arc<str>), usize> {
        self.keys.retain(|_, (_, _, until)| *until + SLACK > now);
        let mut counts = BTreeMap::new();
        for (reason, topic, _) in self.keys.values() {
            *counts.entry((*reason, Arc::clone(topic))).or_default() += 1;
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a key is counted where it was put off last, until it is taken or somebody else may have
    /// tried it.
    /// Method: put keys off, take one, and let time pass, on a paused clock.
    #[tokio::test(start_paused = true)]
    async fn keys_are_counted_where_they_wait() {
        let mut put_off = PutOff::default();
        let until = Instant::now() + Duration::from_secs(1);
        for key in ["a", "b"] {
            put_off.add(key, Reason::Unroutable, "x", until);
        }
        put_off.add("c", Reason::Refused, "y", until + SLACK * 2);
        put_off.add("b", Reason::Refused, "y", until);
        let count = |put_off: &mut PutOff, reason, topic: &str| {
            let counts = put_off.count(Instant::now());
            counts.get(&(reason, topic.into())).copied()
        };
        assert_eq!(Some(1), count(&mut put_off, Reason::Unroutable, "x"));
        assert_eq!(Some(2), count(&mut put_off, Reason::Refused, "y"));
        put_off.remove("b");
        assert_eq!(Some(1), count(&mut put_off, Reason::Refused, "y"));
        tokio::time::advance(SLACK + Duration::from_secs(2)).await;
        assert_eq!(None, count(&mut put_off, Reason::Unroutable, "x"));
        assert_eq!(Some(1), count(&mut put_off, Reason::Refused, "y"));
    }

    /// Goal: no more keys are remembered than may be.
    /// Method: put off one more.
    #[tokio::test(start_paused = true)]
    async fn keys_are_bounded() {
        let mut put_off = PutOff::default();
        for key in 0..=KEYS_MAX {
            put_off.add(&key.to_string(), Reason::Refused, "x", Instant::now());
        }
        let counts = put_off.count(Instant::now());
        assert_eq!(vec![KEYS_MAX], counts.into_values().collect::<Vec<_>>());
    }
}
