//! What is not tried for the time being, as it has just failed.
//!
//! What fails because of the connection holds up everything; what no queue wants, its topic; what a
//! queue does not take, or does not confirm, its topic in its bucket. After a pause, which grows, one
//! event is tried; where that is taken, all go on.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use gantry::backoff;
use tokio::time::{Duration, Instant};

use super::shown::Wait;
use crate::{Message, broker::PublishError, bucket};

gantry::telemetry::label! {
    /// Why an event is not published yet.
    #[derive(PartialOrd, Ord)]
    pub(crate) enum Reason {
        /// No group wants its topic.
        Unroutable = "unroutable",
        /// A queue did not take it.
        Refused = "refused",
        /// The broker takes nothing.
        Blocked = "blocked",
        /// It was not confirmed in time.
        TimedOut = "timed_out",
        /// A group that is to have it is not there.
        Awaiting = "awaiting",
        /// The broker does not let us.
        Denied = "denied",
        /// There is no connection to the broker.
        Disconnected = "disconnected",
    }
}

impl Reason {
    pub(super) fn of(error: &PublishError) -> Self {
        match error {
            PublishError::Unroutable => Self::Unroutable,
            PublishError::Refused(_) => Self::Refused,
            PublishError::Blocked { .. } => Self::Blocked,
            PublishError::TimedOut => Self::TimedOut,
            PublishError::Awaiting(_) => Self::Awaiting,
            PublishError::Denied(_) => Self::Denied,
            PublishError::Disconnected(_) => Self::Disconnected,
        }
    }

    /// Whether it is the same for every event.
    pub(super) fn is_for_all(self) -> bool {
        match self {
            Self::Blocked | Self::Awaiting | Self::Denied | Self::Disconnected => true,
            Self::Unroutable | Self::Refused | Self::TimedOut => false,
        }
    }
}

/// Longest pause where it is the same for every event: asking costs little, and all wait.
const ALL_PAUSE_MAX: Duration = Duration::from_secs(5);

/// What is held up.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Scope {
    All,
    Topic(String),
    Bucket(String, u16),
}

impl Scope {
    /// Those that a message is within, the widest first.
    fn of(message: &Message) -> [Self; 3] {
        [
            Self::All,
            Self::Topic(message.topic.clone()),
            Self::Bucket(message.topic.clone(), bucket(&message.key)),
        ]
    }

    fn failed(reason: Reason, message: &Message) -> Self {
        let [all, topic, bucket] = Self::of(message);
        match reason {
            Reason::Unroutable => topic,
            Reason::Refused | Reason::TimedOut => bucket,
            Reason::Blocked | Reason::Awaiting | Reason::Denied | Reason::Disconnected => all,
        }
    }
}

#[derive(Debug)]
struct Hold {
    reason: Reason,
    /// When it was held up.
    begun: Instant,
    /// How often it was tried since.
    tries: u32,
    /// The number of the attempt after which it was held up.
    since: u64,
    pause: Duration,
    until: Instant,
    /// The attempt that finds out whether it goes on.
    probe: Option<u64>,
}

/// Whether a message may be tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pass {
    Go,
    /// Not before then.
    Wait(Instant, Reason),
    /// Neither it nor any other.
    AllWait,
}

/// What is held up. Bounded by the topics that the program has, times the buckets.
#[derive(Debug, Default)]
pub(super) struct Holds {
    holds: HashMap<Scope, Hold>,
}

impl Holds {
    /// Why things are held up.
    pub(super) fn reasons(&self) -> BTreeSet<Reason> {
        self.holds.values().map(|hold| hold.reason).collect()
    }

