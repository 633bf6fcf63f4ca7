//! A relay at work: one task that owns what is claimed, under way, and held up.

use std::{
    collections::{HashMap, VecDeque},
    pin::Pin,
    sync::Arc,
};

use futures_util::{FutureExt as _, StreamExt as _, stream::FuturesUnordered};
use gantry::{
    backoff::{self, Backoff},
    config::Live,
    crash,
};
use gantry_store::{Error, Timestamp};
use tokio::{
    sync::Notify,
    time::{self, Duration, Instant},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    Config, Unroutable,
    holds::{Attempt, Holds, Pass, Reason},
    lane::Lane,
    ledger::{Ledger, Release, Settled},
    report::{Published, Report},
    session::{Session, Timers},
};
use crate::{
    Message,
    broker::{Broker, PublishError},
};

/// Pauses while the database does not do what it is asked.
const AWAY: backoff::Config = backoff::Config {
    min: Duration::from_millis(100),
    max: Duration::from_secs(5),
    multiplier: 2.0,
    jitter: 0.2,
};
/// When to come back to a key that somebody is adding to.
const TAKEN_PAUSE: Duration = Duration::from_millis(20);
/// How often the backlog is counted, and after how many times as long as that took at the least.
const COUNT_INTERVAL: Duration = Duration::from_secs(5);
const COUNT_SHARE: u32 = 50;
/// How often old events are looked for, and how soon again while there are some.
const PRUNE_INTERVAL: Duration = Duration::from_mins(1);
const PRUNE_PAUSE: Duration = Duration::from_millis(100);
/// How long events under way are waited for at the end: less than a process gives its tasks.
const STOP_MAX: Duration = Duration::from_secs(1);
/// How long after a publication began tests have the process end in its midst.
const UNDER_WAY: Duration = Duration::from_millis(1);

/// A publication that has ended.
struct Done {
    key: String,
    message: Message,
    attempt: u64,
    outcome: Result<(), PublishError>,
}

/// A relay at work.
pub(super) struct Engine<L> {
    ledger: L,
    broker: Arc<dyn Broker>,
    config: Live<Config>,
    wake: Arc<Notify>,
    report: Report,
    session: Session,
    timers: Timers,
    away: Backoff,
    /// What is claimed, by key.
    lanes: HashMap<String, Lane>,
    /// Keys whose next event is not under way.
    waiting: VecDeque<String>,
    under_way: FuturesUnordered<Pin<Box<dyn Future<Output = Done> + Send>>>,
    holds: Holds,
    attempts: u64,
    claims: i64,
}

impl<L: Ledger> Engine<L> {
    pub(super) fn new(
        ledger: L,
        broker: Arc<dyn Broker>,
        config: Live<Config>,
        wake: Arc<Notify>,
        report: Report,
    ) -> Self {
        Self {
            ledger,
            broker,
            config,
            wake,
            report,
            session: Session::new(),
            timers: Timers::new(),
            away: Backoff::new(AWAY).expect("the pauses are above zero and grow"),
            lanes: HashMap::new(),
            waiting: VecDeque::new(),
            under_way: FuturesUnordered::new(),
            holds: Holds::default(),
            attempts: 0,
            claims: 0,
        }
    }

    pub(super) async fn run(mut self, stopping: CancellationToken) {
        while !stopping.is_cancelled() {
            self.step().await;
            let next_at = self.next_at();
            // Cancel-safe: what has ended stays among those under way until it is taken from there, and
            // a notice that is not heard is kept.
            tokio::select! {
                biased;
                () = stopping.cancelled() => {}
                Some(done) = self.under_way.next() => self.ended(done),
                () = self.wake.notified() => self.timers.look_at = Instant::now(),
                () = time::sleep_until(next_at) => {}
            }
            self.collect();
        }
        self.stop().await;
    }

    /// Notes whatever else has ended meanwhile, so that it is written down together.
    fn collect(&mut self) {
        while let Some(Some(done)) = self.under_way.next().now_or_never() {
            self.ended(done);
        }
    }

    /// Does what there is to do now.
    async fn step(&mut self) {
        if Instant::now() >= self.timers.away_until {
            match self.keep_books().await {
                Ok(()) => {
                    self.away.reset();
                    self.report.database(None);
                }
                Err(error) => {
                    self.report.database(Some(&error));
                    self.timers.away_until = Instant::now() + self.away.next_pause();
                }
            }
        }
        self.start();
        if self.report.is_waiting() {
            self.report.still(&self.holds.reasons(), Instant::now());
        }
    }

    /// Everything that is asked of the database, one after the other.
    async fn keep_books(&mut self) -> Result<(), Error> {
        self.stay_known().await?;
        self.save().await?;
        self.look().await?;
        self.tidy().await
    }

