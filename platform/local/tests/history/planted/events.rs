//! What was told is wrong.

use super::{Fault, find, lose, told, torn, written};
use crate::record::{History, Moment, Outcome, Skipped, Told, What};

pub(super) const FAULTS: [Fault; 14] = [
    Fault {
        name: "a write is lost",
        found: "is not None",
        plant: |history| {
            let (revision, key) = written(history)?;
            lose(history, revision, &key);
            Some(())
        },
    },
    Fault {
        name: "a write is replaced",
        found: "nobody asked for",
        plant: |history| {
            let (revision, key) = written(history)?;
            for told in history.watched.iter_mut().flat_map(|it| &mut it.told) {
                if let Told::Event(event) = told
                    && (event.revision, &event.key) == (revision, &key)
                {
                    "another".clone_into(&mut event.entry.as_mut()?.value);
                }
            }
            Some(())
        },
    },
    Fault {
        name: "an event comes twice",
        found: "watcher 1 told",
        plant: |history| {
            let middle = middle(&history.watched[1].told)?;
            let told = &mut history.watched[1].told;
            told.insert(middle, told[middle].clone());
            Some(())
        },
    },
    Fault {
        name: "events change places",
        found: "watcher 1 told",
        plant: |history| {
            let middle = middle(&history.watched[1].told)?;
            history.watched[1].told.swap(middle, middle + 1);
            Some(())
        },
    },
    Fault {
        name: "an event is missing",
        found: "watcher 1 ",
        plant: |history| {
            let middle = middle(&history.watched[1].told)?;
            history.watched[1].told.remove(middle);
            Some(())
        },
    },
    Fault {
        name: "the last event is missing",
        found: "watcher 1 was not told",
        plant: |history| {
            let told = &mut history.watched[1].told;
            let last = told.iter().rposition(|it| matches!(it, Told::Event(_)))?;
            told.truncate(last);
            Some(())
        },
    },
    Fault {
        name: "what was there before is wrong",
        found: "watcher 1 told",
        plant: |history| {
            let mut events = history.watched[1].told.iter_mut().rev();
            let before = events.find_map(|told| match told {
                Told::Event(event) => event.before.as_mut(),
                _ => None,
            })?;
            before.version += 1;
            Some(())
        },
    },
    Fault {
        name: "half of a transaction is not done",
        found: "is not ",
        plant: |history| {
            let (_, revision, key) = torn(history)?;
            lose(history, revision, &key);
            Some(())
        },
    },
    Fault {
        name: "half of a transaction is lost in a crash",
        found: "happened in part",
        plant: |history| {
            let (place, revision, key) = torn(history)?;
            history.operations[place].outcome = Outcome::Unknown;
            lose(history, revision, &key);
            Some(())
        },
    },
    Fault {
        name: "progress runs ahead of events",
        found: "was told progress to",
        plant: |history| {
            let middle = middle(&history.watched[1].told)?;
            let told = &mut history.watched[1].told;
            let Told::Event(event) = &told[middle] else {
                return None;
            };
            let progress = Told::Progress(event.revision);
            told.insert(middle, progress);
            Some(())
        },
    },
    Fault {
        name: "progress to what never was",
        found: "never reached",
        plant: |history| {
            let progress = Told::Progress(history.last + 1);
            history.watched[1].told.push(progress);
            Some(())
        },
    },
    Fault {
        name: "history begins where nobody compacted to",
        found: "was told without reason",
        plant: |history| {
            let asked = |revision| {
                let mut all = history.operations.iter();
                all.any(|it| it.what == What::Compact(revision))
            };
            let revision = told(history).map(|it| it.revision).find(|it| !asked(*it))?;
            skip(history, revision, revision - 1)
        },
    },
    Fault {
        name: "history is gone that was not",
        found: "was told without reason",
        plant: |history| {
            let revision = compacted(history)?;
            skip(history, revision, revision)
        },
    },
    Fault {
        name: "history begins where someone compacts to afterwards",
        found: "was told without reason",
        plant: |history| {
            let revision = compacted(history)?;
            skip(history, revision, revision - 1)?;
            let last = history.operations.len() + 1;
            for operation in &mut history.operations {
                if operation.what == What::Compact(revision) {
                    operation.begun.order = u64::MAX - u64::try_from(last).ok()?;
                    operation.ended.order = u64::MAX;
                }
            }
            Some(())
        },
    },
];

/// The middle one of two events that follow each other.
fn middle(told: &[Told]) -> Option<usize> {
    let event = |it: &Told| matches!(it, Told::Event(_));
    let all = 0..told.len().saturating_sub(1);
    let pairs = all.filter(|it| event(&told[*it]) && event(&told[it + 1]));
    pairs.min_by_key(|it| it.abs_diff(told.len() / 2))
}

/// A revision that was compacted to.
fn compacted(history: &mut History) -> Option<i64> {
    let found = find(history, |it| {
        matches!(it.what, What::Compact(_)) && it.applied()
    })?;
    match found.what {
        What::Compact(revision) => Some(revision),
        _ => None,
    }
}

/// Tells a watcher that history begins at `revision` before it was told anything else.
fn skip(history: &mut History, revision: i64, wanted: i64) -> Option<()> {
    let ended = history.operations.iter().map(|it| it.ended.order);
    let order = ended.filter(|it| *it < u64::MAX).max()?;
    let skipped = Skipped {
        wanted,
        revision,
        begun: Moment::default(),
        ended: Moment {
            order,
            ..Moment::default()
        },
    };
    history.watched[1].told.insert(0, Told::Skipped(skipped));
    Some(())
}