    /// What waits, with how many keys of each reason and topic are put off; those of one topic and
    /// reason together.
    pub(super) fn waits(&self, keys: &BTreeMap<(Reason, Arc<str>), usize>) -> Vec<Wait> {
        let mut waits = BTreeMap::<_, Wait>::new();
        for (scope, hold) in &self.holds {
            let topic = match scope {
                Scope::All => None,
                Scope::Topic(topic) | Scope::Bucket(topic, _) => Some(topic),
            };
            let next = hold.probe.is_none().then_some(hold.until);
            let wait = waits.entry((hold.reason, topic)).or_insert_with(|| Wait {
                reason: hold.reason,
                topic: topic.cloned(),
                keys: 0,
                tries: hold.tries,
                begun: hold.begun,
                next,
            });
            wait.tries = wait.tries.max(hold.tries);
            wait.begun = wait.begun.min(hold.begun);
            wait.next = wait.next.min(next);
        }
        for wait in waits.values_mut() {
            let topic = wait.topic.as_deref().map(Arc::from);
            let count = topic.and_then(|topic| keys.get(&(wait.reason, topic)));
            wait.keys = count.copied().unwrap_or_default();
        }
        waits.into_values().collect()
    }

    /// Whether everything waits.
    pub(super) fn all_wait(&self, now: Instant) -> bool {
        let hold = self.holds.get(&Scope::All);
        hold.is_some_and(|hold| hold.probe.is_some() || hold.until > now)
    }

    /// When something may be tried again, where everything waits for that time.
    pub(super) fn all_until(&self) -> Option<Instant> {
        let hold = self.holds.get(&Scope::All)?;
        hold.probe.is_none().then_some(hold.until)
    }

    /// Whether `message` may be tried, as the attempt of that number. Where it may and something is
    /// held up, that waits for how it goes.
    pub(super) fn pass(&mut self, message: &Message, attempt: u64, now: Instant) -> Pass {
        if self.holds.is_empty() {
            return Pass::Go;
        }
        let scopes = Scope::of(message);
        for scope in &scopes {
            if let Some(hold) = self.holds.get(scope)
                && (hold.probe.is_some() || hold.until > now)
            {
                return match scope {
                    Scope::All => Pass::AllWait,
                    // Where somebody finds out, that takes its time as well.
                    _ => Pass::Wait(hold.until.max(now + hold.pause), hold.reason),
                };
            }
        }
        for scope in &scopes {
            if let Some(hold) = self.holds.get_mut(scope) {
                hold.probe = Some(attempt);
            }
        }
        Pass::Go
    }

    /// Notes that a message was taken.
    pub(super) fn taken(&mut self, message: &Message) {
        if !self.holds.is_empty() {
            for scope in Scope::of(message) {
                self.holds.remove(&scope);
            }
        }
    }

    /// Notes that the attempt of a message failed; answers when the next one of its scope may be.
    pub(super) fn failed(
        &mut self,
        message: &Message,
        reason: Reason,
        attempt: Attempt,
        pauses: &backoff::Config,
    ) -> Instant {
        let failed = Scope::failed(reason, message);
        for scope in Scope::of(message) {
            // It was not what failed: who answers is connected, and has the topic.
            if scope != failed && !reason.is_for_all() {
                self.holds.remove(&scope);
            } else if let Some(hold) = self.holds.get_mut(&scope)
                && hold.probe == Some(attempt.number)
            {
                hold.probe = None;
            }
        }
        let mut pauses = *pauses;
        if reason.is_for_all() {
            pauses.max = pauses.max.min(ALL_PAUSE_MAX).max(pauses.min);
        }
        let hold = self.holds.entry(failed).or_insert(Hold {
            reason,
            begun: attempt.now,
            tries: 0,
            since: 0,
            pause: Duration::ZERO,
            until: attempt.now,
            probe: None,
        });
        hold.reason = reason;
        // Those that were on their way when it was held up say nothing new.
        if attempt.number >= hold.since {
            hold.pause = pauses.pause_after(hold.tries);
            hold.until = attempt.now + hold.pause;
            hold.tries = hold.tries.saturating_add(1);
            hold.since = attempt.next;
        }
        hold.until
    }

    /// Forgets attempts whose end nobody will see.
    pub(super) fn abandon(&mut self) {
        for hold in self.holds.values_mut() {
            hold.probe = None;
        }
    }
}

/// An attempt that has ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attempt {
    /// Its number.
    pub(super) number: u64,
    /// The number of the next one that begins.
    pub(super) next: u64,
    pub(super) now: Instant,
}