    /// When there is something to do again, if nothing happens before.
    fn next_at(&self) -> Instant {
        let now = Instant::now();
        if now < self.timers.away_until {
            return self.timers.away_until;
        }
        let mut next_at = self.session.renew_at.min(self.timers.count_at);
        next_at = next_at.min(self.timers.prune_at);
        if self.lanes.values().any(|lane| lane.unsaved().is_some()) {
            next_at = next_at.min(self.timers.save_at);
        }
        if self.may_look(now) {
            next_at = next_at.min(self.timers.look_at);
        }
        match self.holds.all_until() {
            Some(until) if until > now => next_at.min(until),
            _ => next_at,
        }
    }

    /// Keeps this relay known to others; begins anew where it is not any more.
    async fn stay_known(&mut self) -> Result<(), Error> {
        let now = Instant::now();
        if self.session.ending && self.lanes.is_empty() {
            self.ledger.leave(&self.session.name).await?;
            self.session = Session::new();
        }
        if now < self.session.renew_at {
            return Ok(());
        }
        let lease = self.config.read(|config| config.lease);
        let (clock, until) = (self.ledger.now(), self.ledger.now().after(lease));
        if self.session.known && !self.ledger.renew(&self.session.name, clock, until).await? {
            self.report.passed_by();
            self.give_up();
        }
        if !self.session.known {
            // Under another name where it fails: whether this one is known then is not.
            let name = std::mem::replace(&mut self.session.name, Uuid::now_v7().to_string());
            self.ledger.enter(&name, until).await?;
            self.session.name = name;
            self.session.known = true;
        }
        self.session.until = now + lease;
        self.session.renew_at = now + lease / 3;
        Ok(())
    }

    /// Forgets what was claimed: others have it.
    fn give_up(&mut self) {
        self.session = Session::new();
        self.lanes.clear();
        self.waiting.clear();
        self.under_way = FuturesUnordered::new();
        self.holds.abandon();
    }

    /// Writes down what is done with, all together.
    async fn save(&mut self) -> Result<(), Error> {
        let outcomes: Vec<_> = self.lanes.values().filter_map(Lane::unsaved).collect();
        if outcomes.is_empty() {
            return Ok(());
        }
        if outcomes.iter().any(|outcome| outcome.before < outcome.sent) {
            crash::point("events.p5");
        }
        let written = self.ledger.settle(&self.session.name, &outcomes).await?;
        for (outcome, written) in outcomes.iter().zip(written) {
            let Some(lane) = self.lanes.get_mut(&outcome.key) else {
                continue;
            };
            match written {
                Settled::Busy => self.timers.save_at = Instant::now() + TAKEN_PAUSE,
                Settled::Written if !lane.saved() => {}
                Settled::Written | Settled::Lost => drop(self.lanes.remove(&outcome.key)),
            }
        }
        Ok(())
    }

    fn room(&self) -> usize {
        let window = self.config.read(|config| usize::from(config.window));
        window.saturating_sub(self.lanes.len())
    }

    fn may_look(&self, now: Instant) -> bool {
        !self.session.ending && self.room() > 0 && !self.holds.all_wait(now)
    }

    /// Claims what is due, as far as there is room.
    async fn look(&mut self) -> Result<(), Error> {
        let now = Instant::now();
        if now < self.timers.look_at || !self.may_look(now) {
            return Ok(());
        }
        let config = self.config.load();
        let due = self.ledger.due().await?;
        let in_time = due.map(|due| until(self.ledger.now(), due));
        match in_time {
            Some(Duration::ZERO) => {}
            later => {
                let pause = later.unwrap_or(config.look_interval);
                self.timers.look_at = now + pause.min(config.look_interval);
                return Ok(());
            }
        }
        self.claims += 1;
        let (relay, window) = (&self.session.name, usize::from(config.window));
        let claiming = self.ledger.claim(relay, self.claims, self.room(), window);
        let claimed = match claiming.await {
            Ok(claimed) => claimed,
            Err(error) => {
                // It may have been done all the same.
                self.session.ending = true;
                return Err(error);
            }
        };
        if claimed.is_empty() {
            self.timers.look_at = now + TAKEN_PAUSE;
        }
        for claimed in claimed {
            if self.lanes.contains_key(&claimed.key) {
                continue;
            }
            let key = claimed.key.clone();
            let mut lane = Lane::new(claimed);
            if lane.next().is_some() {
                self.waiting.push_back(key.clone());
            } else {
                Report::gap();
                let due_at = self.ledger.now().after(config.pause_max);
                let tries = lane.tries();
                lane.end(Release { due_at, tries });
            }
            self.lanes.insert(key, lane);
        }
        Ok(())
    }

