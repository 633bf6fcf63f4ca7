//! Whether a history could be of a store that does one thing after another.
//!
//! Revisions say the order, so nothing has to be searched: the first watcher's events are replayed,
//! and then every answer must fit the state at its revision, every revision the real order of
//! requests, every event someone who asked for it, and every other watcher the first.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::record::{Entry, Event, History, Operation, Outcome, Told, Watched, What};

/// What happened, replayed from the first watcher's events.
struct Log {
    events: BTreeMap<(i64, String), Event>,
    /// Each key through time.
    keys: HashMap<String, BTreeMap<i64, Option<Entry>>>,
}

/// Finds what is wrong with a history.
pub(crate) fn faults(history: &History) -> Vec<String> {
    let (log, mut faults) = replay(history);
    for operation in &history.operations {
        answer(operation, &log, &mut faults);
    }
    real_time(&history.operations, &mut faults);
    leases(&history.operations, &mut faults);
    origins(history, &log, &mut faults);
    for (number, watched) in history.watched.iter().enumerate() {
        watcher(number, watched, history, &log, &mut faults);
    }
    faults
}

/// How many keys went with their leases.
pub(crate) fn ended(history: &History) -> usize {
    let (log, _) = replay(history);
    let events = log.events.iter();
    let gone = events.filter(|(_, event)| event.entry.is_none());
    gone.filter(|((revision, key), _)| lease_ended(&log, key, *revision))
        .count()
}

fn replay(history: &History) -> (Log, Vec<String>) {
    let mut faults = Vec::new();
    let mut log = Log {
        events: BTreeMap::new(),
        keys: HashMap::new(),
    };
    for told in &history.watched[0].told {
        let Told::Event(event) = told else {
            faults.push("the first watcher missed something".to_owned());
            continue;
        };
        let before = log.at(&event.key, event.revision - 1);
        let right = match (&event.entry, &before) {
            (None, before) => before.is_some(),
            (Some(new), None) => new.version == 1 && new.created == event.revision,
            (Some(new), Some(old)) => new.version == old.version + 1 && new.created == old.created,
        };
        if !right {
            faults.push(format!("{event:?} does not follow {before:?}"));
        }
        let versions = log.keys.entry(event.key.clone()).or_default();
        versions.insert(event.revision, event.entry.clone());
        let place = (event.revision, event.key.clone());
        if log.events.insert(place, event.clone()).is_some() {
            faults.push(format!("two events of one key at once: {event:?}"));
        }
    }
    let revisions: HashSet<_> = log.events.keys().map(|(revision, _)| *revision).collect();
    for revision in 2..=history.last {
        if !revisions.contains(&revision) {
            faults.push(format!("nothing was changed at revision {revision}"));
        }
    }
    (log, faults)
}

impl Log {
    fn at(&self, key: &str, revision: i64) -> Option<Entry> {
        let versions = self.keys.get(key)?;
        versions.range(..=revision).next_back()?.1.clone()
    }
}

/// An answer must fit the state at its revision.
fn answer(operation: &Operation, log: &Log, faults: &mut Vec<String>) {
    let Outcome::Done {
        revision,
        applied,
        before,
    } = &operation.outcome
    else {
        return;
    };
    let key = &operation.key;
    if key.is_empty() {
        return;
    }
    let state = log.at(key, revision - i64::from(*applied));
    if state != *before {
        faults.push(format!("{operation:?} answers other than {state:?}"));
    }
    let event = log.events.get(&(*revision, key.clone()));
    let modified = before.as_ref().map_or(0, |entry| entry.modified);
    let right = match &operation.what {
        What::Put { value, lease } => *applied && puts(event, value, *lease),
        What::Delete if *applied => event.is_some_and(|event| event.entry.is_none()),
        What::Delete => before.is_none(),
        What::Swap {
            modified: wanted,
            value,
        } if *applied => *wanted == modified && puts(event, value, 0),
        What::Swap {
            modified: wanted, ..
        } => *wanted != modified,
        _ => !applied,
    };
    if !right {
        faults.push(format!("{operation:?} is not {event:?}"));
    }
}

fn puts(event: Option<&Event>, value: &str, lease: i64) -> bool {
    let entry = event.and_then(|event| event.entry.as_ref());
    entry.is_some_and(|entry| entry.value == value && entry.lease == lease)
}

