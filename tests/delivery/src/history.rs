//! What was asked for and answered, written down by whoever asks: before each request, and after it.

use std::{collections::BTreeMap, io, path::Path};

use gantry_store::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    evidence::{Outcome, Request},
    lines::{self, Lines},
};

/// The driver's history: append-only, and on disk before what it tells of goes on.
#[derive(Debug)]
pub struct History {
    lines: Lines,
}

/// A line of the history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
enum Line {
    /// Something is asked for, for the first time or again.
    Invoke {
        request_id: String,
        account: String,
        amount: i64,
        poisoned: bool,
    },
    /// What came of it.
    Answer {
        request_id: String,
        outcome: Outcome,
        /// What was said, where it is no success.
        error: String,
    },
    /// Something that was done to the system.
    Done {
        to: String,
        /// When, in microseconds of the clock of the system.
        at: i64,
    },
}

impl History {
    /// A history in the file at `path`.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self {
            lines: Lines::open(path)?,
        })
    }

    /// Notes that something is about to be asked for.
    ///
    /// # Errors
    ///
    /// If it is not on disk: then nothing must be asked for.
    pub fn invoke(&self, request_id: &str, request: &Request) -> io::Result<()> {
        self.lines.add_for_good(&Line::Invoke {
            request_id: request_id.to_owned(),
            account: request.account.clone(),
            amount: request.amount,
            poisoned: request.poisoned,
        })
    }

    /// Notes what came of it.
    ///
    /// # Errors
    ///
    /// If it is not on disk: then nobody knows what came of it.
    pub fn answer(&self, request_id: &str, outcome: Outcome, error: &str) -> io::Result<()> {
        self.lines.add_for_good(&Line::Answer {
            request_id: request_id.to_owned(),
            outcome,
            error: error.to_owned(),
        })
    }

    /// Notes something that is done to the system, for whoever reads the history.
    ///
    /// # Errors
    ///
    /// If it is not on disk.
    pub fn done(&self, to: impl Into<String>) -> io::Result<()> {
        self.lines.add_for_good(&Line::Done {
            to: to.into(),
            at: Timestamp::now().micros(),
        })
    }
}

/// What a history says of every request. One that was asked for several times is done if any answer
/// says so, and failed for good if all of them say that.
///
/// # Errors
///
/// If it cannot be read.
pub fn requests(path: &Path) -> io::Result<BTreeMap<String, Request>> {
    let mut requests = BTreeMap::<String, Request>::new();
    // Of each, how often it was asked for, and how often it was refused for good.
    let mut counts = BTreeMap::<String, (u64, u64)>::new();
    for line in lines::read(path)? {
        match line {
            Line::Invoke {
                request_id,
                account,
                amount,
                poisoned,
            } => {
                counts.entry(request_id.clone()).or_default().0 += 1;
                let outcome = Outcome::Unknown;
                let request = Request {
                    account,
                    amount,
                    poisoned,
                    outcome,
                };
                requests.entry(request_id).or_insert(request);
            }
            Line::Answer {
                request_id,
                outcome: Outcome::Ok,
                ..
            } => {
                if let Some(request) = requests.get_mut(&request_id) {
                    request.outcome = Outcome::Ok;
                }
            }
            Line::Answer {
                request_id,
                outcome: Outcome::Failed,
                ..
            } => {
                counts.entry(request_id).or_default().1 += 1;
            }
            Line::Answer { .. } | Line::Done { .. } => {}
        }
    }
    for (id, request) in &mut requests {
        let (invoked, failed) = counts[id];
        if request.outcome == Outcome::Unknown && invoked == failed {
            request.outcome = Outcome::Failed;
        }
    }
    Ok(requests)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: what came of a request is what people were told last, and nobody says for good that it
    /// failed while an answer is missing.
    /// Method: requests with every run of answers, some of them asked for twice; the file read back.
    #[test]
    fn answers_are_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/history.jsonl");
        let history = History::open(&path).unwrap();
        let request = Request {
            account: "ada".to_owned(),
            amount: -5,
            poisoned: true,
            outcome: Outcome::Unknown,
        };
        let [ok, failed, unknown] = [Outcome::Ok, Outcome::Failed, Outcome::Unknown];
        let none = None;
        let cases: [(&str, &[Option<Outcome>], Outcome); 8] = [
            ("done", &[Some(ok)], ok),
            ("refused", &[Some(failed)], failed),
            ("open", &[none], unknown),
            ("lost", &[Some(unknown)], unknown),
            ("done-later", &[Some(unknown), Some(ok)], ok),
            ("done-before", &[Some(ok), Some(failed)], ok),
            ("refused-later", &[Some(unknown), Some(failed)], unknown),
            ("refused-twice", &[Some(failed), Some(failed)], failed),
        ];
        for (id, answers, _) in cases {
            for answer in answers {
                history.invoke(id, &request).unwrap();
                if let Some(outcome) = answer {
                    history.answer(id, *outcome, "why").unwrap();
                }
            }
        }
        history.done("nothing").unwrap();
        let read = requests(&path).unwrap();
        assert_eq!(cases.len(), read.len());
        for (id, _, outcome) in cases {
            let expected = Request {
                outcome,
                ..request.clone()
            };
            assert_eq!(expected, read[id], "{id}");
        }
    }
}
