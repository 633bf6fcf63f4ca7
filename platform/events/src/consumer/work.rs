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

mod hold;

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::FutureExt as _;
use gantry::{call, crash, status::chain};
use gantry_store::{Error, Kind, Timestamp, Transaction};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time,
};
use tokio_util::sync::CancellationToken;

use hold::freed;

use super::{
    Config, Shared,
    clock::Clock,
    facts::Facts,
    handler::{Attempt, Failure, Ready},
    inbox::{Claim, Entry},
    lanes::{Lane, Step, Wait},
    letter::{Dead, Fault},
    partition::Job,
    pauses,
    shown::Where,
    telemetry::Measured,
};
use crate::{
    broker::{Settle, Settler, Tag},
    dead::Reason,
};

/// How long an event may still take to be settled once its partition is to be given back. Beyond that it
/// comes again.
const SETTLE_LAST: Duration = Duration::from_secs(2);

/// How often the database may break off an event's transaction before that is held against the event. It
/// may be why, and in an outage it is met once.
const BROKEN_OFF_MAX: u32 = 3;

/// Work at one event.
pub(super) struct Work<'a> {
    pub(super) shared: &'a Shared,
    pub(super) claim: &'a Claim,
    pub(super) clock: Clock,
    pub(super) give_back: &'a CancellationToken,
    pub(super) settler: Arc<dyn Settler>,
    /// Places for those that wait at hand to be tried again.
    pub(super) rests: Arc<Semaphore>,
}

/// How work ended.
#[derive(Debug, Default)]
pub(super) struct Done {
    /// At which lanes it was.
    pub(super) lanes: Vec<Arc<Lane>>,
    /// An event that waits at hand.
    pub(super) back: Option<(Arc<Lane>, Job, Wait)>,
    /// What became of places among the held ones.
    pub(super) changes: Vec<(Arc<Lane>, Change)>,
    /// Whether nothing more is to be begun: the partition is given back, or somebody else's by now. An
    /// event that was left comes again, and those behind it must not be handled before.
    pub(super) ends: bool,
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
    /// It waits at hand for its predecessor.
    Early,
    /// It waits at hand to be tried again: what is known of it then, its place, and until when.
    Rest(Facts, OwnedSemaphorePermit, Timestamp),
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
    /// The partition was given back before it was its turn.
    Left,
    /// It failed.
    Failed(Fault),
    /// The database was in the way: that is not the event's fault, and no attempt.
    Away(Error),
    /// The database was there, and broke off what was begun.
    BrokenOff(Error),
}