/// What begins after something has ended comes after it, and sees it.
fn real_time(operations: &[Operation], faults: &mut Vec<String>) {
    let done = |operation: &Operation| match operation.outcome {
        Outcome::Done {
            revision, applied, ..
        } if !operation.key.is_empty() => Some((revision, applied)),
        _ => None,
    };
    let mut by_end: Vec<_> = operations.iter().filter(|it| done(it).is_some()).collect();
    by_end.sort_by_key(|operation| operation.ended);
    let mut by_begin = by_end.clone();
    by_begin.sort_by_key(|operation| operation.begun);
    let mut ended = by_end.into_iter().peekable();
    let mut seen = 0;
    for operation in by_begin {
        while let Some(before) = ended.next_if(|it| it.ended < operation.begun) {
            seen = seen.max(done(before).map_or(0, |(revision, _)| revision));
        }
        let (revision, applied) = done(operation).unwrap_or_default();
        if revision < seen + i64::from(applied) {
            faults.push(format!(
                "{operation:?} is older than {seen}, seen before it"
            ));
        }
    }
}

/// A lease that was revoked is not kept alive afterwards, and takes no keys.
fn leases(operations: &[Operation], faults: &mut Vec<String>) {
    let done = |it: &&Operation| matches!(it.outcome, Outcome::Done { .. });
    let revoked = operations
        .iter()
        .filter(done)
        .filter_map(|it| match it.what {
            What::Revoke(id) => Some((id, it.ended)),
            _ => None,
        });
    let revoked: HashMap<_, _> = revoked.collect();
    for operation in operations {
        let Outcome::Done { applied: true, .. } = operation.outcome else {
            continue;
        };
        let (What::KeepAlive(id) | What::Put { lease: id, .. }) = operation.what else {
            continue;
        };
        if revoked.get(&id).is_some_and(|end| *end < operation.begun) {
            faults.push(format!("{operation:?} uses a lease that was revoked"));
        }
    }
}

/// Every event is someone's, of whom it is not known that it is not.
fn origins(history: &History, log: &Log, faults: &mut Vec<String>) {
    let mut puts = HashMap::new();
    let mut deletes: HashMap<&str, Vec<&Operation>> = HashMap::new();
    for operation in &history.operations {
        match &operation.what {
            What::Put { value, .. } | What::Swap { value, .. } => {
                puts.insert(value.as_str(), operation);
            }
            What::Delete => deletes.entry(&operation.key).or_default().push(operation),
            _ => {}
        }
    }
    let could = |operation: &Operation, revision: i64| match &operation.outcome {
        Outcome::Unknown => true,
        Outcome::Refused(_) => false,
        Outcome::Done {
            revision: at,
            applied,
            ..
        } => *applied && *at == revision,
    };
    let mut used = HashSet::new();
    for ((revision, key), event) in &log.events {
        let known = if let Some(entry) = &event.entry {
            let operation = puts.get(entry.value.as_str());
            used.insert(entry.value.as_str())
                && operation.is_some_and(|it| it.key == *key && could(it, *revision))
        } else {
            let asked = deletes.get(key.as_str());
            asked.is_some_and(|all| all.iter().any(|it| could(it, *revision)))
                || lease_ended(log, key, *revision)
        };
        if !known {
            faults.push(format!("nobody asked for {event:?}"));
        }
    }
}

/// Whether a key went with its lease: all its other keys went at once, and it got none afterwards.
fn lease_ended(log: &Log, key: &str, revision: i64) -> bool {
    let before = log.at(key, revision - 1);
    let Some(lease) = before.map(|entry| entry.lease).filter(|id| *id != 0) else {
        return false;
    };
    let holds = |entry: &Option<Entry>| entry.as_ref().is_some_and(|it| it.lease == lease);
    log.keys.values().all(|versions| {
        let now = versions.range(..=revision).next_back();
        !now.is_some_and(|(_, entry)| holds(entry))
            && !versions.range(revision..).any(|(_, entry)| holds(entry))
    })
}

/// A watcher is told of every change of its keys, once and in order, and what was there before.
fn watcher(
    number: usize,
    watched: &Watched,
    history: &History,
    log: &Log,
    faults: &mut Vec<String>,
) {
    let (from, to) = &watched.keys;
    let wanted = log.events.values();
    let mut wanted = wanted
        .filter(|event| *from <= event.key && event.key < *to)
        .peekable();
    for told in &watched.told {
        let event = match told {
            Told::Event(event) => event,
            Told::Skipped(revision) => {
                while wanted.next_if(|event| event.revision < *revision).is_some() {}
                continue;
            }
        };
        let same = |wanted: &Event| {
            (wanted.revision, &wanted.key, &wanted.entry)
                == (event.revision, &event.key, &event.entry)
        };
        let expected = wanted.next();
        if !expected.is_some_and(same) {
            faults.push(format!("watcher {number} told {event:?}, not {expected:?}"));
            return;
        }
        let before = log.at(&event.key, event.revision - 1);
        let forgotten = event.before.is_none() && event.revision - 1 < history.compacted;
        if event.before != before && !forgotten {
            faults.push(format!("watcher {number} told {event:?} after {before:?}"));
        }
    }
    if let Some(missed) = wanted.next() {
        faults.push(format!("watcher {number} was not told {missed:?}"));
    }
}
