//! Runs one check until the process stops.

use std::{panic::AssertUnwindSafe, time::Duration};

use futures_util::FutureExt as _;
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;

use super::{
    check::{Check, Config},
    state::Health,
};
use crate::status::chain;

/// What one run of a probe found.
#[derive(Debug)]
pub(super) struct Finding {
    /// Why it failed; none if it passed.
    pub(super) failure: Option<String>,
    /// How long it took.
    pub(super) latency: Duration,
}

/// Asks again and again and tells `health` what it found under `id`.
pub(super) async fn run(
    mut check: Check,
    id: usize,
    config: Config,
    health: Health,
    stopping: CancellationToken,
) {
    loop {
        // One run ends before the next begins, so a slow check never overlaps with itself.
        let Some(finding) = stopping
            .run_until_cancelled(ask(&mut check, config.timeout))
            .await
        else {
            return;
        };
        health.note(id, finding);
        if stopping
            .run_until_cancelled(time::sleep(config.interval))
            .await
            .is_none()
        {
            return;
        }
    }
}

async fn ask(check: &mut Check, timeout: Duration) -> Finding {
    let begun = Instant::now();
    let answer = async { (check.probe)().await };
    let answer = AssertUnwindSafe(answer).catch_unwind();
    let failure = match time::timeout(timeout, answer).await {
        Ok(Ok(Ok(()))) => None,
        Ok(Ok(Err(error))) => Some(chain(error.as_ref())),
        Ok(Err(_)) => Some("panicked".to_owned()),
        Err(_) => Some(format!("no answer within {} ms", timeout.as_millis())),
    };
    Finding {
        failure,
        latency: begun.elapsed(),
    }
}
