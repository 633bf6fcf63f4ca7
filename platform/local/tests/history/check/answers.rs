//! Answers fit the state at their revision, and revisions the real order of requests.

use super::Log;
use crate::record::{Entries, Event, Operation, Outcome, What};

/// Checks every answer, and what is known of those that were not answered.
pub(super) fn check(operations: &[Operation], log: &Log, faults: &mut Vec<String>) {
    for operation in operations.iter().filter(|it| it.is_of_keys()) {
        if let Some((revision, applied, before)) = operation.done() {
            answer(operation, (revision, applied, before), log, faults);
        } else if operation.outcome == Outcome::Unknown {
            whole(operation, log, faults);
        }
    }
    real_time(operations, faults);
}

/// An answer must fit the state at its revision.
fn answer(
    operation: &Operation,
    (revision, applied, before): (i64, bool, &Entries),
    log: &Log,
    faults: &mut Vec<String>,
) {
    let asked_at = match operation.what {
        What::Range { revision: 0, .. } => revision,
        What::Range { revision: old, .. } => old,
        _ => revision - i64::from(applied),
    };
    let state = log.state(operation, asked_at);
    if state != *before {
        faults.push(format!("{operation:?} answers other than {state:?}"));
    }
    let key = &operation.key;
    let event = log.event(key, revision);
    let modified = before.get(key).map_or(0, |entry| entry.modified);
    let right = match &operation.what {
        What::Put { value, lease } => applied && puts(event, value, *lease),
        What::Delete if applied => event.is_some_and(|event| event.entry.is_none()),
        What::Delete => before.is_empty(),
        What::Swap {
            modified: wanted,
            value,
        } if applied => *wanted == modified && puts(event, value, 0),
        What::Swap {
            modified: wanted, ..
        } => *wanted != modified,
        What::Many { .. } if applied => happened(operation, log, revision),
        What::Many { changes, .. } => {
            before.is_empty() && changes.iter().all(|(_, value)| value.is_none())
        }
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

/// Whether all changes of a transaction happened at this revision.
fn happened(operation: &Operation, log: &Log, revision: i64) -> bool {
    let What::Many { changes, lease } = &operation.what else {
        return true;
    };
    changes.iter().all(|(key, value)| match value {
        Some(value) => puts(log.event(key, revision), value, *lease),
        None => log.at(key, revision).is_none(),
    })
}

/// A transaction of which it is not known whether it happened did so wholly or not at all.
fn whole(operation: &Operation, log: &Log, faults: &mut Vec<String>) {
    let What::Many { changes, .. } = &operation.what else {
        return;
    };
    let seen = log.events.values().find(|event| {
        let value = event.entry.as_ref().map(|entry| &entry.value);
        value.is_some_and(|value| {
            let mut changes = changes.iter();
            changes.any(|(key, put)| *key == event.key && put.as_ref() == Some(value))
        })
    });
    if let Some(event) = seen
        && !happened(operation, log, event.revision)
    {
        faults.push(format!("{operation:?} happened in part: {event:?}"));
    }
}

/// What begins after something has ended comes after it, and sees it.
fn real_time(operations: &[Operation], faults: &mut Vec<String>) {
    let answered = operations.iter().filter(|it| it.is_of_keys());
    let mut by_end: Vec<_> = answered.filter(|it| it.done().is_some()).collect();
    by_end.sort_by_key(|operation| operation.ended.order);
    let mut by_begin = by_end.clone();
    by_begin.sort_by_key(|operation| operation.begun.order);
    let mut ended = by_end.into_iter().peekable();
    let mut seen = 0;
    for operation in by_begin {
        while let Some(before) = ended.next_if(|it| it.precedes(operation)) {
            seen = seen.max(before.done().map_or(0, |(revision, ..)| revision));
        }
        let revision = operation.done().map_or(0, |(revision, ..)| revision);
        if revision < seen + i64::from(operation.applied()) {
            faults.push(format!(
                "{operation:?} is older than {seen}, seen before it"
            ));
        }
    }
}
