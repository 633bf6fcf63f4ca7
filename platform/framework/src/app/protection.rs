//! What a process refuses as it is full or overloaded, and what is beyond a quota.

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::process::Process;
use crate::{
    config::Section,
    limit::{
        board::Board,
        concurrency::Cap,
        rate::{self, Limiter},
        shed::{Linux, Shedder},
    },
    policy,
    server::Protection,
    transport::server::Handle,
};

/// Begins to watch how loaded the process is, and decides by that: of calls, and of the connections of
/// `listener`. What is bounded is seen on `board`.
pub(super) fn start<C: Section>(
    process: &Process<C>,
    board: Board,
    listener: Handle,
) -> Protection {
    let settings = &process.settings.live;
    let cap = Cap::new(settings.map(|settings| &settings.first.concurrency));
    let shed = settings.map(|settings| &settings.first.shed);
    let shedder = Shedder::new(shed, cap.clone());
    let tasks = &process.platform;
    let watch = shedder
        .clone()
        .watch(Linux::default(), process.journal.clone(), tasks.stopping());
    tasks.spawn("load", watch);
    let thinning = thin(listener, shedder.short_of_memory(), tasks.stopping());
    tasks.spawn("connections", thinning);
    Protection::new(cap, shedder).shown_on(board)
}

/// Begins to count by the quotas of the policies.
pub(super) fn quotas<C: Section>(process: &Process<C>) -> Limiter {
    let rules = process.settings.live.derive(|settings| rate::Rules {
        quotas: policy::quotas(&settings.first.policies),
        config: settings.first.rate.clone(),
    });
    let limiter = Limiter::new(rules);
    let tasks = &process.platform;
    let (sweeping, stopping) = (limiter.clone().keep_swept(), tasks.stopping());
    tasks.spawn("quotas", async move {
        stopping.run_until_cancelled(sweeping).await;
    });
    limiter
}

/// Has the connections of `listener` become fewer while memory is `short`, until told to stop.
async fn thin(listener: Handle, mut short: watch::Receiver<bool>, stopping: CancellationToken) {
    while let Some(Ok(())) = stopping.run_until_cancelled(short.changed()).await {
        listener.thin(*short.borrow_and_update());
    }
}

#[cfg(test)]
mod tests;
