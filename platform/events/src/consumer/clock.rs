//! Time for events that wait here.

use gantry_store::Timestamp;
use tokio::time::Instant;

/// A clock that only goes on: that of the machine as it was at its beginning, and from then on what has
/// passed. Whoever sets the other one has nothing wait for longer or shorter.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    began: Timestamp,
    at: Instant,
}

impl Clock {
    /// From now on.
    pub(crate) fn new() -> Self {
        Self {
            began: Timestamp::now(),
            at: Instant::now(),
        }
    }

    /// Now.
    pub(crate) fn now(&self) -> Timestamp {
        self.began.after(self.at.elapsed())
    }

    /// A time of the machine, as it is kept where others read it.
    pub(crate) fn of(&self, time: Timestamp) -> Timestamp {
        let away = time.micros().saturating_sub(Timestamp::now().micros());
        Timestamp::from_micros(self.now().micros().saturating_add(away))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time;

    use super::*;

    /// Goal: what waits does so for as long as it was meant to, whoever sets the clock of the machine.
    /// Method: one that began while that was ahead by a year, and is right by now.
    #[tokio::test(start_paused = true)]
    async fn it_goes_on_however_the_machine_is_set() {
        let began = Timestamp::now().after(Duration::from_hours(365 * 24));
        let clock = Clock {
            began,
            at: Instant::now(),
        };
        time::advance(Duration::from_secs(1)).await;
        assert_eq!(began.after(Duration::from_secs(1)), clock.now());
    }
}
