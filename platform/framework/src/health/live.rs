//! Whether the process itself still works.
//!
//! Asks nothing of the outside: a process that is restarted because its database is away is two
//! outages. A task that only wants to run again soon measures how late it is let; where it has
//! not run for long, the runtime is stuck and a restart helps.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::{self, Instant};

use crate::shutdown::Tasks;

/// Pause between two beats.
const BEAT: Duration = Duration::from_millis(250);

/// Silence after which the process counts as stuck.
const STUCK_AFTER: Duration = Duration::from_secs(10);

/// Watches over the runtime; clones watch together.
#[derive(Debug, Clone)]
pub struct Liveness {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    begun: Instant,
    /// Of the latest beat, in milliseconds after `begun`.
    beat: AtomicU64,
    /// How late it was, in milliseconds.
    lag: AtomicU64,
}

impl Liveness {
    /// Begins to watch the runtime it is called in, as a task of `tasks`.
    #[must_use]
    pub fn watch(tasks: &Tasks) -> Self {
        let shared = Arc::new(Shared {
            begun: Instant::now(),
            beat: AtomicU64::new(0),
            lag: AtomicU64::new(0),
        });
        let liveness = Self { shared };
        let (beating, stopping) = (liveness.clone(), tasks.stopping());
        tasks.spawn("liveness", async move {
            loop {
                let due = Instant::now() + BEAT;
                let slept = stopping.run_until_cancelled(time::sleep_until(due)).await;
                if slept.is_none() {
                    return;
                }
                beating.note(due.elapsed());
            }
        });
        liveness
    }

    /// How late the runtime let a task run that was due.
    #[must_use]
    pub fn lag(&self) -> Duration {
        let noted = Duration::from_millis(self.shared.lag.load(Ordering::Relaxed));
        // Late right now counts, whatever the latest beat said.
        noted.max(self.silence().saturating_sub(BEAT))
    }

    /// Whether the runtime lets tasks run at all.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.silence() < STUCK_AFTER
    }

    fn silence(&self) -> Duration {
        let beat = Duration::from_millis(self.shared.beat.load(Ordering::Relaxed));
        self.shared.begun.elapsed().saturating_sub(beat)
    }

    // Relaxed: the two numbers guard nothing, and either is fine by itself.
    fn note(&self, late: Duration) {
        let now = self.shared.begun.elapsed();
        self.shared.lag.store(millis(late), Ordering::Relaxed);
        self.shared.beat.store(millis(now), Ordering::Relaxed);
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::Journal;

    /// Goal: a runtime that runs is live; one that lets nothing run for long is not, and is again
    /// once it does.
    /// Method: advance the paused clock without letting the beat run.
    #[tokio::test(start_paused = true)]
    async fn a_runtime_that_lets_nothing_run_is_not_live() {
        let tasks = Tasks::new(Journal::new());
        let liveness = Liveness::watch(&tasks);
        time::sleep(Duration::from_mins(1)).await;
        assert!(liveness.is_live());
        assert!(liveness.lag() <= BEAT, "{:?}", liveness.lag());

        // The one thread of this runtime is here, so no other task runs meanwhile.
        let stuck = time::advance(Duration::from_secs(11));
        let mut stuck = std::pin::pin!(stuck);
        let () = std::future::poll_fn(|cx| {
            let _ = stuck.as_mut().poll(cx);
            assert!(!liveness.is_live());
            assert!(liveness.lag() > Duration::from_secs(10));
            std::task::Poll::Ready(())
        })
        .await;

        time::sleep(Duration::from_secs(1)).await;
        assert!(liveness.is_live());
        tasks.stop().await;
    }
}
