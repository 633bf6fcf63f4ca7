//! The end of a process, in order and in time.
//!
//! | phase | what | bound |
//! | --- | --- | --- |
//! | announce | health answers `NOT_SERVING` for good, `/readyz` 503 | at once |
//! | delay | callers learn of it, while calls are still served | `delay` |
//! | finish | no new connections, GOAWAY on the open ones; calls end, and what else is in flight | `finish` |
//! | cut | calls that are left end UNAVAILABLE, connections close | `cut` |
//! | tasks | background tasks are told to stop, then aborted | `tasks` |
//! | close | stores and the like are closed, the last opened first | `close` |
//! | side port | the journal's last readers are let go | `side_port` |
//! | flush | spans and log lines leave the process | `flush` |

use std::{fmt, future::Future, ops::RangeInclusive, pin::Pin, time::Duration};

use futures_util::future::join_all;
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    config::{self, Live},
    health::Health,
    journal::{Journal, Kind},
    shutdown::{Outcome, Phases, Tasks},
};

config::section! {
    /// The bounds of a drain; together below the 30 s after which orchestrators kill.
    #[derive(Copy, Eq)]
    pub struct Config {
        /// How long calls are still taken after health has said otherwise.
        pub delay: Duration = Duration::from_secs(3), in BOUNDS, live;
        /// How long calls in flight may take to end by themselves.
        pub finish: Duration = Duration::from_secs(18), in BOUNDS, live;
        /// How long the calls that are left may take to be told that they are over.
        pub cut: Duration = Duration::from_secs(1), in BOUNDS, live;
        /// How long background tasks may take to stop.
        pub tasks: Duration = Duration::from_millis(1_500), in BOUNDS, live;
        /// How long stores and the like may take to close, all together.
        pub close: Duration = Duration::from_secs(1), in BOUNDS, live;
        /// How long the readers of the side port are waited for.
        pub side_port: Duration = Duration::from_millis(500), in BOUNDS, live;
        /// How long spans and log lines may take to leave the process.
        pub flush: Duration = Duration::from_secs(2), in BOUNDS, live;
    }
}

const BOUNDS: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_hours(1);

impl Config {
    /// The longest a drain can take.
    #[must_use]
    pub fn total(&self) -> Duration {
        [
            self.delay,
            self.finish,
            self.cut,
            self.tasks,
            self.close,
            self.side_port,
            self.flush,
        ]
        .into_iter()
        .fold(Duration::ZERO, Duration::saturating_add)
    }
}

/// What is asked of the part that serves calls, in this order.
pub(super) trait Serving: Send + Sync {
    /// Takes no more connections and calls; those in flight go on.
    fn drain(&self);
    /// Ends the calls in flight with UNAVAILABLE.
    fn end_calls(&self);
    /// Closes what is still open.
    fn cut(&self);
    /// Completes when nothing is open any more.
    fn closed(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;
}

/// Something that is closed near the end.
pub(super) struct Hook {
    pub(super) name: &'static str,
    pub(super) close: Pin<Box<dyn Future<Output = ()> + Send>>,
}

/// Everything that has to end.
pub(super) struct Ending {
    pub(super) config: Live<Config>,
    pub(super) journal: Journal,
    pub(super) health: Health,
    /// Takes the registration back; bounded by itself.
    pub(super) deregister: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// Cancelled when calls should come to their end.
    pub(super) draining: CancellationToken,
    pub(super) serving: Box<dyn Serving>,
    /// The service's own tasks.
    pub(super) tasks: Tasks,
    /// What else comes to its end while calls do.
    pub(super) finishing: Vec<Hook>,
    /// In the order they were opened.
    pub(super) hooks: Vec<Hook>,
    /// The platform's tasks, which watch over the drain until its end.
    pub(super) platform: Tasks,
}

impl fmt::Debug for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ending").finish_non_exhaustive()
    }
}

impl Ending {
    /// Ends everything, `why` it is done; `flush` comes last.
    pub(super) async fn run(mut self, why: &str, flush: impl Future<Output = ()>) {
        let config = *self.config.load();
        self.journal.record(Kind::Draining, "process", why);
        // Before it is told, so that whoever reads of it finds it so.
        self.health.latch();
        tracing::info!(why, bound = ?config.total(), "draining");
        let phases = Phases::begin(self.journal.clone());

        // Both at once: those who find us in the registry have the delay, too, to learn that we go.
        let delay = async {
            let deregister = std::mem::replace(&mut self.deregister, Box::pin(async {}));
            tokio::join!(deregister, time::sleep(config.delay));
        };
        // The first of three phases that are bounded by themselves.
        phases.run("delay", Duration::MAX, delay).await;
        let finishing = std::mem::take(&mut self.finishing);
        self.finish(&config, &phases, finishing).await;
        let tasks = self.tasks.stop_within(config.tasks);
        phases.run("tasks", Duration::MAX, tasks).await;
        let close = close(self.hooks, config.close, &self.journal);
        // Bounded from without as well, it could be cut just before it says who is late.
        phases.run("close", Duration::MAX, close).await;

        tracing::info!(took = ?phases.elapsed(), "drained");
        let took = format!("drained in {} ms", phases.elapsed().as_millis());
        self.journal.record(Kind::Stopped, "process", took);
        self.platform.stop_within(config.side_port).await;
        phases.run("flush", config.flush, flush).await;
    }

    async fn finish(&self, config: &Config, phases: &Phases, finishing: Vec<Hook>) {
        self.serving.drain();
        // Long-lived streams end now: their callers go elsewhere, because of the GOAWAY.
        self.draining.cancel();
        let ended = async {
            tokio::join!(self.serving.closed(), finished(finishing, &self.journal));
        };
        let outcome = phases.run("finish", config.finish, ended).await;
        if outcome == Outcome::Cut {
            self.serving.end_calls();
            let closed = self.serving.closed();
            phases.run("cut", config.cut, closed).await;
        }
        self.serving.cut();
    }
}

/// Waits for all at once; who is late is said when they are given up.
async fn finished(finishing: Vec<Hook>, journal: &Journal) {
    join_all(finishing.into_iter().map(async |hook| {
        let mut late = Late {
            name: hook.name,
            journal,
            done: false,
        };
        hook.close.await;
        late.done = true;
    }))
    .await;
}

/// Says that something did not end in time, where it did not.
struct Late<'a> {
    name: &'static str,
    journal: &'a Journal,
    done: bool,
}

impl Drop for Late<'_> {
    fn drop(&mut self) {
        if !self.done {
            tracing::warn!(name = self.name, "did not finish in time");
            let detail = "did not finish in time";
            self.journal.record(Kind::DrainPhase, self.name, detail);
        }
    }
}

/// Closes each in turn, the last opened first. One that hangs costs its share of what is left of
/// `bound`, so that those before it still get theirs.
async fn close(mut hooks: Vec<Hook>, bound: Duration, journal: &Journal) {
    let end = Instant::now() + bound;
    while let Some(hook) = hooks.pop() {
        let others = u32::try_from(hooks.len()).unwrap_or(u32::MAX);
        let left = end.saturating_duration_since(Instant::now());
        let share = left / others.saturating_add(1);
        if time::timeout(share, hook.close).await.is_err() {
            tracing::warn!(name = hook.name, ?share, "did not close in time");
            journal.record(Kind::DrainPhase, hook.name, "did not close in time");
        }
    }
}

#[cfg(test)]
mod tests;