impl Work<'_> {
    pub(super) async fn run(self, step: Step<Job>) -> Done {
        match step {
            Step::Handle {
                lane,
                item,
                held,
                overdue,
            } => self.one(lane, item, At { held, overdue }).await,
            Step::Postpone(items) => self.postpone(items).await,
            Step::GiveUp { lane, sequence } => self.give_up(lane, sequence).await,
        }
    }

    async fn one(&self, lane: Arc<Lane>, mut job: Job, at: At) -> Done {
        job.rest = None;
        let tag = job.delivery.tag;
        let sequence = job.facts.as_ref().ok().and_then(|facts| facts.sequence);
        let mut measured = self.shared.metrics.process(&job, self.claim.part);
        let mut done = Done {
            lanes: vec![Arc::clone(&lane)],
            ..Done::default()
        };
        let (until, overdue) = match self.handle(&job, at, &mut measured).await {
            Verdict::Settle(settle, change) => {
                done.ends = !self.settle(tag, settle, measured).await;
                done.changes.push((lane, change));
                return done;
            }
            Verdict::Leave => {
                done.ends = true;
                return done;
            }
            Verdict::Lost => {
                self.lost();
                done.ends = true;
                return done;
            }
            Verdict::Early => {
                measured.early();
                let wait = self.shared.config.load().gap_wait;
                (self.clock.now().after(wait), true)
            }
            Verdict::Rest(facts, place, until) => {
                measured.rested();
                job.facts = Ok(Arc::new(facts));
                job.rest = Some(place);
                (until, at.overdue)
            }
        };
        let wait = Wait {
            sequence,
            until,
            overdue,
        };
        done.back = Some((lane, job, wait));
        done
    }

    /// Says that the partition is somebody else's.
    fn lost(&self) {
        let part = self.claim.part;
        tracing::warn!(group = %self.shared.group.name, part, "another instance has the partition");
    }

    fn here(&self) -> Where {
        Where::Part(self.claim.part)
    }

    /// Whether it was settled; else it comes again, and those behind it must not be handled before.
    async fn settle(&self, tag: Tag, settle: Settle, measured: Measured) -> bool {
        let settling = measured.settle(&settle);
        let settled = self.settler.settle(tag, settle);
        let outcome = settling.within(self.while_kept(settled)).await;
        match &outcome {
            Some(Ok(())) => {}
            Some(Err(error)) => {
                tracing::debug!(error = %chain(error), "an event was not settled");
            }
            None => tracing::debug!("an event was not settled before its partition was given back"),
        }
        let settled = matches!(outcome, Some(Ok(())));
        settling.end(settled);
        crash::point("events.c4");
        settled
    }

    /// Waits for something that may take long where the broker takes nothing. A partition that is to be
    /// given back does not wait for that; then none.
    async fn while_kept<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let given_back = async {
            self.give_back.cancelled().await;
            time::sleep(SETTLE_LAST).await;
        };
        tokio::select! {
            biased;
            done = work => Some(done),
            () = given_back => None,
        }
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
        let topic = &message.topic;
        let handler = self.shared.handlers.get(topic);
        let event = handler.map(|it| it.decode(Arc::clone(facts), message.body.clone()));
        match event.transpose() {
            Ok(mut event) => self.attempts(&mut event, topic, facts, at, measured).await,
            Err(error) => {
                let dead = Dead::new(Reason::Malformed, error.to_string(), facts.attempts);
                self.dead(facts, at.held, dead, measured).await
            }
        }
    }

    /// Tries until the event has its effect, is put off, or is given up. There is none where nothing
    /// here handles its type.
    async fn attempts(
        &self,
        event: &mut Option<Box<dyn Ready>>,
        topic: &str,
        facts: &Arc<Facts>,
        at: At,
        measured: &mut Measured,
    ) -> Verdict {
        let (mut made, mut here, mut broken_off) = (facts.attempts, 0, 0);
        let mut away = pauses();
        loop {
            let config = self.shared.config.load();
            let attempt = Attempt::new(made, config.attempts_max, facts.first_seen);
            let tried = self.attempt(event, facts, at, attempt, measured);
            let fault = match tried.await {
                Tried::Applied => {
                    self.shared.shown.fine(self.here());
                    measured.applied(facts);
                    return Verdict::Settle(Settle::Ack, freed(facts, at.held));
                }
                Tried::Known => return self.known(facts, at.held, measured).await,
                Tried::Early => return Verdict::Early,
                Tried::Lost => return Verdict::Lost,
                Tried::Left => return Verdict::Leave,
                Tried::Failed(fault) => Some(fault),
                Tried::Away(error) => {
                    self.shared.shown.database(self.here(), &error);
                    None
                }
                Tried::BrokenOff(error) => {
                    self.shared.shown.database(self.here(), &error);
                    broken_off += 1;
                    if broken_off < BROKEN_OFF_MAX {
                        None
                    } else if let Err(verdict) = self.noted(&[]).await {
                        // Not before the database is there, as it is where an event has its effect.
                        return verdict;
                    } else {
                        Some(Fault::BrokenOff(error))
                    }
                }
            };
            let pause = if let Some(fault) = fault {
                made = made.saturating_add(1);
                here += 1;
                measured.failed(&fault, (topic, &facts.id), made);
                if fault.is_final() || attempt.is_last {
                    let dead = Dead::new(fault.reason(), fault.error(), made);
                    return self.dead(facts, at.held, dead, measured).await;
                }
                if let Some(after) = put_off_for(&config, &fault, made, here) {
                    return self.later(facts, made, after, measured).await;
                }
                config.in_place(here - 1)
            } else {
                away.next_pause()
            };
            if !self.pause(pause).await {
                return Verdict::Leave;
            }
        }
    }

    /// Has the event tried again after a time: at hand, where that is short, or by the broker.
    async fn later(
        &self,
        facts: &Facts,
        made: u32,
        after: Duration,
        measured: &mut Measured,
    ) -> Verdict {
        if after <= self.shared.config.load().rest_max
            && let Ok(place) = Arc::clone(&self.rests).try_acquire_owned()
        {
            let mut facts = Facts::clone(facts);
            facts.attempts = made;
            return Verdict::Rest(facts, place, self.clock.now().after(after));
        }
        self.put_off(facts, made, after, measured).await
    }

    async fn attempt(
        &self,
        event: &mut Option<Box<dyn Ready>>,
        facts: &Facts,
        at: At,
        attempt: Attempt,
        measured: &Measured,
    ) -> Tried {
        let place = self.shared.places.acquire();
        let Some(_place) = self.give_back.run_until_cancelled(place).await else {
            return Tried::Left;
        };
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
        event: &mut Option<Box<dyn Ready>>,
        facts: &Facts,
        at: At,
        attempt: Attempt,
        measured: &Measured,
    ) -> Result<Tried, Error> {
        let inbox = &self.shared.inbox;
        let (entry, last) = inbox.look(self.claim, facts).await?;
        match entry {
            Entry::New => {}
            Entry::Known => return Ok(Tried::Known),
            Entry::Lost => return Ok(Tried::Lost),
        }
        let counted = facts.sequence.filter(|_| self.shared.in_sequence);
        if counted.is_some_and(|sequence| !at.overdue && last + 1 < sequence) {
            return Ok(Tried::Early);
        }
        // It begins with the handler's first statement: whoever waits for a service meanwhile keeps
        // nobody from writing. So what was looked up above holds only by what is entered at the end.
        let mut transaction = inbox.database.begin_lazily("events.consume");
        let handled = self.guarded(event, attempt, &mut transaction, measured);
        if let Err(fault) = handled.await {
            let begun = transaction.has_begun();
            // Nothing is kept in any case; a database that is away says so at the next try.
            drop(transaction.rollback().await);
            return Ok(match fault {
                Fault::Said(Failure::Retry(source)) => by_the_database(source, begun),
                fault => Tried::Failed(fault),
            });
        }
        match self.entered(transaction, facts, at, counted).await {
            Err(error) if error.kind() == Kind::Unavailable => Ok(Tried::BrokenOff(error)),
            entered => entered,
        }
    }

    /// Notes that an event is done, with what its handler wrote.
    async fn entered(
        &self,
        mut transaction: Transaction,
        facts: &Facts,
        at: At,
        counted: Option<u64>,
    ) -> Result<Tried, Error> {
        let inbox = &self.shared.inbox;
        if let Some(sequence) = counted {
            let advanced = inbox.advance(&mut transaction, &facts.lane, sequence);
            advanced.await?;
        }
        if let (true, Some(sequence)) = (at.held, facts.sequence) {
            inbox.free(&mut transaction, &facts.lane, sequence).await?;
        }
        let entered = inbox.enter(&mut transaction, self.claim, facts).await?;
        if entered != Entry::New {
            transaction.rollback().await?;
            return Ok(match entered {
                Entry::Known => Tried::Known,
                _ => Tried::Lost,
            });
        }
        crash::point("events.c2");
        transaction.commit().await?;
        crash::point("events.c3");
        Ok(Tried::Applied)
    }

    /// Has the event handled, within its time, as work that belongs to its trace.
    async fn guarded(
        &self,
        event: &mut Option<Box<dyn Ready>>,
        attempt: Attempt,
        transaction: &mut Transaction,
        measured: &Measured,
    ) -> Result<(), Fault> {
        let Some(event) = event else {
            return Err(Fault::UnknownType);
        };
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
}

/// A handler fails, too, where its database is away, or too busy for its transaction to begin: then the
/// event is not tried out of its attempts.
fn by_the_database(source: gantry::BoxError, begun: bool) -> Tried {
    match source.downcast::<Error>() {
        Ok(error) if !begun || error.kind() == Kind::Full => Tried::Away(*error),
        Ok(error) if error.kind() == Kind::Unavailable => Tried::BrokenOff(*error),
        Ok(error) => Tried::Failed(Fault::Said(Failure::Retry(error))),
        Err(source) => Tried::Failed(Fault::Said(Failure::Retry(source))),
    }
}

/// For how long an event is put off that has failed; none where it is tried again a moment later.
fn put_off_for(config: &Config, fault: &Fault, made: u32, here: u32) -> Option<Duration> {
    if !fault.is_brief() {
        return Some(config.put_off(made - 1));
    }
    let in_place = config.attempts_in_place;
    (here >= in_place).then(|| config.put_off(made / in_place - 1))
}
