//! What is noted of events that have no effect now: those that come again later, and those that never do.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use gantry_store::{Error, Timestamp};
use tokio::time;

use super::{Change, Done, Verdict, Work};
use crate::{
    broker::Settle,
    consumer::{
        facts::Facts,
        inbox::Held,
        lanes::{self, Behind, Lane},
        letter::{self, Dead},
        partition::Job,
        pauses,
        telemetry::Measured,
    },
    headers,
};

/// What is noted of an event.
pub(super) enum Note<'a> {
    /// It comes again.
    Hold(&'a str, Held),
    /// It is done with, or does not come.
    Free(&'a Lane, u64),
}

impl Work<'_> {
    /// Has the event come again after a time; those of its key behind it wait.
    pub(super) async fn put_off(
        &self,
        facts: &Facts,
        attempts: u32,
        after: Duration,
        measured: &mut Measured,
    ) -> Verdict {
        let headers = letter::put_off(facts, attempts);
        // Those behind it are put off until it comes, not until it was to come.
        let after = lanes::pause(self.shared.broker.pauses(), after);
        let settle = Settle::Retry { after, headers };
        let Some(held) = held(facts, after) else {
            measured.put_off();
            return Verdict::Settle(settle, Change::None);
        };
        // Before the broker is asked for it: those behind it wait in any case.
        let change = Change::Held(held.sequence, self.clock.now().after(after));
        if let Err(verdict) = self.noted(&[Note::Hold(&facts.id, held)]).await {
            return verdict;
        }
        measured.put_off();
        Verdict::Settle(settle, change)
    }

    /// Whether nothing more is to be begun, by what [`Work::kept`] says.
    fn ends(&self, kept: Option<bool>) -> bool {
        if kept == Some(false) {
            self.lost();
        }
        kept != Some(true)
    }

    /// Has events come again after ones of their keys that come again: noted all at once. That is no
    /// attempt.
    pub(super) async fn postpone(&self, items: Vec<Behind<Job>>) -> Done {
        let mut done = Done::default();
        for behind in &items {
            if done.lanes.last() != Some(&behind.lane) {
                done.lanes.push(Arc::clone(&behind.lane));
            }
        }
        let now = self.clock.now();
        let mut notes = Vec::new();
        for behind in &items {
            if let Ok(facts) = &behind.item.facts
                && let Some(held) = held(facts, behind.after)
            {
                let change = Change::Held(held.sequence, now.after(behind.after));
                done.changes.push((Arc::clone(&behind.lane), change));
                notes.push(Note::Hold(&facts.id, held));
            }
        }
        let kept = self.kept(&notes).await;
        if kept != Some(true) {
            done.changes.clear();
            done.ends = self.ends(kept);
            return done;
        }
        let settled = items.iter().filter_map(|behind| {
            let item = &behind.item;
            let facts = item.facts.as_ref().ok()?;
            let mut headers = letter::put_off(facts, facts.attempts);
            headers.insert(headers::HOLD.to_owned(), "1".to_owned());
            let mut measured = self.shared.metrics.process(item, self.claim.part);
            measured.postponed();
            let settle = Settle::Retry {
                after: behind.after,
                headers,
            };
            Some(self.settle(item.delivery.tag, settle, measured))
        });
        done.ends = join_all(settled).await.contains(&false);
        done
    }

    /// Has those behind a held event go on without it.
    pub(super) async fn give_up(&self, lane: Arc<Lane>, sequence: u64) -> Done {
        let kept = self.kept(&[Note::Free(&lane, sequence)]).await;
        let changes = match kept {
            Some(true) => {
                self.shared.metrics.given_up(self.claim.part, sequence);
                vec![(Arc::clone(&lane), Change::Freed(sequence))]
            }
            _ => Vec::new(),
        };
        Done {
            lanes: vec![lane],
            changes,
            ends: self.ends(kept),
            ..Done::default()
        }
    }

    /// Has an event done with that had its effect before.
    pub(super) async fn known(
        &self,
        facts: &Facts,
        held: bool,
        measured: &mut Measured,
    ) -> Verdict {
        let change = freed(facts, held);
        if let Change::Freed(sequence) = change {
            let freed = [Note::Free(&facts.lane, sequence)];
            if let Err(verdict) = self.noted(&freed).await {
                return verdict;
            }
        }
        measured.known();
        Verdict::Settle(Settle::Ack, change)
    }

    /// Has an event become a dead letter; those of its key behind it go on.
    pub(super) async fn dead(
        &self,
        facts: &Facts,
        held: bool,
        dead: Dead,
        measured: &mut Measured,
    ) -> Verdict {
        // Even where there is nothing to note: whoever has lost the partition makes no letter of what
        // another one may have done by now.
        let noted = facts.sequence.filter(|_| held || self.shared.in_sequence);
        let noted = noted.map(|sequence| Note::Free(&facts.lane, sequence));
        if let Err(verdict) = self.noted(noted.as_slice()).await {
            return verdict;
        }
        let settle = self.dead_letter(&facts.id, dead, measured);
        Verdict::Settle(settle, freed(facts, held))
    }

    pub(super) fn dead_letter(&self, id: &str, dead: Dead, measured: &mut Measured) -> Settle {
        measured.dead(id, dead.reason, &dead.error, dead.attempts);
        Settle::Reject(letter::dead(&self.shared.group.name, dead))
    }

    /// As [`Work::kept`]: what is to be done where it was not.
    pub(super) async fn noted(&self, notes: &[Note<'_>]) -> Result<(), Verdict> {
        match self.kept(notes).await {
            Some(true) => Ok(()),
            Some(false) => Err(Verdict::Lost),
            None => Err(Verdict::Leave),
        }
    }

    /// Notes things of events, all or none, however long the database is away; whether the partition is
    /// still ours. None if it was to be given back meanwhile.
    async fn kept(&self, notes: &[Note<'_>]) -> Option<bool> {
        let mut pauses = pauses();
        loop {
            match self.keep(notes).await {
                Ok(owned) => {
                    self.shared.shown.fine(self.here());
                    return Some(owned);
                }
                Err(error) => self.shared.shown.database(self.here(), &error),
            }
            if !self.pause(pauses.next_pause()).await {
                return None;
            }
        }
    }

    async fn keep(&self, notes: &[Note<'_>]) -> Result<bool, Error> {
        let inbox = &self.shared.inbox;
        let mut transaction = inbox.database.begin("events.hold").await?;
        for note in notes {
            match note {
                Note::Hold(event_id, held) => {
                    let part = self.claim.part;
                    inbox.hold(&mut transaction, part, event_id, held).await?;
                }
                Note::Free(lane, sequence) => {
                    inbox.free(&mut transaction, lane, *sequence).await?;
                    if self.shared.in_sequence {
                        inbox.advance(&mut transaction, lane, *sequence).await?;
                    }
                }
            }
        }
        if !inbox.is_owned(&mut transaction, self.claim).await? {
            transaction.rollback().await?;
            return Ok(false);
        }
        transaction.commit().await?;
        Ok(true)
    }

    /// Waits; whether to go on.
    pub(super) async fn pause(&self, pause: Duration) -> bool {
        let pause = time::sleep(pause);
        self.give_back.run_until_cancelled(pause).await.is_some()
    }
}

/// What becomes of the place of an event that is done.
pub(super) fn freed(facts: &Facts, held: bool) -> Change {
    match facts.sequence {
        Some(sequence) if held => Change::Freed(sequence),
        _ => Change::None,
    }
}

/// An event that comes again then; none where it has no place among others.
fn held(facts: &Facts, after: Duration) -> Option<Held> {
    facts.sequence.map(|sequence| Held {
        lane: Arc::clone(&facts.lane),
        sequence,
        // By the machine's clock: whoever has the partition next has a clock of its own.
        due_at: Timestamp::now().after(after),
    })
}
