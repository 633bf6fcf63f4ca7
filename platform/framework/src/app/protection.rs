//! What a process refuses as it is full or overloaded.

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::process::Process;
use crate::{
    config::Section,
    limit::{
        board::Board,
        concurrency::Cap,
        shed::{Linux, Shedder},
    },
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

/// Has the connections of `listener` become fewer while memory is `short`, until told to stop.
async fn thin(listener: Handle, mut short: watch::Receiver<bool>, stopping: CancellationToken) {
    while let Some(Ok(())) = stopping.run_until_cancelled(short.changed()).await {
        listener.thin(*short.borrow_and_update());
    }
}

#[cfg(test)]
mod tests;
