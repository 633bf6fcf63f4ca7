//! What is done with one event that has come.
//!
//! Points at which tests have the process end ([`gantry::crash`]):
//!
//! | point | where | then |
//! | --- | --- | --- |
//! | `events.c1` | before the transaction | it comes again |
//! | `events.c2` | effect and inbox are written, not committed | it comes again, without an effect so far |
//! | `events.c3` | committed, not settled | it comes again, and is known |
//! | `events.c4` | settled | nothing |

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::FutureExt as _;
use gantry::{call, crash, status::chain};
use gantry_store::{Error, Kind, Timestamp, Transaction};
use tokio::time;
use tokio_util::sync::CancellationToken;

use super::{
    Shared,
    facts::Facts,
    handler::{Attempt, Failure, Ready},
    inbox::{Claim, Entry, Held},
    lanes::Step,
    letter::{self, Dead, Fault, Reason},
    partition::Job,
    pauses,
    telemetry::Measured,
};
use crate::{
    broker::{Settle, Settler, Tag},
    headers,
};

/// Least time for which an event is put off behind another.
const POSTPONE_MIN: Duration = Duration::from_secs(1);

/// Work at one event.
pub(super) struct Work<'a> {
    pub(super) shared: &'a Shared,
    pub(super) claim: &'a Claim,
    pub(super) give_back: &'a CancellationToken,
    pub(super) settler: Arc<dyn Settler>,
}

/// How work at an event ended.
#[derive(Debug, Default)]
pub(super) struct Done {
    /// It came before its predecessor, and waits for it until then.
    pub(super) back: Option<(Job, Timestamp)>,
    /// What became of its place among the held ones.
    pub(super) change: Change,
    /// Whether the partition is somebody else's by now.
    pub(super) lost: bool,
}

/// What becomes of an event's place among the held ones.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// Nothing.
    #[default]
    None,
    /// It is held until then.
    Held(u64, Timestamp),
    /// It is held no more.
    Freed(u64),
}

/// What is decided about an event.
enum Verdict {
    /// It is settled so, and its place changes so.
    Settle(Settle, Change),
    /// It is left as it is, and comes again.
    Leave,
    /// It waits for its predecessor.
    Early,
    /// As [`Verdict::Leave`], because the partition is somebody else's.
    Lost,
}

/// How an event stands in its lane.
#[derive(Debug, Default, Clone, Copy)]
struct At {
    /// Whether it is held itself.
    held: bool,
    /// Whether it has waited for its predecessor long enough.
    overdue: bool,
}

/// How an attempt ended.
enum Tried {
    /// The event has its effect.
    Applied,
    /// It had it before.
    Known,
    /// One before it has not come.
    Early,
    /// The partition is somebody else's by now.
    Lost,
    /// It failed.
    Failed(Fault),
    /// The database was in the way: that is not the event's fault, and no attempt.
    Away(Error),
}

