//! What a relay asks of the database: one thing at a time, and one more aside.
//!
//! Aside is whatever may take long without being missed: what waits for its turn at a key to which
//! somebody adds all the time, and the upkeep of tables.

use std::{future::pending, pin::Pin, sync::Arc};

use gantry::crash;
use gantry_store::{Error, Timestamp};
use tokio::time::{Duration, Instant};
use uuid::Uuid;

use super::Engine;
use crate::relay::{
    config::LEASE_MAX,
    lane::Tally,
    ledger::{Backlog, Claimed, Ledger, Most, Outcome, Settled},
};

/// How long what has ended is gathered while more is under way, so that it is written down together. Only
/// the next event of a key that had no other waits for that.
const SAVE_PAUSE: Duration = Duration::from_millis(10);
/// The same where more is read than can be under way: then it counts how much is done at once.
const SAVE_PAUSE_MANY: Duration = Duration::from_millis(50);
/// How many events that are done with are gathered at most, in windows.
const GATHERED: usize = 2;
/// How many events are read ahead, in windows, and bytes of their bodies.
const AHEAD: usize = 16;
const AHEAD_BYTES: usize = 16 * 1024 * 1024;
/// How often what is claimed at once may be halved.
const HALVED_MAX: u32 = 16;
/// After how many claims twice as much is tried.
const FINE: u32 = 16;
/// How long somebody may add to a key before their end is waited for.
const PATIENCE: Duration = Duration::from_millis(300);
/// How often the backlog is counted, and after how many times as long as that took at the least.
pub(super) const COUNT_INTERVAL: Duration = Duration::from_secs(5);
/// How often old events are looked for.
pub(super) const PRUNE_INTERVAL: Duration = Duration::from_mins(1);
/// How often times are looked for that are too far away.
pub(super) const NEAR_INTERVAL: Duration = Duration::from_secs(10);

type Asked<A> = Pin<Box<dyn Future<Output = A> + Send>>;

/// What is asked of the database now, and what next.
#[derive(Default)]
pub(super) struct Books {
    asked: Option<Asked<Answer>>,
    aside: Option<Asked<AnswerAside>>,
    /// Whose turn it is, and whose aside.
    turn: usize,
    turn_aside: usize,
    /// What failed last, until it is done.
    pub(super) failing: Option<Kind>,
    /// Whether there are events that can be claimed, as far as is known.
    pub(super) more: bool,
    claims: i64,
    /// How often that which is claimed at once was halved, and how often in a row it was not too much since.
    halved: u32,
    fine: u32,
    /// How often in a row nothing could be claimed of what is due.
    pub(super) nothing: u32,
    /// When it was last asked what is due.
    due_at: Option<Instant>,
    /// When keys were last claimed, where there was room for more of them: whatever was due then and is
    /// still there has been passed over.
    pub(super) swept: Option<Timestamp>,
    /// Whether a key is passed over again and again.
    pub(super) passed_over: bool,
}

/// Kinds of questions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Leave,
    Enter,
    Renew,
    Save,
    Look,
}

/// Kinds of questions that are asked aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Aside {
    /// To give back a key to which somebody adds all the time.
    Give,
    /// To claim such a one.
    Take,
    Count,
    Prune,
    Near,
}

/// Those that take turns, so that none has to wait for ever.
const TURNS: [Kind; 2] = [Kind::Save, Kind::Look];
const TURNS_ASIDE: [Aside; 5] = [
    Aside::Give,
    Aside::Take,
    Aside::Count,
    Aside::Prune,
    Aside::Near,
];

/// What came of a question.
pub(super) enum Answer {
    Left(Result<(), Error>),
    /// The name that it is known by now, and since when.
    Entered(String, Instant, Result<(), Error>),
    /// Whether it still is.
    Renewed(Instant, Result<bool, Error>),
    Saved(Vec<Outcome>, Result<Vec<Settled>, Error>),
    Looked(Result<Look, Error>),
    /// What was asked for, and perhaps had.
    NotClaimed(Error),
    Aside(AnswerAside),
}

