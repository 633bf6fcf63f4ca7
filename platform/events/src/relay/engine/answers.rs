//! What a relay makes of what the database answers.

use gantry_store::{Error, Kind as Failing, Timestamp};
use tokio::time::{Duration, Instant};

use super::{
    Engine,
    books::{Answer, AnswerAside, COUNT_INTERVAL, Kind, Look, NEAR_INTERVAL, PRUNE_INTERVAL, Seen},
};
use crate::relay::{
    lane::Lane,
    ledger::{Claimed, Ledger, Outcome, Settled},
    report::{Report, Upkeep},
    session::Session,
};

/// When to come back to a key that somebody is adding to, the first time, and how often that doubles.
const TAKEN_PAUSE: Duration = Duration::from_millis(20);
const TAKEN_DOUBLES: u32 = 5;
/// When to wait again for somebody who has a key for longer than anybody waits.
const WAITED_PAUSE: Duration = Duration::from_secs(1);
/// After how many times as long as it took the backlog is counted again, and after how long at the latest.
const COUNT_SHARE: u32 = 50;
const COUNT_PAUSE_MAX: Duration = Duration::from_mins(1);
/// How soon it is gone on with what is done bit by bit.
const NEXT_PAUSE: Duration = Duration::from_millis(100);

impl<L: Ledger> Engine<L> {
    /// Takes in what came of what was asked.
    pub(super) fn answered(&mut self, answer: Answer) {
        let (kind, outcome) = match answer {
            Answer::Left(left) => (
                Kind::Leave,
                left.map(|()| {
                    self.session = Session::new();
                    self.books.leave_aside();
                }),
            ),
            Answer::Entered(name, since, entered) => (
                Kind::Enter,
                entered.map(|()| {
                    self.session.name = name;
                    self.session.known = true;
                    self.known(since);
                }),
            ),
            Answer::Renewed(since, known) => (
                Kind::Renew,
                known.map(|known| {
                    if known {
                        self.known(since);
                    } else {
                        self.report.passed_by();
                        self.give_up();
                    }
                }),
            ),
            Answer::Saved(outcomes, written) => (
                Kind::Save,
                written.map(|written| self.saved(&outcomes, &written)),
            ),
            Answer::Looked(seen) => (Kind::Look, seen.map(|seen| self.seen(seen))),
            Answer::NotClaimed(error) => {
                self.not_claimed(&error);
                (Kind::Look, Err(error))
            }
            Answer::Aside(answer) => return self.answered_aside(answer),
        };
        let begins = kind == Kind::Enter;
        match outcome {
            Ok(()) if self.books.failing.is_none_or(|it| it == kind || begins) => {
                self.books.failing = None;
                self.away.reset();
                self.report.database(None);
            }
            Ok(()) => {}
            Err(error) => {
                self.books.failing = Some(kind);
                self.report.database(Some(&error));
                self.timers.away_until = Instant::now() + self.away.next_pause();
                if kind == Kind::Look {
                    self.timers.look_at = self.timers.away_until;
                }
            }
        }
    }

    /// What fails aside is tried again by itself, and holds up nothing else.
    fn answered_aside(&mut self, answer: AnswerAside) {
        let now = Instant::now();
        match answer {
            AnswerAside::Given(outcome, given) => {
                self.lanes.change(&outcome.key, |lane| lane.wait(false));
                match given {
                    Ok(settled) => self.settled(&outcome, settled),
                    Err(_) => self.timers.patience_at = now + WAITED_PAUSE,
                }
            }
            AnswerAside::Taken(taken) => match taken {
                Ok(claimed) => claimed.into_iter().for_each(|it| self.take(it)),
                Err(error) => {
                    self.timers.patience_at = now + WAITED_PAUSE;
                    if error.kind() != Failing::Busy {
                        self.not_claimed(&error);
                    }
                }
            },
            AnswerAside::Counted(took, backlog) => {
                self.report.upkeep(Upkeep::Count, backlog.as_ref().err());
                // A table of millions is not counted all the time.
                let pause = backlog
                    .as_ref()
                    .map_or(Duration::ZERO, |_| COUNT_SHARE * took);
                self.timers.count_at = now + COUNT_INTERVAL.max(pause.min(COUNT_PAUSE_MAX));
                if let Ok(backlog) = backlog {
                    self.report.backlog(backlog, self.ledger.now());
                }
            }
            AnswerAside::Pruned(pruned) => {
                self.report.upkeep(Upkeep::Prune, pruned.as_ref().err());
                self.timers.prune_at = now + again(&pruned, PRUNE_INTERVAL);
            }
            AnswerAside::BroughtNear(brought) => {
                self.report.upkeep(Upkeep::Near, brought.as_ref().err());
                self.timers.near_at = now + again(&brought, NEAR_INTERVAL);
            }
        }
    }

