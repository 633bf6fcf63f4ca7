//! The events of one key, while a relay has them.

use std::collections::VecDeque;

use super::ledger::{Claimed, Event, Outcome, Release};

/// Events of one key that are published one after the other.
#[derive(Debug)]
pub(super) struct Lane {
    key: String,
    /// The last one of which it is written down that it is done with.
    saved: i64,
    /// The last one that is done with.
    sent: i64,
    dropped: Vec<i64>,
    tries: u32,
    events: VecDeque<Event>,
    /// Which attempt of the next one is under way.
    attempt: Option<u64>,
    end: Option<Release>,
}

impl Lane {
    pub(super) fn new(claimed: Claimed) -> Self {
        Self {
            key: claimed.key,
            saved: claimed.sent,
            sent: claimed.sent,
            dropped: Vec::new(),
            tries: claimed.tries,
            events: claimed.events.into(),
            attempt: None,
            end: None,
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
            self.sent = event.sequence;
            if was_dropped {
                self.dropped.push(event.sequence);
            }
        }
        self.tries = 0;
        !self.events.is_empty()
    }

    /// Gives the key back; what is left is read again by whoever claims it.
    pub(super) fn end(&mut self, release: Release) {
        self.events.clear();
        self.end = Some(release);
    }

    /// What is to be written down, where something is.
    pub(super) fn unsaved(&self) -> Option<Outcome> {
        if self.saved == self.sent && self.end.is_none() {
            return None;
        }
        Some(Outcome {
            key: self.key.clone(),
            before: self.saved,
            sent: self.sent,
            dropped: self.dropped.clone(),
            release: self.end,
        })
    }

    /// Everything is written down; answers whether the lane has ended.
    pub(super) fn saved(&mut self) -> bool {
        self.saved = self.sent;
        self.dropped.clear();
        self.end.is_some()
    }
}

#[cfg(test)]
mod tests {
    use gantry_store::Timestamp;

    use super::*;

    fn lane(events: &[i64]) -> Lane {
        let message = crate::Message {
            topic: "test.v1.Happened".to_owned(),
            key: "a".to_owned(),
            headers: std::collections::BTreeMap::new(),
            body: bytes::Bytes::new(),
        };
        let event = |sequence: &i64| Event {
            sequence: *sequence,
            message: message.clone(),
        };
        Lane::new(Claimed {
            key: "a".to_owned(),
            sent: events[0] - 1,
            tries: 2,
            events: events.iter().map(event).collect(),
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

    /// Goal: what is to be written down is what has become of events since, once.
    /// Method: events that are sent, dropped and given back, saved in between.
    #[test]
    fn outcomes_are_written_down_once() {
        let mut lane = lane(&[5, 6, 7, 8]);
        assert!(lane.unsaved().is_none());
        assert!(lane.done(false) && lane.done(true));
        let outcome = lane.unsaved().unwrap();
        assert_eq!(
            (4, 6, vec![6]),
            (outcome.before, outcome.sent, outcome.dropped)
        );
        assert_eq!((None, 0), (outcome.release, lane.tries()));
        assert!(!lane.saved() && lane.unsaved().is_none());
        let release = Release {
            due_at: Timestamp::from_micros(1),
            tries: 1,
        };
        lane.end(release);
        let outcome = lane.unsaved().unwrap();
        assert_eq!(
            (6, 6, vec![]),
            (outcome.before, outcome.sent, outcome.dropped)
        );
        assert!(outcome.release == Some(release) && lane.saved());
    }
}