/// What came of a question that was asked aside.
pub(super) enum AnswerAside {
    /// What has become of a key for which somebody waited.
    Given(Outcome, Result<Settled, Error>),
    /// A key for which somebody waited.
    Taken(Result<Vec<Claimed>, Error>),
    Counted(Duration, Result<Backlog, Error>),
    Pruned(Result<u64, Error>),
    BroughtNear(Result<u64, Error>),
}

/// What there is to publish.
pub(super) enum Look {
    /// Nothing before that time, where it is known.
    Later(Option<Timestamp>),
    Now(Seen),
}

/// What was claimed.
pub(super) struct Seen {
    pub(super) claimed: Vec<Claimed>,
    /// How many keys were asked for.
    pub(super) keys_max: usize,
    pub(super) at: Timestamp,
    /// Whether one that is due has been passed over for long.
    pub(super) passed_over: bool,
}

impl Books {
    /// What comes of what was asked; for ever nothing where nothing was. Cancel-safe.
    pub(super) async fn answer(&mut self) -> Answer {
        // Both stay where they are until they are answered.
        tokio::select! {
            biased;
            answer = of(&mut self.asked) => answer,
            answer = of(&mut self.aside) => Answer::Aside(answer),
        }
    }

    pub(super) fn are_asked(&self) -> bool {
        self.asked.is_some()
    }

    /// Waits no more for what is asked aside: it happens or not.
    pub(super) fn leave_aside(&mut self) {
        self.aside = None;
    }

    /// There may be events that were not there before.
    pub(super) fn sees_more(&mut self) {
        self.more = true;
    }

    /// As much at once as that may be too much.
    pub(super) fn claims_less(&mut self) {
        self.halved = (self.halved + 1).min(HALVED_MAX);
        self.fine = 0;
    }

    /// As much at once as that is not; more is tried after a while.
    pub(super) fn claims_more(&mut self) {
        self.fine += 1;
        if self.fine >= FINE {
            self.halved = self.halved.saturating_sub(1);
            self.fine = 0;
        }
    }
}

/// What comes of one question. Cancel-safe.
async fn of<A>(asked: &mut Option<Asked<A>>) -> A {
    let Some(answer) = asked else {
        return pending().await;
    };
    let answer = answer.await;
    *asked = None;
    answer
}

impl<L: Ledger> Engine<L> {
    /// Asks the next things, where nothing is asked and something is to be.
    pub(super) fn ask(&mut self) {
        let now = Instant::now();
        if now < self.timers.away_until {
            return;
        }
        if self.books.asked.is_none()
            && let Some(kind) = self.of_session(now).or_else(|| self.in_turn(now))
        {
            self.books.asked = Some(self.question(kind, now));
        }
        if self.books.aside.is_none()
            && let Some(kind) = self.in_turn_aside(now)
        {
            self.books.aside = self.question_aside(kind, now);
        }
    }

    fn in_turn(&mut self, now: Instant) -> Option<Kind> {
        let turn = next_turn(&TURNS, self.books.turn, |kind| self.at(kind), now)?;
        self.books.turn = turn + 1;
        Some(TURNS[turn])
    }

    fn in_turn_aside(&mut self, now: Instant) -> Option<Aside> {
        let at = |kind| self.at_aside(kind);
        let turn = next_turn(&TURNS_ASIDE, self.books.turn_aside, at, now)?;
        self.books.turn_aside = turn + 1;
        Some(TURNS_ASIDE[turn])
    }

    /// When something is to be asked, if nothing happens before.
    pub(super) fn ask_at(&self, now: Instant) -> Instant {
        // Where something is asked, the answer comes first.
        let mut next_at = now + COUNT_INTERVAL;
        if self.books.asked.is_none() {
            let turns = TURNS.into_iter().filter_map(|kind| self.at(kind));
            next_at = turns.fold(self.session.renew_at.min(next_at), Instant::min);
        }
        if self.books.aside.is_none() {
            let turns = TURNS_ASIDE.into_iter();
            let turns = turns.filter_map(|kind| self.at_aside(kind));
            next_at = turns.fold(next_at, Instant::min);
        }
        next_at.max(self.timers.away_until)
    }

