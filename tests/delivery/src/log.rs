//! What passed the door to the broker, as each process wrote it down.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    evidence::{Delivery, End, Publication},
    lines::{self, Lines},
};

/// The log of one process.
#[derive(Debug)]
pub(crate) struct Log {
    lines: Lines,
}

/// A line of a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub(crate) enum Line {
    /// An event is about to be handed to the broker.
    Publish { number: u64, event_id: String },
    /// The broker has confirmed it.
    Confirmed { number: u64 },
    /// It has not.
    NotConfirmed { number: u64, error: String },
    /// The broker has handed an event out.
    Delivery {
        number: u64,
        event_id: String,
        redelivered: bool,
    },
    /// An event was applied.
    Applied { event_id: String },
    /// A delivery is about to be settled.
    Settle { number: u64, how: End },
    /// It was not settled.
    NotSettled { number: u64, error: String },
}

impl Log {
    /// The log of the process `process`, in `folder`.
    pub(crate) fn open(folder: &Path, process: &str) -> io::Result<Self> {
        let lines = Lines::open(&folder.join(format!("{process}.jsonl")))?;
        Ok(Self { lines })
    }

    /// Adds a line.
    ///
    /// # Panics
    ///
    /// If it cannot: whatever came after it would prove nothing.
    pub(crate) fn add(&self, line: &Line) {
        self.lines.add(line).expect("write to the log of a test");
    }
}

/// What all processes wrote down.
#[derive(Debug, Default)]
pub(crate) struct Wire {
    pub(crate) publications: Vec<Publication>,
    pub(crate) deliveries: Vec<Delivery>,
}

impl Wire {
    /// Reads the logs in `folder`.
    pub(crate) fn read(folder: &Path) -> io::Result<Self> {
        let paths = fs::read_dir(folder)?.map(|entry| Ok(entry?.path()));
        let mut paths = paths.collect::<io::Result<Vec<PathBuf>>>()?;
        paths.sort();
        let mut wire = Self::default();
        for path in paths {
            let process = path.file_stem().unwrap_or_default().to_string_lossy();
            wire.add(&process, lines::read(&path)?);
        }
        Ok(wire)
    }

    /// Adds what one process wrote down.
    pub(crate) fn add(&mut self, process: &str, lines: impl IntoIterator<Item = Line>) {
        let mut publications = BTreeMap::<u64, Publication>::new();
        let mut deliveries = BTreeMap::<u64, Delivery>::new();
        let mut applied = BTreeSet::new();
        for line in lines {
            match line {
                Line::Publish { number, event_id } => {
                    let publication = Publication {
                        process: process.to_owned(),
                        event_id,
                        confirmed: false,
                    };
                    publications.insert(number, publication);
                }
                Line::Confirmed { number } => {
                    if let Some(publication) = publications.get_mut(&number) {
                        publication.confirmed = true;
                    }
                }
                Line::Delivery {
                    number,
                    event_id,
                    redelivered,
                } => {
                    let delivery = Delivery {
                        process: process.to_owned(),
                        event_id,
                        redelivered,
                        applied: false,
                        end: End::Open,
                    };
                    deliveries.insert(number, delivery);
                }
                Line::Applied { event_id } => {
                    applied.insert(event_id);
                }
                // Those of one key are worked at one after the other: the first that is acked since is
                // the one that was applied. One that was handed out before may have gone back unseen.
                Line::Settle { number, how } => {
                    if let Some(delivery) = deliveries.get_mut(&number) {
                        delivery.end = how;
                        delivery.applied = how == End::Acked && applied.remove(&delivery.event_id);
                    }
                }
                Line::NotConfirmed { .. } | Line::NotSettled { .. } => {}
            }
        }
        // Applied, and the process ended before it was acked.
        for event_id in applied {
            let mut open = deliveries.values_mut().rev();
            let last = open.find(|it| it.event_id == event_id && it.end == End::Open);
            if let Some(delivery) = last {
                delivery.applied = true;
            }
        }
        self.publications.extend(publications.into_values());
        self.deliveries.extend(deliveries.into_values());
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
        }
    }

    /// Goal: of each delivery it is known what came of it, whether it applied its event, and whether it
    /// met one that was done; of each publication whether it was confirmed.
    /// Method: the log of a process with two copies of an event at hand, one of it that went back before,
    /// one that is open at the end, and publications of every end; written, and read back beside that of another process.
    #[test]
    fn logs_are_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let log = Log::open(folder.path(), "one").unwrap();
        let publish = |number| Line::Publish {
            number,
            event_id: format!("e{number}"),
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
        for line in &lines {
            log.add(line);
        }
        Log::open(folder.path(), "two")
            .unwrap()
            .add(&delivery(4, "e7", false));
        let wire = Wire::read(folder.path()).unwrap();
        let confirmed: Vec<_> = wire.publications.iter().map(|it| it.confirmed).collect();
        assert_eq!(vec![false, true, false], confirmed);
        let seen = wire.deliveries.iter().map(|it| {
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
