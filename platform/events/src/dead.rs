//! Dead letters: what one says of itself, which ones are meant, and the way back into their queue.
//!
//! A letter that goes back begins anew, at the end of its queue: nothing is left of its attempts. What
//! says where it comes from stays, `traceparent` with it, so that whatever is done with it is linked to
//! the trace in which it came about. Events of its key that came after it may have been done meanwhile:
//! it comes after those.
//!
//! What fails again and again does not go round for ever: [`REDRIVEN`] counts, and is looked at.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeSet, VecDeque},
    convert::Infallible,
    fmt,
    num::NonZeroU32,
    str::FromStr,
    time::Duration,
};

use gantry::telemetry;
use tokio::time::{self, Interval, MissedTickBehavior};

use crate::{
    broker::{Broker, BrokerError, DeadLetter, Headers},
    headers::{DEAD_ATTEMPTS, DEAD_ERROR, DEAD_REASON, DEAD_TIME, ID, REDRIVEN},
};

/// How often a letter goes back unless somebody wants more.
pub const REDRIVEN_MAX: u32 = 3;

/// Letters read at once, bodies and all.
const PAGE: u16 = 50;

/// The shortest time between two letters of a walk that keeps a pace.
const PERIOD_MIN: Duration = Duration::from_micros(1);

/// What our own headers begin with; they are about one way through a queue.
const OURS: &str = "gantry-";

telemetry::label! {
    /// Why an event became a dead letter: what [`DEAD_REASON`] says, and nothing else.
    pub enum Reason {
        /// Its headers do not say which it is, or its body is none of its type.
        Malformed = "malformed",
        /// Nothing here handles its type.
        UnknownType = "unknown_type",
        /// Its handler says that it will never go well, or whoever consumes it without us does.
        Rejected = "rejected",
        /// All its attempts failed.
        AttemptsUsedUp = "attempts_used_up",
        /// All its attempts failed, the last one by a panic.
        Panicked = "panicked",
        /// All its attempts failed, the last one by taking too long.
        TimedOut = "timed_out",
        /// The broker has handed it out too often without a word, as where it ends the process each time.
        NeverSettled = "never_settled",
        /// The broker kept it no longer, as somebody has told it to.
        Expired = "expired",
        /// The broker had no more room for it, as somebody has told it to.
        NoRoom = "no_room",
        /// The broker gave it up, and says so in words that are not known here.
        GivenUp = "given_up",
    }
}

impl Reason {
    /// What RabbitMQ calls so.
    pub(crate) fn of_rabbit(word: &str) -> Self {
        match word {
            "delivery_limit" => Self::NeverSettled,
            "rejected" => Self::Rejected,
            "expired" => Self::Expired,
            "maxlen" => Self::NoRoom,
            _ => Self::GivenUp,
        }
    }
}

impl DeadLetter {
    /// The identifier of its event.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        self.header(ID)
    }

    /// Why it is one, as one of a few words.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        self.header(DEAD_REASON)
    }

    /// What the last attempt failed with, for people. It may hold what should not be shown to many.
    #[must_use]
    pub fn error(&self) -> Option<&str> {
        self.header(DEAD_ERROR)
    }

    /// When it became one, in RFC 3339.
    #[must_use]
    pub fn time(&self) -> Option<&str> {
        self.header(DEAD_TIME)
    }

    /// How many attempts there were.
    #[must_use]
    pub fn attempts(&self) -> Option<u32> {
        self.header(DEAD_ATTEMPTS)?.parse().ok()
    }

    /// How often it has gone back; where that cannot be read, as often as can be.
    #[must_use]
    pub fn redriven(&self) -> u32 {
        let count = self.header(REDRIVEN);
        count.map_or(0, |count| count.parse().unwrap_or(u32::MAX))
    }

    /// Its headers once it goes back.
    fn headers_back(&self) -> Headers {
        let headers = self.message.headers.iter();
        let kept = headers.filter(|(name, _)| !name.starts_with(OURS));
        let mut kept: Headers = kept
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        let count = self.redriven().saturating_add(1);
        kept.insert(REDRIVEN.to_owned(), count.to_string());
        kept
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.message.headers.get(name).map(String::as_str)
    }
}

/// One letter of a group, as people name it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Name {
    /// By its place.
    Place(u64),
    /// By the identifier of its event.
    Event(String),
}

impl Name {
    fn is_of(&self, letter: &DeadLetter) -> bool {
        match self {
            Self::Place(place) => letter.place == *place,
            Self::Event(id) => letter.id() == Some(id),
        }
    }
}

impl FromStr for Name {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        let place = text.parse().map(Self::Place);
        Ok(place.unwrap_or_else(|_| Self::Event(text.to_owned())))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Place(place) => place.fmt(f),
            Self::Event(id) => id.fmt(f),
        }
    }
}

/// Which letters of a group are meant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chosen {
    /// These; all where there are none.
    pub names: BTreeSet<Name>,
    /// Of this topic alone.
    pub topic: Option<String>,
    /// Of this [reason](DeadLetter::reason) alone.
    pub reason: Option<Reason>,
}

