//! Why and when a process begins to end.

use std::{
    sync::{Arc, OnceLock},
    time::SystemTime,
};

use tokio_util::sync::CancellationToken;

use crate::journal;

/// Asks a process to end; clones ask the same one. The first to ask says why.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    asked: CancellationToken,
    first: Arc<OnceLock<Request>>,
}

/// The first request to end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Who asked, or what went wrong.
    pub why: String,
    /// Whether the process ends because something in it is broken.
    pub failed: bool,
    /// When, for people.
    pub time: SystemTime,
}

impl Stop {
    /// Nobody has asked yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks for the end; all requests but the first change nothing. Answers with the first.
    pub fn request(&self, why: impl Into<String>) -> &Request {
        self.ask(why.into(), false)
    }

    /// As [`Stop::request`], because something is broken.
    pub fn fail(&self, why: impl Into<String>) -> &Request {
        self.ask(why.into(), true)
    }

    fn ask(&self, why: String, failed: bool) -> &Request {
        let time = journal::now();
        let first = self.first.get_or_init(|| Request { why, failed, time });
        self.asked.cancel();
        first
    }

    /// Completes once someone has asked, and says why.
    ///
    /// # Panics
    ///
    /// Never: whoever asks says why first.
    pub async fn requested(&self) -> Request {
        self.asked.cancelled().await;
        let first = self.first.get().cloned();
        first.expect("the request is written down before it is announced")
    }
}
