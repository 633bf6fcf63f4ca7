//! How fast everybody together goes.

use std::time::Duration;

use gantry::config::Live;
use tokio::{
    sync::Mutex,
    time::{self, Instant},
};

use crate::config::Shopping;

/// Gives out turns, `calls_per_second` of them at most.
///
/// A turn that nobody takes is gone: after a pause of whatever length there is no burst.
pub(crate) struct Pace {
    config: Live<Shopping>,
    next: Mutex<Instant>,
}

impl Pace {
    pub(crate) fn new(config: Live<Shopping>) -> Self {
        Self {
            config,
            next: Mutex::new(Instant::now()),
        }
    }

    /// Waits for a turn; whoever came first has it first. Cancel-safe.
    pub(crate) async fn turn(&self) {
        let mut next = self.next.lock().await;
        time::sleep_until(*next).await;
        let rate = self.config.load().calls_per_second;
        *next = Instant::now() + Duration::from_secs_f64(1.0 / rate);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: however many want a turn and however long nobody did, turns are apart as configured.
    /// Method: a paused clock; three at once, and again after an hour.
    #[tokio::test(start_paused = true)]
    async fn turns_are_apart() {
        let pace = Pace::new(Live::fixed(Shopping {
            calls_per_second: 2.0,
            ..Shopping::default()
        }));
        for _ in 0..2 {
            let begun = Instant::now();
            tokio::join!(pace.turn(), pace.turn(), pace.turn());
            assert_eq!(Duration::from_secs(1), begun.elapsed());
            time::advance(Duration::from_hours(1)).await;
        }
    }
}
