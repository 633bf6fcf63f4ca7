//! The events of one key, while a relay has them.

use std::collections::VecDeque;

use gantry_store::Timestamp;
use tokio::time::Instant;

use super::ledger::{BEHIND_MAX, Claimed, Event, Outcome, Release};

/// Events of one key that are published one after the other.
#[derive(Debug)]
pub(super) struct Lane {
    key: String,
    /// The last one that is done with as the key has it.
    advanced: i64,
    /// The last one of which it is written down that it is done with.
    saved: i64,
    /// The last one that is done with.
    sent: i64,
    dropped: Vec<i64>,
    tries: u32,
    events: VecDeque<Event>,
    /// Bytes of their bodies.
    bytes: usize,
    /// Which attempt of the next one is under way.
    attempt: Option<u64>,
    end: Option<Release>,
    /// Since when it could not be given back, as somebody is adding to it.
    busy_since: Option<Instant>,
    /// Whether somebody is waiting for its turn to give it back.
    waits: bool,
}

/// What lanes have, one or all together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Tally {
    /// Events that are not published yet.
    pub(super) left: usize,
    /// Bytes of their bodies.
    pub(super) bytes: usize,
    /// Events that are done with, where that is not written down.
    pub(super) done: usize,
    /// Lanes that are to be given back.
    pub(super) ended: usize,
    /// Those of them that could not be, and for which nobody waits.
    pub(super) busy: usize,
}

impl Lane {
    pub(super) fn new(claimed: Claimed) -> Self {
        let first = claimed.events.first().map(|event| event.sequence - 1);
        let sent = first.unwrap_or(claimed.sent);
        Self {
            key: claimed.key,
            advanced: claimed.sent,
            saved: sent,
            sent,
            dropped: Vec::new(),
            tries: claimed.tries,
            bytes: claimed.events.iter().map(Event::bytes).sum(),
            events: claimed.events.into(),
            attempt: None,
            end: None,
            busy_since: None,
            waits: false,
        }
    }

    /// What it has.
    pub(super) fn tally(&self) -> Tally {
        // What somebody else is waiting to write down is nothing to begin with here.
        let ours = !self.waits;
        let done = usize::try_from(self.sent - self.saved).unwrap_or_default();
        Tally {
            left: self.events.len(),
            bytes: self.bytes,
            done: if ours { done } else { 0 },
            ended: usize::from(ours && self.end.is_some()),
            busy: usize::from(self.busy_since().is_some()),
        }
    }

    /// The next one to be published.
    pub(super) fn next(&self) -> Option<&Event> {
        self.events.front()
    }

    /// How often that one has failed.
    pub(super) fn tries(&self) -> u32 {
        self.tries
    }

    /// The attempt of that number is under way.
    pub(super) fn begin(&mut self, attempt: u64) {
        self.attempt = Some(attempt);
    }

    /// An attempt has ended; answers whether it was of these events, and not of some that were claimed
    /// before.
    pub(super) fn end_attempt(&mut self, attempt: u64) -> bool {
        let ours = self.attempt == Some(attempt);
        if ours {
            self.attempt = None;
        }
        ours
    }

    /// The next one is done with; answers whether there is another.
    pub(super) fn done(&mut self, was_dropped: bool) -> bool {
        if let Some(event) = self.events.pop_front() {
            self.bytes -= event.bytes();
            self.sent = event.sequence;
            if was_dropped {
                self.dropped.push(event.sequence);
            }
        }
        self.tries = 0;
        !self.events.is_empty()
    }

    /// Gives the key back until then, with nothing said of its next event.
    pub(super) fn put_off(&mut self, due_at: Timestamp) {
        let tries = self.tries;
        self.end(Release { due_at, tries });
    }

    /// Gives the key back; what is left is read again by whoever claims it.
    pub(super) fn end(&mut self, release: Release) {
        self.events.clear();
        self.bytes = 0;
        self.end = Some(release);
    }

    /// Somebody was adding to it when it was to be given back.
    pub(super) fn busy(&mut self, now: Instant) {
        self.busy_since.get_or_insert(now);
    }

    /// Since when it could not be given back, where nobody is waiting for its turn to do so.
    pub(super) fn busy_since(&self) -> Option<Instant> {
        self.busy_since.filter(|_| !self.waits)
    }

    /// Somebody is waiting for its turn to give it back, with what is not written down; or nobody is any
    /// more.
    pub(super) fn wait(&mut self, waits: bool) {
        self.waits = waits;
    }

    /// What is to be written down, where something is and nobody is about to.
    pub(super) fn unsaved(&self) -> Option<Outcome> {
        let is_unsaved = self.saved != self.sent || self.end.is_some();
        (is_unsaved && !self.waits).then(|| self.outcome())
    }