    /// Counts what waits, and forgets what is old.
    async fn tidy(&mut self) -> Result<(), Error> {
        let now = Instant::now();
        if now >= self.timers.count_at {
            self.timers.count_at = now + COUNT_INTERVAL;
            let backlog = self.ledger.backlog().await?;
            // A table of millions is not counted all the time.
            let took = now.elapsed();
            self.timers.count_at = now + COUNT_INTERVAL.max(COUNT_SHARE * took);
            self.report.backlog(backlog, self.ledger.now());
        }
        if now >= self.timers.prune_at {
            self.timers.prune_at = now + PRUNE_INTERVAL;
            let retention = self.config.read(|config| config.retention);
            let before = self.ledger.now().before(retention);
            if self.ledger.prune(before).await? > 0 {
                self.timers.prune_at = now + PRUNE_PAUSE;
            }
        }
        Ok(())
    }

    /// Publishes what waits, as far as it may.
    fn start(&mut self) {
        let now = Instant::now();
        let window = self.config.read(|config| usize::from(config.window));
        // Others may have claimed the same since.
        while now < self.session.until && self.under_way.len() < window {
            let Some(key) = self.waiting.pop_front() else {
                return;
            };
            let Some(lane) = self.lanes.get_mut(&key) else {
                continue;
            };
            let Some(event) = lane.next() else { continue };
            match self.holds.pass(&event.message, self.attempts, now) {
                Pass::Go => {
                    let message = event.message.clone();
                    self.publish(key, message);
                }
                Pass::AllWait => {
                    self.waiting.push_front(key);
                    return;
                }
                Pass::Wait(until) => {
                    let due_at = self.ledger.now().after(until.duration_since(now));
                    let tries = lane.tries();
                    lane.end(Release { due_at, tries });
                    self.timers.save_at = now;
                }
            }
        }
    }

    fn publish(&mut self, key: String, message: Message) {
        crash::point("events.p3");
        let attempt = self.attempts;
        self.attempts += 1;
        if let Some(lane) = self.lanes.get_mut(&key) {
            lane.begin(attempt);
        }
        let broker = Arc::clone(&self.broker);
        self.under_way.push(Box::pin(async move {
            let publish = broker.publish(message.clone());
            let outcome = crash::soon_amid("events.p4", UNDER_WAY, publish).await;
            Done {
                key,
                message,
                attempt,
                outcome,
            }
        }));
    }

    /// Notes how a publication ended.
    fn ended(&mut self, done: Done) {
        let now = Instant::now();
        self.timers.save_at = now;
        let config = self.config.load();
        match &done.outcome {
            Ok(()) => {
                self.holds.taken(&done.message);
                self.report.published(Published::Sent);
                self.go_on(done, false);
            }
            Err(PublishError::Unroutable) if config.unroutable == Unroutable::Drop => {
                self.holds.taken(&done.message);
                self.report.dropped(&done.message.topic);
                self.go_on(done, true);
            }
            Err(error) => {
                self.report.waits(&done.message.topic, error);
                let reason = Reason::of(error);
                self.wait(done, reason, &config.pauses(), now);
            }
        }
    }

    /// The next event of a key is done with.
    fn go_on(&mut self, done: Done, was_dropped: bool) {
        let Some(lane) = self.lanes.get_mut(&done.key) else {
            return;
        };
        if !lane.end_attempt(done.attempt) {
            return;
        }
        if lane.done(was_dropped) {
            self.waiting.push_back(done.key);
        } else {
            // Behind all others that are due.
            let due_at = self.ledger.now();
            lane.end(Release { due_at, tries: 0 });
        }
    }

    /// The next event of a key was not taken.
    fn wait(&mut self, done: Done, reason: Reason, pauses: &backoff::Config, now: Instant) {
        let attempt = Attempt {
            number: done.attempt,
            next: self.attempts,
            now,
        };
        let until = self.holds.failed(&done.message, reason, attempt, pauses);
        let Some(lane) = self.lanes.get_mut(&done.key) else {
            return;
        };
        if !lane.end_attempt(done.attempt) {
            return;
        }
        if reason.is_for_all() {
            // It says nothing of this event: it is the first when it goes on.
            self.waiting.push_front(done.key);
            return;
        }
        let tries = lane.tries();
        let pause = until.duration_since(now).max(pauses.pause_after(tries));
        lane.end(Release {
            due_at: self.ledger.now().after(pause),
            tries: tries.saturating_add(1),
        });
    }

    /// Waits for what is under way, writes it down, and gives back what is claimed.
    async fn stop(mut self) {
        let until = Instant::now() + STOP_MAX;
        while let Ok(Some(done)) = time::timeout_at(until, self.under_way.next()).await {
            self.ended(done);
        }
        let mut outcome = self.save().await;
        if outcome.is_ok() && self.session.known {
            outcome = self.ledger.leave(&self.session.name).await;
        }
        if let Err(error) = outcome {
            self.report.database(Some(&error));
        }
    }
}

/// How long it is until `then`; nothing where that is past.
fn until(now: Timestamp, then: Timestamp) -> Duration {
    let micros = then.micros().saturating_sub(now.micros());
    Duration::from_micros(u64::try_from(micros).unwrap_or_default())
}
