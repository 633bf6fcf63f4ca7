//! What time it is, for what outlives the process.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use super::engine::Millis;

/// The wall clock, read once; from then on time passes as it does for everything else, whatever
/// becomes of that clock.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    begun: Instant,
    begun_at: Millis,
}

impl Clock {
    // What is delayed outlives the process: only the wall clock means something then.
    #[allow(clippy::disallowed_methods)]
    pub(super) fn new() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            begun: Instant::now(),
            begun_at: millis(since.unwrap_or_default()),
        }
    }

    /// Milliseconds since 1970.
    pub(super) fn now(self) -> Millis {
        self.begun_at + millis(self.begun.elapsed())
    }

    /// When it is `at`, not before.
    pub(super) fn instant(self, at: Millis) -> Instant {
        self.begun + Duration::from_millis(at.saturating_sub(self.begun_at))
    }
}

/// Whole milliseconds of a duration.
pub(super) fn millis(duration: Duration) -> Millis {
    Millis::try_from(duration.as_millis()).unwrap_or(Millis::MAX)
}
