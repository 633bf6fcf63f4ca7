//! Why and when a process begins to end.

use std::sync::{Arc, OnceLock};

use tokio_util::sync::CancellationToken;

/// Asks a process to end; clones ask the same one. The first to ask says why.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stop {
    asked: CancellationToken,
    why: Arc<OnceLock<String>>,
}

impl Stop {
    /// Asks for the end; later requests change nothing.
    pub(crate) fn request(&self, why: impl Into<String>) {
        // Set by the first alone; a second value is dropped.
        drop(self.why.set(why.into()));
        self.asked.cancel();
    }

    /// Completes once someone has asked, and says why.
    pub(crate) async fn requested(&self) -> &str {
        self.asked.cancelled().await;
        self.why.get().map_or("", String::as_str)
    }
}
