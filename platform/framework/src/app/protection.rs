//! What a process refuses as it is full or overloaded.

use super::process::Process;
use crate::{
    config::Section,
    limit::{
        board::Board,
        concurrency::Cap,
        shed::{Linux, Shedder},
    },
    server::Protection,
};

/// Begins to watch how loaded the process is, and decides by that. What is bounded is seen on `board`.
pub(super) fn start<C: Section>(process: &Process<C>, board: Board) -> Protection {
    let settings = &process.settings.live;
    let cap = Cap::new(settings.map(|settings| &settings.first.concurrency));
    let shed = settings.map(|settings| &settings.first.shed);
    let shedder = Shedder::new(shed, cap.clone());
    let tasks = &process.platform;
    let watch = shedder
        .clone()
        .watch(Linux::default(), process.journal.clone(), tasks.stopping());
    tasks.spawn("load", watch);
    Protection::new(cap, shedder).shown_on(board)
}