    /// What is to be asked before all else: others have to know this relay, or no more.
    fn of_session(&self, now: Instant) -> Option<Kind> {
        let session = &self.session;
        if session.ending && self.lanes.is_empty() {
            return Some(Kind::Leave);
        }
        if !session.known {
            return Some(Kind::Enter);
        }
        (now >= session.renew_at).then_some(Kind::Renew)
    }

    /// When something of that kind is to be asked; none where it is not.
    fn at(&self, kind: Kind) -> Option<Instant> {
        match kind {
            Kind::Save => self.save_at(),
            Kind::Look => self.may_look().then_some(self.timers.look_at),
            Kind::Leave | Kind::Enter | Kind::Renew => None,
        }
    }

    fn at_aside(&self, kind: Aside) -> Option<Instant> {
        let timers = &self.timers;
        match kind {
            Aside::Give => {
                let (_, since) = self.lanes.busiest()?;
                Some((since + PATIENCE).max(timers.patience_at))
            }
            Aside::Take => {
                let wanted = self.books.passed_over && self.may_claim();
                wanted.then_some(timers.patience_at)
            }
            Aside::Count => Some(timers.count_at),
            Aside::Prune => Some(timers.prune_at),
            Aside::Near => Some(timers.near_at),
        }
    }

    fn save_at(&self) -> Option<Instant> {
        let Tally { done, ended, .. } = self.lanes.tally();
        if done == 0 && ended == 0 {
            return None;
        }
        let window = self.window();
        let enough = ended >= window / 2 || done >= GATHERED * window;
        let pause = if enough || self.under_way.is_empty() {
            Duration::ZERO
        } else if self.waiting.is_empty() {
            SAVE_PAUSE
        } else {
            SAVE_PAUSE_MANY
        };
        Some(self.timers.save_at + pause)
    }

    fn window(&self) -> usize {
        self.config.read(|config| usize::from(config.window))
    }

    /// Whether so few events are read ahead that more are to be: early, as what is done with each key
    /// comes to its end at about the same time. However many there are of few keys, others do not wait.
    fn may_look(&self) -> bool {
        let window = self.window();
        let is_little = self.lanes.tally().left < AHEAD / 2 * window;
        let are_few = self.waiting.len() < window / 2 && self.lanes.len() < 2 * window;
        (is_little || are_few) && self.may_claim()
    }

    fn may_claim(&self) -> bool {
        let room = self.lanes.tally().bytes < AHEAD_BYTES / 2;
        let may = self.session.known && !self.session.ending;
        room && may && !self.holds.all_wait(Instant::now())
    }

    /// How much may be claimed at once, where keys may be.
    fn most(&self) -> Most {
        let Tally { left, bytes, .. } = self.lanes.tally();
        let (window, halved) = (self.window(), self.books.halved);
        let keys = (window >> halved).max(1);
        let events = (AHEAD * window).saturating_sub(left);
        Most {
            keys,
            events: (events >> halved).max(keys),
            bytes: AHEAD_BYTES.saturating_sub(bytes),
        }
    }

    fn question(&mut self, kind: Kind, now: Instant) -> Asked<Answer> {
        let ledger = Arc::clone(&self.ledger);
        let relay = self.session.name.clone();
        let until = ledger.now().after(self.config.read(|config| config.lease));
        match kind {
            Kind::Leave => Box::pin(async move { Answer::Left(ledger.leave(&relay).await) }),
            Kind::Enter => {
                // Under another name where it fails: whether this one is known then is not.
                self.session.name = Uuid::now_v7().to_string();
                Box::pin(async move {
                    let entered = ledger.enter(&relay, until).await;
                    Answer::Entered(relay, now, entered)
                })
            }
            Kind::Renew => Box::pin(async move {
                let renewed = ledger.renew(&relay, ledger.now(), until).await;
                Answer::Renewed(now, renewed)
            }),
            Kind::Save => {
                let outcomes = self.outcomes();
                Box::pin(async move {
                    let written = ledger.settle(&relay, &outcomes).await;
                    Answer::Saved(outcomes, written)
                })
            }
            Kind::Look => self.look(ledger, relay),
        }
    }

