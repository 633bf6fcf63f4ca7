//! A relay at work: one task that owns what is claimed, under way, and held up.
//!
//! It asks the database one thing at a time, and publishes meanwhile: neither waits for the other as long
//! as there is something to publish, and room for what is read ahead. What may take long is asked aside,
//! and holds up neither.

mod answers;
mod books;

use std::{collections::VecDeque, future, pin::Pin, sync::Arc};

use futures_util::{FutureExt as _, StreamExt as _, stream::FuturesUnordered};
use gantry::{
    backoff::{self, Backoff},
    config::Live,
    crash,
};
use tokio::{
    sync::Notify,
    task,
    time::{self, Duration, Instant},
};
use tokio_util::sync::CancellationToken;

use self::books::Books;
use super::{
    Config, Unroutable,
    gate::Gate,
    holds::{Attempt, Holds, Pass, Reason},
    lanes::Lanes,
    ledger::{Ledger, Release},
    report::{self, Published, Report},
    session::{Session, Timers},
    shown::PutOff,
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
/// How often what waits is shown anew.
const SHOW_INTERVAL: Duration = Duration::from_millis(500);
/// How long events under way are waited for at the end: less than a process gives its tasks.
const STOP_MAX: Duration = Duration::from_secs(1);
/// How long after a publication began tests have the process end in its midst.
const UNDER_WAY: Duration = Duration::from_millis(1);

/// Publications that have ended and are noted before those that follow go out.
const TOGETHER: usize = 16;

/// A publication that has ended.
struct Done {
    message: Arc<Message>,
    attempt: u64,
    outcome: Result<(), PublishError>,
}

type Publication = Pin<Box<dyn Future<Output = Done> + Send>>;

/// A relay at work.
pub(super) struct Engine<L> {
    ledger: Arc<L>,
    books: Books,
    broker: Arc<dyn Broker>,
    gate: Arc<Gate>,
    config: Live<Config>,
    wake: Arc<Notify>,
    report: Report,
    session: Session,
    timers: Timers,
    away: Backoff,
    lanes: Lanes,
    /// Keys whose next event is not under way.
    waiting: VecDeque<String>,
    under_way: FuturesUnordered<Publication>,
    holds: Holds,
    put_off: PutOff,
    attempts: u64,
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
            ledger: Arc::new(ledger),
            books: Books::default(),
            broker,
            gate: Arc::new(Gate::new(config.clone())),
            config,
            wake,
            report,
            session: Session::new(),
            timers: Timers::new(),
            away: Backoff::new(AWAY).expect("the pauses are above zero and grow"),
            lanes: Lanes::default(),
            waiting: VecDeque::new(),
            under_way: FuturesUnordered::new(),
            holds: Holds::default(),
            put_off: PutOff::default(),
            attempts: 0,
        }
    }

    pub(super) async fn run(mut self, stopping: CancellationToken) {
        while !stopping.is_cancelled() {
            if self.start() {
                // What was begun goes out before the database has anything to do: others wait for it.
                task::yield_now().await;
            }
            self.ask();
            if self.report.is_waiting() {
                self.report.still(&self.holds.reasons(), Instant::now());
                self.show();
            }
            let next_at = self.next_at();
            // Cancel-safe: what has ended stays among those under way until it is taken from there, what
            // was asked goes on, and a notice that is not heard is kept.
            tokio::select! {
                biased;
                () = stopping.cancelled() => {}
                answer = self.books.answer() => self.answered(answer),
                Some(done) = self.under_way.next() => self.ended(&done),
                () = self.wake.notified() => self.told(),
                () = time::sleep_until(next_at) => {}
            }
            self.collect().await;
            let shown = self.report.shown();
            shown.counts(self.under_way.len(), self.lanes.len());
        }
        self.stop().await;
    }

    /// Notes whatever else has ended meanwhile, so that it is written down together. What follows goes out
    /// bit by bit: whoever has confirmed all that there was has nothing to do until then.
    async fn collect(&mut self) {
        // What is begun here may end here as well, and is for the next time then.
        for noted in 1..=self.under_way.len() {
            let Some(Some(done)) = self.under_way.next().now_or_never() else {
                return;
            };
            self.ended(&done);
            if noted.is_multiple_of(TOGETHER) && self.start() {
                task::yield_now().await;
            }
        }
    }

    /// Has operators see what waits.
    fn show(&mut self) {
        let now = Instant::now();
        if now >= self.timers.show_at || !self.report.is_waiting() {
            self.timers.show_at = now + SHOW_INTERVAL;
            let waits = self.holds.waits(&self.put_off.count(now));
            self.report.shown().waits(waits);
        }
    }

    /// Events were committed in this process.
    fn told(&mut self) {
        self.timers.look_at = Instant::now();
        self.books.sees_more();
    }

    /// When there is something to do again, if nothing happens before.
    fn next_at(&self) -> Instant {
        let now = Instant::now();
        let mut next_at = self.ask_at(now);
        if self.report.is_waiting() {
            next_at = next_at.min(self.timers.show_at);
        }
        match self.holds.all_until() {
            Some(until) if until > now => next_at.min(until),
            _ => next_at,
        }
    }

    /// Publishes what waits, as far as it may; answers whether there was anything.
    fn start(&mut self) -> bool {
        let attempts = self.attempts;
        self.start_all();
        self.attempts > attempts
    }

    fn start_all(&mut self) {
        let now = Instant::now();
        let window = self.config.read(|config| usize::from(config.window));
        // Others may have claimed the same since.
        while now < self.session.until && self.under_way.len() < window {
            let Some(key) = self.waiting.pop_front() else {
                return;
            };
            let Some(event) = self.lanes.next(&key) else {
                continue;
            };
            match self.holds.pass(&event.message, self.attempts, now) {
                Pass::Go => {
                    let message = Arc::clone(&event.message);
                    let attempt = self.attempts;
                    self.lanes.change(&key, |lane| lane.begin(attempt));
                    self.publish(message);
                }
                Pass::AllWait => {
                    self.waiting.push_front(key);
                    return;
                }
                Pass::Wait(until, reason) => {
                    let topic = &event.message.topic;
                    self.put_off.add(&key, reason, topic, until);
                    let due_at = self.ledger.now().after(until.duration_since(now));
                    self.lanes.change(&key, |lane| lane.put_off(due_at));
                }
            }
        }
    }

    fn publish(&mut self, message: Arc<Message>) {
        crash::point("events.p3");
        let attempt = self.attempts;
        self.attempts += 1;
        let (broker, gate) = (Arc::clone(&self.broker), Arc::clone(&self.gate));
        let sending = self.report.send(&message);
        let mut publication: Publication = Box::pin(async move {
            let publish = async {
                let epoch = gate.pass(&*broker).await?;
                let publish = broker.publish_by(epoch, Message::clone(&message));
                let outcome = crash::soon_amid("events.p4", UNDER_WAY, publish).await;
                gate.learn(epoch, &outcome);
                outcome
            };
            let outcome = sending.within(publish).await;
            sending.end(report::send_error(&outcome));
            Done {
                message,
                attempt,
                outcome,
            }
        });
        // It begins now, and not once all that have ended are noted.
        if let Some(done) = (&mut publication).now_or_never() {
            publication = Box::pin(future::ready(done));
        }
        self.under_way.push(publication);
    }

    /// Notes how a publication ended.
    fn ended(&mut self, done: &Done) {
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
                self.wait(done, reason, &config.pauses());
            }
        }
    }

    /// The next event of a key is done with.
    fn go_on(&mut self, done: &Done, was_dropped: bool) {
        self.put_off.remove(&done.message.key);
        let key = &done.message.key;
        let go_on = self.lanes.change(key, |lane| {
            let ours = lane.end_attempt(done.attempt);
            if ours && !lane.done(was_dropped) {
                // Behind all others that are due.
                lane.put_off(self.ledger.now());
            }
            ours && lane.next().is_some()
        });
        if go_on == Some(true) {
            self.waiting.push_back(key.clone());
        }
    }

    /// The next event of a key was not taken.
    fn wait(&mut self, done: &Done, reason: Reason, pauses: &backoff::Config) {
        let now = Instant::now();
        let attempt = Attempt {
            number: done.attempt,
            next: self.attempts,
            now,
        };
        let until = self.holds.failed(&done.message, reason, attempt, pauses);
        let Message { key, topic, .. } = &*done.message;
        let tries = self.lanes.change(key, |lane| {
            lane.end_attempt(done.attempt).then(|| lane.tries())
        });
        let Some(tries) = tries.flatten() else {
            return;
        };
        if reason.is_for_all() {
            // It says nothing of this event: it is the first when it goes on.
            self.waiting.push_front(key.clone());
            return;
        }
        let pause = until.duration_since(now).max(pauses.pause_after(tries));
        self.put_off.add(key, reason, topic, now + pause);
        let release = Release {
            due_at: self.ledger.now().after(pause),
            tries: tries.saturating_add(1),
        };
        self.lanes.change(key, |lane| lane.end(release));
    }

    /// Waits for what is under way, writes it down, and gives back what is claimed.
    async fn stop(mut self) {
        let until = Instant::now() + STOP_MAX;
        while let Ok(Some(done)) = time::timeout_at(until, self.under_way.next()).await {
            self.ended(&done);
        }
        self.books.leave_aside();
        self.lanes.nobody_waits();
        if self.books.are_asked() {
            let answer = self.books.answer().await;
            self.answered(answer);
        }
        if let Err(error) = self.close().await {
            self.report.database(Some(&error));
        }
    }
}