impl Work<'_> {
    pub(super) async fn run(self, step: Step<Job>) -> Done {
        let (job, at, after) = match step {
            Step::Handle {
                item,
                held,
                overdue,
            } => (item, At { held, overdue }, None),
            Step::Postpone { item, until } => (item, At::default(), Some(until)),
        };
        let tag = job.delivery.tag;
        let mut measured = self.shared.metrics.process(&job, self.claim.part);
        let verdict = match after {
            Some(until) => self.postpone(&job, until, &mut measured).await,
            None => self.handle(&job, at, &mut measured).await,
        };
        let (settle, change) = match verdict {
            Verdict::Settle(settle, change) => (settle, change),
            Verdict::Leave => return Done::default(),
            Verdict::Early => {
                measured.early();
                let until = Timestamp::now().after(self.shared.config.load().gap_wait);
                return Done {
                    back: Some((job, until)),
                    ..Done::default()
                };
            }
            Verdict::Lost => {
                let part = self.claim.part;
                tracing::warn!(group = %self.shared.group.name, part, "another instance has the partition");
                return Done {
                    lost: true,
                    ..Done::default()
                };
            }
        };
        self.settle(tag, settle, measured).await;
        Done {
            change,
            ..Done::default()
        }
    }

    async fn settle(&self, tag: Tag, settle: Settle, measured: Measured) {
        let settling = measured.settle(&settle);
        let outcome = settling.within(self.settler.settle(tag, settle)).await;
        if let Err(error) = &outcome {
            // It comes again, and is known then.
            tracing::debug!(error = %chain(error), "an event was not settled");
        }
        settling.end(outcome.is_ok());
        crash::point("events.c4");
    }

    /// Decides about an event that nothing stands before.
    async fn handle(&self, job: &Job, at: At, measured: &mut Measured) -> Verdict {
        let message = &job.delivery.message;
        let facts = match &job.facts {
            Ok(facts) => facts,
            // Nothing is known of its place.
            Err(malformed) => {
                let dead = Dead::new(Reason::Malformed, malformed.to_string(), 0);
                let settle = self.dead_letter("", dead, measured);
                return Verdict::Settle(settle, Change::None);
            }
        };
        let Some(handler) = self.shared.handlers.get(&message.topic) else {
            let error = "nothing here handles its type".to_owned();
            let dead = Dead::new(Reason::UnknownType, error, facts.attempts);
            return self.dead(facts, at.held, dead, measured).await;
        };
        let mut event = match handler.decode(Arc::clone(facts), message.body.clone()) {
            Ok(event) => event,
            Err(error) => {
                let dead = Dead::new(Reason::Malformed, error.to_string(), facts.attempts);
                return self.dead(facts, at.held, dead, measured).await;
            }
        };
        self.attempts(&mut *event, facts, at, measured).await
    }

    /// Tries until the event has its effect, is put off, or is given up.
    async fn attempts(
        &self,
        event: &mut dyn Ready,
        facts: &Arc<Facts>,
        at: At,
        measured: &mut Measured,
    ) -> Verdict {
        let (mut made, mut here) = (facts.attempts, 0);
        let mut away = pauses();
        loop {
            let config = self.shared.config.load();
            let attempt = Attempt::new(made, config.attempts_max, facts.first_seen);
            let tried = self.attempt(event, facts, at, attempt, measured);
            let pause = match tried.await {
                Tried::Applied => {
                    measured.applied(facts);
                    return Verdict::Settle(Settle::Ack, freed(facts, at.held));
                }
                Tried::Known => return self.known(facts, at.held, measured).await,
                Tried::Early => return Verdict::Early,
                Tried::Lost => return Verdict::Lost,
                Tried::Away(error) => {
                    tracing::warn!(error = %chain(&error), "an event waits for the database");
                    away.next_pause()
                }
                Tried::Failed(fault) => {
                    made = made.saturating_add(1);
                    here += 1;
                    measured.failed(&fault, made);
                    if fault.is_final() || attempt.is_last {
                        let dead = Dead::new(fault.reason(), fault.error(), made);
                        return self.dead(facts, at.held, dead, measured).await;
                    }
                    if here >= config.attempts_in_place {
                        let after = config.put_off(made / config.attempts_in_place - 1);
                        return self.put_off(facts, made, after, measured).await;
                    }
                    config.in_place(here - 1)
                }
            };
            if !self.pause(pause).await {
                return Verdict::Leave;
            }
        }
    }

    /// Has an event done with that had its effect before.
    async fn known(&self, facts: &Facts, held: bool, measured: &mut Measured) -> Verdict {
        let change = freed(facts, held);
        if change != Change::None {
            match self.kept(facts, None).await {
                Some(true) => {}
                Some(false) => return Verdict::Lost,
                None => return Verdict::Leave,
            }
        }
        measured.known();
        Verdict::Settle(Settle::Ack, change)
    }

    /// Waits; whether to go on.
    async fn pause(&self, pause: Duration) -> bool {
        let pause = time::sleep(pause);
        self.give_back.run_until_cancelled(pause).await.is_some()
    }

    async fn attempt(
        &self,
        event: &mut dyn Ready,
        facts: &Facts,
        at: At,
        attempt: Attempt,
        measured: &Measured,
    ) -> Tried {
        let _place = self.shared.places.acquire().await;
        crash::point("events.c1");
        match self.transaction(event, facts, at, attempt, measured).await {
            Ok(tried) => tried,
            // What the handler wrote does not fit together.
            Err(error) if matches!(error.kind(), Kind::Conflict | Kind::Broken) => {
                Tried::Failed(Fault::NotKept(error))
            }
            // It may be committed all the same: then it is known at the next try.
            Err(error) => Tried::Away(error),
        }
    }

    async fn transaction(
        &self,
        event: &mut dyn Ready,
        facts: &Facts,
        at: At,
        attempt: Attempt,
        measured: &Measured,
    ) -> Result<Tried, Error> {
        let inbox = &self.shared.inbox;
        let mut transaction = inbox.database.begin("events.consume").await?;
        match inbox.enter(&mut transaction, self.claim, &facts.id).await? {
            Entry::New => {}
            Entry::Known => {
                transaction.rollback().await?;
                return Ok(Tried::Known);
            }
            Entry::Lost => {
                transaction.rollback().await?;
                return Ok(Tried::Lost);
            }
        }
        let counted = facts.sequence.filter(|_| self.shared.in_sequence);
        if let Some(sequence) = counted.filter(|_| !at.overdue)
            && inbox.last(&mut transaction, &facts.lane).await? + 1 < sequence
        {
            transaction.rollback().await?;
            return Ok(Tried::Early);
        }
        let handled = self.guarded(event, attempt, &mut transaction, measured);
        if let Err(fault) = handled.await {
            // Nothing is kept in any case; a database that is away says so at the next try.
            drop(transaction.rollback().await);
            return Ok(match fault {
                Fault::Said(Failure::Retry(source)) => by_the_database(source),
                fault => Tried::Failed(fault),
            });
        }
        if let Some(sequence) = counted {
            let advanced = inbox.advance(&mut transaction, &facts.lane, sequence);
            advanced.await?;
        }
        if let (true, Some(sequence)) = (at.held, facts.sequence) {
            inbox.free(&mut transaction, &facts.lane, sequence).await?;
        }
        if !inbox.is_owned(&mut transaction, self.claim).await? {
            transaction.rollback().await?;
            return Ok(Tried::Lost);
        }
        crash::point("events.c2");
        transaction.commit().await?;
        crash::point("events.c3");
        Ok(Tried::Applied)
    }

    /// Has the event handled, within its time, as work that belongs to its trace.
    async fn guarded(
        &self,
        event: &mut dyn Ready,
        attempt: Attempt,
        transaction: &mut Transaction,
        measured: &Measured,
    ) -> Result<(), Fault> {
        let limit = self.shared.config.load().handler_timeout;
        let context = measured.context(limit, attempt.attempt - 1);
        let handling = AssertUnwindSafe(event.handle(attempt, transaction)).catch_unwind();
        let handling = call::Scoped::new(Arc::clone(&context), handling);
        let outcome = time::timeout(limit, measured.within(handling)).await;
        // What was started for it ends with it.
        context.ended.set();
        match outcome {
            Ok(Ok(Ok(()))) => Ok(()),
            Ok(Ok(Err(failure))) => Err(Fault::Said(failure)),
            Ok(Err(_)) => Err(Fault::Panicked),
            Err(_) => Err(Fault::TimedOut),
        }
    }

    /// Has the event come again after a time; those of its key behind it wait.
    async fn put_off(
        &self,
        facts: &Facts,
        attempts: u32,
        after: Duration,
        measured: &mut Measured,
    ) -> Verdict {
        let headers = letter::put_off(facts, attempts);
        let settle = Settle::Retry { after, headers };
        let verdict = self.hold(facts, after, settle).await;
        if let Verdict::Settle(..) = verdict {
            measured.put_off();
        }
        verdict
    }

    /// Has the event come again after one of its key that comes again at `until`. That is no attempt.
    async fn postpone(&self, job: &Job, until: Timestamp, measured: &mut Measured) -> Verdict {
        let Ok(facts) = &job.facts else {
            return Verdict::Leave;
        };
        let left = until.micros().saturating_sub(Timestamp::now().micros());
        let left = Duration::from_micros(u64::try_from(left).unwrap_or(0));
        let after = left.max(POSTPONE_MIN);
        let mut headers = letter::put_off(facts, facts.attempts);
        headers.insert(headers::HOLD.to_owned(), "1".to_owned());
        let settle = Settle::Retry { after, headers };
        let verdict = self.hold(facts, after, settle).await;
        if let Verdict::Settle(..) = verdict {
            measured.postponed();
        }
        verdict
    }

    /// Notes that the event comes again, before the broker is asked for it: those behind it wait in any
    /// case.
    async fn hold(&self, facts: &Facts, after: Duration, settle: Settle) -> Verdict {
        let Some(sequence) = facts.sequence else {
            return Verdict::Settle(settle, Change::None);
        };
        let held = Held {
            lane: Arc::clone(&facts.lane),
            sequence,
            due_at: Timestamp::now().after(after),
        };
        match self.kept(facts, Some(&held)).await {
            Some(true) => Verdict::Settle(settle, Change::Held(sequence, held.due_at)),
            Some(false) => Verdict::Lost,
            None => Verdict::Leave,
        }
    }

    /// Has an event become a dead letter; those of its key behind it go on.
    async fn dead(
        &self,
        facts: &Facts,
        held: bool,
        dead: Dead,
        measured: &mut Measured,
    ) -> Verdict {
        let change = freed(facts, held);
        if change != Change::None || self.shared.in_sequence {
            match self.kept(facts, None).await {
                Some(true) => {}
                Some(false) => return Verdict::Lost,
                None => return Verdict::Leave,
            }
        }
        Verdict::Settle(self.dead_letter(&facts.id, dead, measured), change)
    }

    fn dead_letter(&self, id: &str, dead: Dead, measured: &mut Measured) -> Settle {
        measured.dead(id, dead.reason, &dead.error, dead.attempts);
        Settle::Reject(letter::dead(&self.shared.group.name, dead))
    }

    /// Notes that an event is held, or that it is not, however long the database is away; whether the
    /// partition is still ours. None if it was to be given back meanwhile.
    async fn kept(&self, facts: &Facts, held: Option<&Held>) -> Option<bool> {
        let mut pauses = pauses();
        loop {
            match self.keep(facts, held).await {
                Ok(owned) => return Some(owned),
                Err(error) => {
                    tracing::warn!(error = %chain(&error), "an event waits for the database");
                }
            }
            if !self.pause(pauses.next_pause()).await {
                return None;
            }
        }
    }

    async fn keep(&self, facts: &Facts, held: Option<&Held>) -> Result<bool, Error> {
        let inbox = &self.shared.inbox;
        let mut transaction = inbox.database.begin("events.hold").await?;
        match (held, facts.sequence) {
            (Some(held), _) => {
                let part = self.claim.part;
                inbox.hold(&mut transaction, part, &facts.id, held).await?;
            }
            (None, Some(sequence)) => {
                inbox.free(&mut transaction, &facts.lane, sequence).await?;
                if self.shared.in_sequence {
                    let advanced = inbox.advance(&mut transaction, &facts.lane, sequence);
                    advanced.await?;
                }
            }
            (None, None) => {}
        }
        if !inbox.is_owned(&mut transaction, self.claim).await? {
            transaction.rollback().await?;
            return Ok(false);
        }
        transaction.commit().await?;
        Ok(true)
    }
}

/// What becomes of the place of an event that is done.
fn freed(facts: &Facts, held: bool) -> Change {
    match facts.sequence {
        Some(sequence) if held => Change::Freed(sequence),
        _ => Change::None,
    }
}

/// A handler fails, too, where its database is away: then the event is not tried out of its attempts.
fn by_the_database(source: gantry::BoxError) -> Tried {
    match source.downcast::<Error>() {
        Ok(error) if is_away(&error) => Tried::Away(*error),
        Ok(error) => Tried::Failed(Fault::Said(Failure::Retry(error))),
        Err(source) => Tried::Failed(Fault::Said(Failure::Retry(source))),
    }
}

fn is_away(error: &Error) -> bool {
    matches!(error.kind(), Kind::Unavailable | Kind::Full)
}