    fn question_aside(&mut self, kind: Aside, now: Instant) -> Option<Asked<AnswerAside>> {
        let ledger = Arc::clone(&self.ledger);
        let relay = self.session.name.clone();
        Some(match kind {
            Aside::Give => {
                let key = self.lanes.busiest()?.0.to_owned();
                let outcome = self.lanes.change(&key, |lane| {
                    lane.wait(true);
                    lane.outcome()
                })?;
                Box::pin(async move {
                    let given = ledger.settle_patiently(&relay, &outcome).await;
                    AnswerAside::Given(outcome, given)
                })
            }
            Aside::Take => {
                self.books.passed_over = false;
                self.books.claims += 1;
                let (claim, most) = (self.books.claims, self.most());
                Box::pin(async move {
                    AnswerAside::Taken(ledger.claim_patiently(&relay, claim, most).await)
                })
            }
            Aside::Count => {
                self.timers.count_at = now + COUNT_INTERVAL;
                Box::pin(async move {
                    let backlog = ledger.backlog().await;
                    AnswerAside::Counted(now.elapsed(), backlog)
                })
            }
            Aside::Prune => {
                self.timers.prune_at = now + PRUNE_INTERVAL;
                let retention = self.config.read(|config| config.retention);
                Box::pin(async move {
                    let before = ledger.now().before(retention);
                    AnswerAside::Pruned(ledger.prune(before).await)
                })
            }
            Aside::Near => {
                self.timers.near_at = now + NEAR_INTERVAL;
                let pause_max = self.config.read(|config| config.pause_max);
                Box::pin(async move {
                    let (due, known) =
                        (ledger.now().after(pause_max), ledger.now().after(LEASE_MAX));
                    AnswerAside::BroughtNear(ledger.bring_near(due, known).await)
                })
            }
        })
    }

    /// What is to be written down, all together.
    pub(super) fn outcomes(&self) -> Vec<Outcome> {
        let outcomes = self.lanes.unsaved();
        if outcomes.iter().any(|outcome| outcome.before < outcome.sent) {
            crash::point("events.p5");
        }
        outcomes
    }

    /// Claims what is due, as far as there is room.
    fn look(&mut self, ledger: Arc<L>, relay: String) -> Asked<Answer> {
        let now = Instant::now();
        // Whoever tells of events meanwhile has it looked at again.
        self.timers.look_at = now + COUNT_INTERVAL;
        let most = self.most();
        let mut is_known = std::mem::take(&mut self.books.more);
        // What is passed over shows only where it is asked for.
        let asked_before = self.books.due_at.map(|at| now.duration_since(at));
        if asked_before.is_none_or(|before| before >= PATIENCE) {
            is_known = false;
        }
        if !is_known {
            self.books.due_at = Some(now);
        }
        let swept = self.books.swept;
        self.books.claims += 1;
        let claim = self.books.claims;
        Box::pin(async move {
            let at = ledger.now();
            let mut passed_over = false;
            if !is_known {
                // Asking costs nobody their turn at writing.
                match ledger.due().await {
                    Ok(Some(due)) if due <= at => {
                        passed_over =
                            swept.is_some_and(|swept| due <= swept) && due.after(PATIENCE) <= at;
                    }
                    Ok(later) => return Answer::Looked(Ok(Look::Later(later))),
                    Err(error) => return Answer::Looked(Err(error)),
                }
            }
            match ledger.claim(&relay, claim, most).await {
                Ok(claimed) => Answer::Looked(Ok(Look::Now(Seen {
                    claimed,
                    keys_max: most.keys,
                    at,
                    passed_over,
                }))),
                Err(error) => Answer::NotClaimed(error),
            }
        })
    }
}

/// Whose turn it is of those that have something to ask by now, from `first` on.
fn next_turn<K: Copy>(
    turns: &[K],
    first: usize,
    at: impl Fn(K) -> Option<Instant>,
    now: Instant,
) -> Option<usize> {
    let turns_on = (0..turns.len()).map(|step| (first + step) % turns.len());
    turns_on
        .into_iter()
        .find(|turn| at(turns[*turn]).is_some_and(|at| at <= now))
}