    /// It may have been done all the same.
    fn not_claimed(&mut self, error: &Error) {
        self.session.ending = true;
        // Whoever has no connection, or no database, reads no sooner what is less.
        if !matches!(error.kind(), Failing::Busy | Failing::Unavailable) {
            self.books.claims_less();
        }
    }

    /// It has been known to others since then.
    fn known(&mut self, since: Instant) {
        let lease = self.config.read(|config| config.lease);
        self.session.until = since + lease;
        self.session.renew_at = since + lease / 3;
    }

    /// Forgets what was claimed: others have it.
    fn give_up(&mut self) {
        self.session = Session::new();
        self.lanes.clear();
        self.waiting.clear();
        self.under_way.clear();
        self.books.leave_aside();
        self.holds.abandon();
    }

    fn saved(&mut self, outcomes: &[Outcome], written: &[Settled]) {
        self.timers.save_at = Instant::now();
        for (outcome, written) in outcomes.iter().zip(written) {
            self.settled(outcome, *written);
        }
    }

    fn settled(&mut self, outcome: &Outcome, written: Settled) {
        let now = Instant::now();
        let ends = self.lanes.change(&outcome.key, |lane| match written {
            Settled::Busy => {
                lane.busy(now);
                false
            }
            Settled::Written => lane.saved(outcome),
            Settled::Lost => true,
        });
        if ends == Some(true) {
            self.lanes.remove(&outcome.key);
        }
        if written == Settled::Busy {
            self.timers.save_at = now + TAKEN_PAUSE;
        }
    }

    fn seen(&mut self, seen: Look) {
        let now = Instant::now();
        let look_at = match seen {
            Look::Later(due) => {
                self.books.swept = None;
                let interval = self.config.read(|config| config.look_interval);
                let in_time = due.map_or(interval, |due| until(self.ledger.now(), due));
                now + in_time.min(interval)
            }
            Look::Now(seen) => now + self.claimed(seen),
        };
        self.timers.look_at = self.timers.look_at.min(look_at);
    }

    /// Takes up what was claimed; answers when to look for more.
    fn claimed(&mut self, seen: Seen) -> Duration {
        let Seen {
            claimed,
            keys_max,
            at,
            passed_over,
        } = seen;
        self.books.passed_over |= passed_over;
        let room = claimed.len() < keys_max;
        self.books.swept = room.then_some(at);
        if claimed.is_empty() {
            let doubles = self.books.nothing.min(TAKEN_DOUBLES);
            self.books.nothing += 1;
            let interval = self.config.read(|config| config.look_interval);
            return (TAKEN_PAUSE * 2_u32.pow(doubles)).min(interval.max(TAKEN_PAUSE));
        }
        self.books.nothing = 0;
        self.books.more |= !room;
        if claimed.iter().any(|claimed| claimed.unread) {
            self.books.claims_less();
        } else {
            self.books.claims_more();
        }
        for claimed in claimed {
            self.take(claimed);
        }
        Duration::ZERO
    }

    /// Takes up the events of a key.
    fn take(&mut self, claimed: Claimed) {
        if self.lanes.contains(&claimed.key) {
            return;
        }
        let (key, unread) = (claimed.key.clone(), claimed.unread);
        let mut lane = Lane::new(claimed);
        if lane.next().is_some() {
            self.waiting.push_back(key.clone());
        } else {
            let mut due_at = self.ledger.now();
            if !unread {
                Report::gap();
                due_at = due_at.after(self.config.read(|config| config.pause_max));
            }
            lane.put_off(due_at);
        }
        self.lanes.insert(key, lane);
    }

    /// Writes down what is not yet, and gives back what is claimed.
    pub(super) async fn close(&mut self) -> Result<(), Error> {
        let outcomes = self.outcomes();
        let relay = &self.session.name;
        if !outcomes.is_empty() {
            self.ledger.settle(relay, &outcomes).await?;
        }
        if self.session.known {
            self.ledger.leave(relay).await?;
        }
        Ok(())
    }
}

/// How long it is until `then`; nothing where that is past.
fn until(now: Timestamp, then: Timestamp) -> Duration {
    let micros = then.micros().saturating_sub(now.micros());
    Duration::from_micros(u64::try_from(micros).unwrap_or_default())
}

/// When it is gone on with what is done bit by bit: soon where something was done, and with the next
/// interval where nothing was left.
fn again(done: &Result<u64, Error>, interval: Duration) -> Duration {
    match done {
        Ok(1..) => NEXT_PAUSE,
        _ => interval,
    }
}
