//! What happened in a run, in its order, by the clock of the run.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use gantry_store::testing::Step;
use tokio::time::Instant;

use crate::log::Line;

/// All that happened in a run.
#[derive(Debug)]
pub(crate) struct Tape {
    began: Instant,
    entries: Mutex<Vec<Entry>>,
}

/// Something that happened.
#[derive(Debug, Clone)]
struct Entry {
    millis: u128,
    process: Arc<str>,
    what: What,
}

/// What it was.
#[derive(Debug, Clone)]
pub(crate) enum What {
    /// It passed the door to the broker.
    Line(Line),
    /// The database was asked for it.
    Asked(Step),
    /// The script did it, to this process or to all.
    Done(String),
    /// The platform said it in its log.
    Said(String),
}

impl Tape {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            began: Instant::now(),
            entries: Mutex::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn add(&self, process: &Arc<str>, what: What) {
        let entry = Entry {
            millis: self.began.elapsed().as_millis(),
            process: Arc::clone(process),
            what,
        };
        self.lock().push(entry);
    }

    /// What passed the door of a process.
    pub(super) fn lines(&self, process: &str) -> Vec<Line> {
        let entries = self.lock();
        let of = entries.iter().filter(|it| *it.process == *process);
        let lines = of.filter_map(|it| match &it.what {
            What::Line(line) => Some(line.clone()),
            What::Asked(_) | What::Done(_) | What::Said(_) => None,
        });
        lines.collect()
    }

    /// All of it, a line each.
    pub(super) fn told(&self) -> Vec<String> {
        self.lock().iter().map(ToString::to_string).collect()
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            millis,
            process,
            what,
        } = self;
        write!(f, "{millis:>6} ms {process:<5} ")?;
        match what {
            What::Line(line) => write!(f, "{line:?}"),
            What::Asked(step) => write!(f, "{step:?}"),
            What::Done(what) => write!(f, "-- {what}"),
            What::Said(what) => write!(f, "says: {what}"),
        }
    }
}
