//! What passed the door to the broker, as each process wrote it down.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::Path,
};

#[cfg(feature = "model")]
use std::sync::Arc;

use serde::{Deserialize, Serialize};

#[cfg(feature = "model")]
use crate::model::{Tape, What};
use crate::{
    evidence::{Delivery, End, Evidence, Publication},
    lines::{self, Lines},
};

/// The log of one process.
#[derive(Debug)]
pub(crate) enum Log {
    /// In a file, which is there after the process.
    File(Lines),
    /// On the tape of a run in memory, under the name of the process.
    #[cfg(feature = "model")]
    Tape(Arc<Tape>, Arc<str>),
}

/// A line of a log. Times are of the clock of the system, in microseconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub(crate) enum Line {
    /// An event is written down for good.
    Added,
    /// An event is about to be handed to the broker.
    Publish {
        number: u64,
        event_id: String,
        at: i64,
    },
    /// The broker has confirmed it.
    Confirmed { number: u64 },
    /// It has not.
    NotConfirmed { number: u64, error: String },
    /// The broker has handed an event out.
    Delivery {
        number: u64,
        event_id: String,
        redelivered: bool,
        #[serde(default)]
        overtaken: bool,
        at: i64,
    },
    /// An event was applied.
    Applied { event_id: String },
    /// A delivery is about to be settled.
    Settle { number: u64, how: End },
    /// It was settled.
    Settled { number: u64 },
    /// It was not settled.
    NotSettled { number: u64, error: String },
}

impl Log {
    /// The log of the process `process`, in `folder`.
    pub(crate) fn open(folder: &Path, process: &str) -> io::Result<Self> {
        Lines::open(&folder.join(format!("{process}.jsonl"))).map(Self::File)
    }

    /// Adds a line.
    ///
    /// # Panics
    ///
    /// If it cannot: whatever came after it would prove nothing.
    pub(crate) fn add(&self, line: &Line) {
        match self {
            Self::File(lines) => lines.add(line).expect("write to the log of a test"),
            #[cfg(feature = "model")]
            Self::Tape(tape, process) => tape.add(process, What::Line(line.clone())),
        }
    }
}

/// What all processes wrote down.
#[derive(Debug, Default)]
pub(crate) struct Wire {
    processes: BTreeMap<String, Written>,
}

/// What one process wrote down.
#[derive(Debug, Default)]
struct Written {
    /// How far its log was read.
    bytes: u64,
    /// Events written down.
    added: u64,
    publications: BTreeMap<u64, Publication>,
    /// Those of them of which it is not known yet whether they are confirmed.
    under_way: BTreeSet<u64>,
    deliveries: BTreeMap<u64, Delivery>,
    /// What was applied and is not acked.
    applied: BTreeSet<String>,
}

impl Wire {
    /// Reads on in the logs in `folder`; whether there was anything new.
    pub(crate) fn read_on(&mut self, folder: &Path) -> io::Result<bool> {
        let mut any = false;
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            let process = path.file_stem().unwrap_or_default().to_string_lossy();
            let written = self.processes.get(&*process);
            let from = written.map_or(0, |written| written.bytes);
            let (lines, bytes) = lines::read_from(&path, from)?;
            any |= bytes > from;
            self.add(&process, lines);
            if let Some(written) = self.processes.get_mut(&*process) {
                written.bytes = bytes;
            }
        }
        Ok(any)
    }

    /// Adds what one process wrote down, or more of it.
    pub(crate) fn add(&mut self, process: &str, lines: impl IntoIterator<Item = Line>) {
        let written = self.processes.entry(process.to_owned()).or_default();
        for line in lines {
            written.add(process, line);
        }
    }

    /// Whether `process` has published something and does not know yet whether it is confirmed.
    pub(crate) fn is_publishing(&self, process: &str) -> bool {
        let written = self.processes.get(process);
        written.is_some_and(|it| !it.under_way.is_empty())
    }

    /// Adds all of it to `evidence`.
    pub(crate) fn tell(&self, evidence: &mut Evidence) {
        let processes = self.processes.iter();
        let added = processes.map(|(name, it)| (name.clone(), it.added));
        evidence.added = added.collect();
        evidence.publications = self.publications();
        evidence.deliveries = self.deliveries();
    }

    /// Every publication, in their order.
    pub(crate) fn publications(&self) -> Vec<Publication> {
        let all = self.processes.values();
        let mut all: Vec<_> = all
            .flat_map(|it| it.publications.values().cloned())
            .collect();
        all.sort_by_key(|it| it.at);
        all
    }

    /// Every delivery, in their order.
    pub(crate) fn deliveries(&self) -> Vec<Delivery> {
        let all = self.processes.values();
        let mut all: Vec<_> = all.flat_map(Written::deliveries).collect();
        all.sort_by_key(|it| it.at);
        all
    }
}

