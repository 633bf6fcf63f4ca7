//! What changed, in order: a bounded, lossy stream of state changes.
//!
//! Endpoints join and leave, configurations are applied or refused, drains begin. The parts that
//! see this write one [`Entry`] each; the admin service, the console and tests read them. Nobody
//! waits for a reader: the journal keeps the newest [`CAPACITY`] entries, and a reader that falls
//! behind is told how many it missed.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use tokio::sync::broadcast;

/// How many entries are kept for readers that come later or fall behind.
pub const CAPACITY: usize = 1_024;

/// One change of state.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Position in this process's journal, from 1, without gaps.
    pub sequence: u64,
    /// Wall-clock time, for people; order is `sequence`.
    pub time: SystemTime,
    /// What happened.
    pub kind: Kind,
    /// What it happened to: an endpoint, a check, a file.
    pub subject: String,
    /// Why, or what it became.
    pub detail: String,
}

/// What can happen; a closed set, so that it can be a label and a filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The process began to start.
    Starting,
    /// The process serves.
    Serving,
    /// Draining began.
    Draining,
    /// One step of the drain ended.
    DrainPhase,
    /// Everything ended.
    Stopped,
    /// A configuration was applied.
    ConfigApplied,
    /// A configuration was refused; the last good one stays.
    ConfigRefused,
    /// A serving status changed.
    HealthChanged,
    /// A named check began to fail or to pass.
    CheckChanged,
    /// An endpoint joined a set.
    EndpointJoined,
    /// An endpoint left a set.
    EndpointLeft,
    /// A connection to an endpoint changed its state.
    EndpointState,
    /// An endpoint was ejected for failing its calls, or is back.
    Ejection,
    /// So few endpoints can take calls that ejections and breakers are passed over, or no more.
    Panic,
    /// The registration of this process changed.
    Registration,
    /// The registry could not be read, or can again, or began anew; or two names serve the same.
    Registry,
    /// A certificate was loaded or refused.
    Certificate,
    /// A background task ended on its own.
    TaskEnded,
    /// The log level was changed.
    LogLevel,
    /// Calls begin or cease to meet a fault on purpose.
    Fault,
    /// A policy is for no method there is.
    Policy,
    /// A limit on connections was reached, or is so no more.
    Limit,
    /// The process began to refuse calls that matter less, or others, or none any more.
    Shedding,
    /// A breaker opened, or closed.
    BreakerChanged,
    /// An operator decided about breakers.
    BreakerSet,
    /// A broker of events is gone, or takes nothing; or is there again.
    Broker,
    /// Events begin or cease to wait for what they need to go on.
    Events,
}

impl Kind {
    /// The word for this kind in interfaces.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Serving => "serving",
            Self::Draining => "draining",
            Self::DrainPhase => "drain_phase",
            Self::Stopped => "stopped",
            Self::ConfigApplied => "config_applied",
            Self::ConfigRefused => "config_refused",
            Self::HealthChanged => "health_changed",
            Self::CheckChanged => "check_changed",
            Self::EndpointJoined => "endpoint_joined",
            Self::EndpointLeft => "endpoint_left",
            Self::EndpointState => "endpoint_state",
            Self::Ejection => "ejection",
            Self::Panic => "panic",
            Self::Registration => "registration",
            Self::Registry => "registry",
            Self::Certificate => "certificate",
            Self::TaskEnded => "task_ended",
            Self::LogLevel => "log_level",
            Self::Fault => "fault",
            Self::Policy => "policy",
            Self::Limit => "limit",
            Self::Shedding => "shedding",
            Self::BreakerChanged => "breaker_changed",
            Self::BreakerSet => "breaker_set",
            Self::Broker => "broker",
            Self::Events => "events",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Writes and reads one process's journal; clones share it.
#[derive(Debug, Clone)]
pub struct Journal {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    kept: Mutex<Kept>,
    live: broadcast::Sender<Entry>,
}

#[derive(Debug)]
struct Kept {
    last: u64,
    entries: VecDeque<Entry>,
}

impl Default for Journal {
    fn default() -> Self {
        Self::new()
    }
}

impl Journal {
    /// An empty journal.
    #[must_use]
    pub fn new() -> Self {
        let kept = Kept {
            last: 0,
            entries: VecDeque::with_capacity(CAPACITY),
        };
        Self {
            shared: Arc::new(Shared {
                kept: Mutex::new(kept),
                live: broadcast::Sender::new(CAPACITY),
            }),
        }
    }

    /// Writes one entry; never waits.
    pub fn record(&self, kind: Kind, subject: impl Into<String>, detail: impl Into<String>) {
        let mut kept = self
            .shared
            .kept
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        kept.last += 1;
        let entry = Entry {
            sequence: kept.last,
            time: now(),
            kind,
            subject: subject.into(),
            detail: detail.into(),
        };
        if kept.entries.len() == CAPACITY {
            kept.entries.pop_front();
        }
        kept.entries.push_back(entry.clone());
        // Sent under the lock, so that the live order is the kept order. No reader is no error.
        drop(self.shared.live.send(entry));
    }

    /// The kept entries so far, oldest first, and a reader of all that follow, without a gap
    /// between them.
    #[must_use]
    pub fn watch(&self) -> (Vec<Entry>, broadcast::Receiver<Entry>) {
        let kept = self
            .shared
            .kept
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let past = kept.entries.iter().cloned().collect();
        (past, self.shared.live.subscribe())
    }
}

/// Wall-clock time, for people alone: no order and no duration may depend on it.
#[allow(clippy::disallowed_methods)]
pub(crate) fn now() -> SystemTime {
    SystemTime::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a reader sees every entry once, past and live, in order.
    /// Method: write before and after it begins to read.
    #[tokio::test]
    async fn a_reader_misses_nothing_between_past_and_live() {
        let journal = Journal::new();
        journal.record(Kind::Starting, "orders", "");

        let (past, mut live) = journal.watch();
        journal.record(Kind::Serving, "orders", "");

        assert_eq!(vec![1], past.iter().map(|e| e.sequence).collect::<Vec<_>>());
        assert_eq!(2, live.recv().await.unwrap().sequence);
    }

    /// Goal: the journal is bounded, and a slow reader learns what it missed.
    /// Method: write more than it keeps while nobody reads.
    #[tokio::test]
    async fn the_oldest_entries_go_and_a_slow_reader_is_told() {
        let journal = Journal::new();
        let (_, mut slow) = journal.watch();
        for _ in 0..CAPACITY + 5 {
            journal.record(Kind::ConfigApplied, "file", "");
        }

        let (past, _) = journal.watch();
        assert_eq!(CAPACITY, past.len());
        assert_eq!(6, past[0].sequence);
        assert!(matches!(
            slow.recv().await,
            Err(broadcast::error::RecvError::Lagged(5))
        ));
    }
}
