//! Signals, tracked tasks, and the end of a process in bounded phases.
//!
//! Nothing runs untracked: every long-lived task is started through [`Tasks`], which names it,
//! notices its panic, tells it when to stop and joins it. A process ends in [`Phases`], each of
//! which has a bound and is written to the journal with the time it took.

mod phases;
mod signals;
mod stop;
mod tasks;

pub use phases::{Outcome, Phases};
pub use signals::{InstallError, Signals};
pub use stop::{Request, Stop};
pub use tasks::{Failed, Tasks};