impl Chosen {
    /// One letter.
    #[must_use]
    pub fn one(name: Name) -> Self {
        Self {
            names: BTreeSet::from([name]),
            ..Self::default()
        }
    }

    fn covers(&self, letter: &DeadLetter) -> bool {
        let is = |wanted: Option<&str>, had: Option<&str>| wanted.is_none() || wanted == had;
        let named = self.names.is_empty() || self.names.iter().any(|name| name.is_of(letter));
        named
            && is(self.topic.as_deref(), Some(&letter.message.topic))
            && is(self.reason.map(Reason::as_str), letter.reason())
    }
}

/// Goes through the letters of a group, the oldest first, and ends with those that are there as it
/// begins: what is settled on the way, fails and becomes a letter again, does not come once more.
#[derive(Debug)]
pub struct Walk<'a> {
    broker: &'a dyn Broker,
    group: &'a str,
    chosen: &'a Chosen,
    /// Names that no letter had yet.
    missing: BTreeSet<Name>,
    /// Read, and not looked at.
    page: VecDeque<DeadLetter>,
    /// The last place that was read.
    after: u64,
    /// How many are not looked at yet.
    left: u64,
    pace: Option<Interval>,
}

impl<'a> Walk<'a> {
    /// Stands before the oldest letter of `group`.
    ///
    /// # Errors
    ///
    /// If there is no such group, or the broker does not answer in time.
    pub async fn begin(
        broker: &'a dyn Broker,
        group: &'a str,
        chosen: &'a Chosen,
    ) -> Result<Self, BrokerError> {
        let fill = broker.fill(group).await?;
        Ok(Self {
            broker,
            group,
            chosen,
            missing: chosen.names.clone(),
            page: VecDeque::new(),
            after: 0,
            left: fill.dead_letters,
            pace: None,
        })
    }

    /// Has no more than that many letters come in a second.
    #[must_use]
    pub fn paced(mut self, per_second: NonZeroU32) -> Self {
        let period = Duration::from_secs(1) / per_second.get();
        let mut pace = time::interval(period.max(PERIOD_MIN));
        // Time that a slow broker takes is not made good by a rush.
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.pace = Some(pace);
        self
    }

    /// The next letter that is meant; none at the end. Cancel-safe.
    ///
    /// # Errors
    ///
    /// If the broker does not answer in time.
    pub async fn next(&mut self) -> Result<Option<DeadLetter>, BrokerError> {
        loop {
            let all_named = !self.chosen.names.is_empty() && self.missing.is_empty();
            if self.left == 0 || all_named {
                return Ok(None);
            }
            let Some(letter) = self.page.front() else {
                if !self.turn().await? {
                    return Ok(None);
                }
                continue;
            };
            let meant = self.chosen.covers(letter);
            if let (true, Some(pace)) = (meant, &mut self.pace) {
                pace.tick().await;
            }
            self.left -= 1;
            let letter = self.page.pop_front();
            if let (true, Some(letter)) = (meant, letter) {
                self.missing.retain(|name| !name.is_of(&letter));
                return Ok(Some(letter));
            }
        }
    }

    /// Names that no letter had so far.
    pub fn missing(&self) -> impl Iterator<Item = &Name> {
        self.missing.iter()
    }

    /// Reads a page; false where there is none.
    async fn turn(&mut self) -> Result<bool, BrokerError> {
        let page = self
            .broker
            .dead_letters(self.group, self.after, PAGE)
            .await?;
        let Some(last) = page.last() else {
            return Ok(false);
        };
        self.after = last.place;
        self.page = page.into();
        Ok(true)
    }
}

/// What became of a letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// What was asked for.
    Done,
    /// Nothing: somebody else has settled it.
    Gone,
    /// Nothing: it went back as often as it may.
    TooOften,
}

/// Puts a letter back at the end of its queue, where it begins anew, unless it went back
/// `redriven_max` times.
///
/// # Errors
///
/// If the broker does not do it in time; then it may have gone back or not.
pub async fn redrive(
    broker: &dyn Broker,
    group: &str,
    letter: &DeadLetter,
    redriven_max: u32,
) -> Result<Outcome, BrokerError> {
    if letter.redriven() >= redriven_max {
        return Ok(Outcome::TooOften);
    }
    let headers = letter.headers_back();
    settled(
        broker
            .settle_dead_letter(group, letter, Some(headers))
            .await,
    )
}

/// Drops a letter for good.
///
/// # Errors
///
/// If the broker does not do it in time; then it may be gone or not.
pub async fn discard(
    broker: &dyn Broker,
    group: &str,
    letter: &DeadLetter,
) -> Result<Outcome, BrokerError> {
    settled(broker.settle_dead_letter(group, letter, None).await)
}

fn settled(settled: Result<(), BrokerError>) -> Result<Outcome, BrokerError> {
    match settled {
        Ok(()) => Ok(Outcome::Done),
        Err(BrokerError::Missing(_)) => Ok(Outcome::Gone),
        Err(error) => Err(error),
    }
}
