//! Waits for conditions.

use std::time::Duration;

use tokio::time::{self, Instant};

/// How often a condition is looked at.
const INTERVAL: Duration = Duration::from_millis(20);

/// Longest wait for what should come at once, on a busy machine.
pub const SOON: Duration = Duration::from_secs(30);

/// Waits until `condition` gives a value.
///
/// # Panics
///
/// If it gives none within `bound`; `what` is named.
pub async fn until<T>(
    what: &str,
    bound: Duration,
    mut condition: impl AsyncFnMut() -> Option<T>,
) -> T {
    let started = Instant::now();
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(started.elapsed() < bound, "waited {bound:?} for {what}");
        time::sleep(INTERVAL).await;
    }
}