impl Written {
    fn add(&mut self, process: &str, line: Line) {
        match line {
            Line::Added => self.added += 1,
            Line::Publish {
                number,
                event_id,
                at,
            } => {
                let publication = Publication {
                    process: process.to_owned(),
                    event_id,
                    confirmed: false,
                    at,
                };
                self.publications.insert(number, publication);
                self.under_way.insert(number);
            }
            Line::Confirmed { number } => {
                self.under_way.remove(&number);
                if let Some(publication) = self.publications.get_mut(&number) {
                    publication.confirmed = true;
                }
            }
            Line::Delivery {
                number,
                event_id,
                redelivered,
                overtaken,
                at,
            } => {
                let delivery = Delivery {
                    process: process.to_owned(),
                    event_id,
                    redelivered,
                    overtaken,
                    applied: false,
                    end: End::Open,
                    at,
                };
                self.deliveries.insert(number, delivery);
            }
            Line::Applied { event_id } => {
                self.applied.insert(event_id);
            }
            // Those of one key are worked at one after the other: the first that is acked since is
            // the one that was applied. One that was handed out before may have gone back unseen.
            Line::Settle { number, how } => {
                if let Some(delivery) = self.deliveries.get_mut(&number) {
                    delivery.end = how;
                    delivery.applied = how == End::Acked && self.applied.remove(&delivery.event_id);
                }
            }
            Line::NotConfirmed { number, .. } => {
                self.under_way.remove(&number);
            }
            Line::Settled { .. } | Line::NotSettled { .. } => {}
        }
    }

    fn deliveries(&self) -> impl Iterator<Item = Delivery> {
        let mut deliveries = self.deliveries.clone();
        // Applied, and the process ended before it was acked.
        for event_id in &self.applied {
            let mut open = deliveries.values_mut().rev();
            let last = open.find(|it| it.event_id == *event_id && it.end == End::Open);
            if let Some(delivery) = last {
                delivery.applied = true;
            }
        }
        deliveries.into_values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivery(number: u64, event_id: &str, redelivered: bool) -> Line {
        Line::Delivery {
            number,
            event_id: event_id.to_owned(),
            redelivered,
            overtaken: false,
            at: 0,
        }
    }

    /// Goal: of each delivery it is known what came of it, whether it applied its event, and whether it
    /// met one that was done; of each publication whether it was confirmed.
    /// Method: the log of a process with two copies of an event at hand, one of it that went back before,
    /// one that is open at the end, and publications of every end; read
    /// on with each line, beside that of another process.
    #[test]
    fn logs_are_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let log = Log::open(folder.path(), "one").unwrap();
        let publish = |number| Line::Publish {
            number,
            event_id: format!("e{number}"),
            at: 0,
        };
        let lines = [
            publish(1),
            publish(2),
            publish(3),
            Line::Confirmed { number: 2 },
            Line::NotConfirmed {
                number: 1,
                error: "no".to_owned(),
            },
            delivery(0, "e2", false),
            delivery(4, "e2", true),
            delivery(5, "e2", false),
            delivery(6, "e7", true),
            Line::Applied {
                event_id: "e2".to_owned(),
            },
            Line::Settle {
                number: 4,
                how: End::Acked,
            },
            Line::Settle {
                number: 5,
                how: End::Acked,
            },
        ];
        let mut wire = Wire::default();
        for line in &lines {
            log.add(line);
            assert!(wire.read_on(folder.path()).unwrap());
        }
        Log::open(folder.path(), "two")
            .unwrap()
            .add(&delivery(4, "e7", false));
        assert!(wire.read_on(folder.path()).unwrap());
        assert!(!wire.read_on(folder.path()).unwrap());
        let publications = wire.publications().into_iter();
        let confirmed: Vec<_> = publications.map(|it| it.confirmed).collect();
        assert_eq!(vec![false, true, false], confirmed);
        assert!(wire.is_publishing("one") && !wire.is_publishing("two"));
        let deliveries = wire.deliveries();
        let seen = deliveries.iter().map(|it| {
            (
                &*it.process,
                &*it.event_id,
                it.applied,
                it.end,
                it.is_deduplicated(),
            )
        });
        let seen: Vec<_> = seen.collect();
        let expected = vec![
            ("one", "e2", false, End::Open, false),
            ("one", "e2", true, End::Acked, false),
            ("one", "e2", false, End::Acked, true),
            ("one", "e7", false, End::Open, false),
            ("two", "e7", false, End::Open, false),
        ];
        assert_eq!(expected, seen);
    }
}