    /// What has become of its events, and is not written down.
    pub(super) fn outcome(&self) -> Outcome {
        Outcome {
            key: self.key.clone(),
            before: self.saved,
            sent: self.sent,
            dropped: self.dropped.clone(),
            advances: self.end.is_some() || self.sent - self.advanced >= BEHIND_MAX,
            release: self.end,
        }
    }

    /// That is written down; answers whether the lane has ended with it. What has become of further
    /// events meanwhile is not.
    pub(super) fn saved(&mut self, outcome: &Outcome) -> bool {
        self.saved = outcome.sent;
        self.busy_since = None;
        if outcome.advances {
            self.advanced = outcome.sent;
        }
        self.dropped.drain(..outcome.dropped.len());
        outcome.release.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lane(events: &[i64]) -> Lane {
        let message = crate::Message {
            topic: "test.v1.Happened".to_owned(),
            key: "a".to_owned(),
            headers: std::collections::BTreeMap::new(),
            body: bytes::Bytes::from_static(b"four"),
        };
        let event = |sequence: &i64| Event {
            sequence: *sequence,
            message: std::sync::Arc::new(message.clone()),
        };
        Lane::new(Claimed {
            key: "a".to_owned(),
            sent: events[0] - 1,
            tries: 2,
            events: events.iter().map(event).collect(),
            unread: false,
        })
    }

    /// Goal: an attempt that was begun for an earlier claim says nothing of this one.
    /// Method: end one that was not begun, then the one that was, twice.
    #[test]
    fn attempts_of_earlier_claims_say_nothing() {
        let mut lane = lane(&[5]);
        lane.begin(7);
        assert!(!lane.end_attempt(3));
        assert!(lane.end_attempt(7));
        assert!(!lane.end_attempt(7));
    }

    /// Goal: what is to be written down is what has become of events since, once, also where more has
    /// while that was on its way.
    /// Method: events that are sent, dropped and given back, saved in between.
    #[test]
    fn outcomes_are_written_down_once() {
        let mut lane = lane(&[5, 6, 7, 8]);
        assert!(lane.unsaved().is_none());
        assert!(lane.done(false) && lane.done(true));
        let tally = Tally {
            left: 2,
            bytes: 8,
            done: 2,
            ..Tally::default()
        };
        assert_eq!(tally, lane.tally());
        let outcome = lane.unsaved().unwrap();
        assert_eq!(
            (4, 6, vec![6]),
            (outcome.before, outcome.sent, outcome.dropped.clone())
        );
        assert_eq!((None, 0), (outcome.release, lane.tries()));
        assert!(!outcome.advances);
        assert!(lane.done(true));
        assert!(!lane.saved(&outcome));
        let outcome = lane.unsaved().unwrap();
        assert_eq!(
            (6, 7, vec![7]),
            (outcome.before, outcome.sent, outcome.dropped.clone())
        );
        assert!(!lane.saved(&outcome) && lane.unsaved().is_none());
        let release = Release {
            due_at: Timestamp::from_micros(1),
            tries: 1,
        };
        lane.end(release);
        let tally = Tally {
            ended: 1,
            ..Tally::default()
        };
        assert_eq!(tally, lane.tally());
        let outcome = lane.unsaved().unwrap();
        assert_eq!((7, 7), (outcome.before, outcome.sent));
        assert!(outcome.dropped.is_empty() && outcome.release == Some(release));
        assert!(outcome.advances);
        assert!(lane.saved(&outcome));
    }

    /// Goal: who was adding to a key once is not waited for any more when that is over.
    /// Method: a key that could not be given back, and then was written down.
    #[test]
    fn a_key_is_busy_until_it_is_written_down() {
        let mut lane = lane(&[5, 6]);
        assert!(lane.done(false));
        lane.busy(Instant::now());
        assert!(lane.busy_since().is_some());
        let outcome = lane.unsaved().unwrap();
        assert!(!lane.saved(&outcome));
        assert_eq!(None, lane.busy_since());
    }

    /// Goal: a key is never further behind its events than anybody looks.
    /// Method: more events than that, written down one by one.
    #[test]
    fn keys_are_not_far_behind() {
        let all: Vec<_> = (5..50).collect();
        let mut lane = lane(&all);
        let mut advanced = 4;
        for number in 5..49 {
            assert!(lane.done(false));
            let outcome = lane.unsaved().unwrap();
            if outcome.advances {
                advanced = outcome.sent;
            }
            assert!(number - advanced < BEHIND_MAX, "{number} {advanced}");
            lane.saved(&outcome);
        }
        assert!(advanced > 30 && advanced < 48, "{advanced}");
    }
}
