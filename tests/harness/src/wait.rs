//! Waits for conditions.

use std::{fs, path::Path, time::Duration};

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

/// Waits until `condition` says that the server `name` answers, whose words are in the file `log`.
///
/// Long: all that a machine has to do at that moment may be before it.
///
/// # Panics
///
/// If it does not come to answer; what it said is shown.
pub async fn answers(name: &str, log: &Path, mut condition: impl AsyncFnMut() -> Option<()>) {
    let answered = async {
        while condition().await.is_none() {
            time::sleep(INTERVAL).await;
        }
    };
    if time::timeout(SOON * 4, answered).await.is_err() {
        let said = fs::read_to_string(log).unwrap_or_default();
        panic!("{name} does not answer:\n{said}");
    }
}
