//! The feed, the resolver and the registrar against an etcd that does as it is told.

mod directory;
mod fake;
mod feed;
mod reader;
mod registrar;
mod resolver;

use std::time::Duration;

use tokio::time::{self, Instant};

const MS: Duration = Duration::from_millis(1);

/// What the framework waits for one answer.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Waits until `condition` gives a value; a paused clock reaches the bound when nothing else can.
async fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(
            begun.elapsed() < Duration::from_mins(5),
            "waited for {what}"
        );
        time::sleep(MS).await;
    }
}

/// Waits until nothing is left to do before the clock goes on.
async fn settle() {
    time::sleep(MS).await;
}
