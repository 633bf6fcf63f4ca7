//! What was refused was wrong when it was asked, and what was wrong was refused.

use super::leases::Leases;
use crate::{
    client::NO_LEASE,
    record::{History, Operation, Outcome, What},
};

const LEASE_THERE: &str = "etcdserver: lease already exists";
const COMPACTED: &str = "etcdserver: mvcc: required revision has been compacted";
const FUTURE: &str = "etcdserver: mvcc: required revision is a future revision";

pub(super) fn check(history: &History, leases: &Leases<'_>, faults: &mut Vec<String>) {
    let all = &history.operations;
    for operation in all {
        if let Outcome::Refused(reason) = &operation.outcome {
            if !rightly(operation, reason, history, leases) {
                faults.push(format!("{operation:?} should not be refused"));
            }
        } else if let Some((revision, applied, _)) = operation.done() {
            let wanted = wanted(operation);
            if wanted > revision {
                faults.push(format!("{operation:?} is of the future"));
            }
            if lowest(operation, acknowledged(all, |it| it.precedes(operation))) > wanted
                && wanted > 0
            {
                faults.push(format!("{operation:?} is of what was compacted"));
            }
            let kept = matches!(operation.what, What::KeepAlive(_)) && !applied;
            if kept && leases.surely_there(operation.lease(), operation) {
                faults.push(format!("{operation:?} should keep its lease alive"));
            }
        }
    }
}

/// The revision that is asked for; 0 for none.
fn wanted(operation: &Operation) -> i64 {
    match operation.what {
        What::Range { revision, .. } | What::Compact(revision) => revision,
        _ => 0,
    }
}

/// The lowest revision that is not refused once history was compacted to `compacted`.
fn lowest(operation: &Operation, compacted: i64) -> i64 {
    match operation.what {
        What::Compact(_) => compacted + 1,
        _ => compacted,
    }
}

/// The highest revision that was compacted to by those that `which` takes.
pub(super) fn acknowledged(all: &[Operation], which: impl Fn(&Operation) -> bool) -> i64 {
    let applied = all.iter().filter(|it| it.applied() && which(it));
    let compactions = applied.filter_map(|it| match it.what {
        What::Compact(revision) => Some(revision),
        _ => None,
    });
    compactions.max().unwrap_or(-1)
}

/// Revisions that may have been compacted to by those that `which` takes.
pub(super) fn possible(
    history: &History,
    which: impl Fn(&Operation) -> bool,
) -> impl Iterator<Item = i64> {
    let asked = history.operations.iter();
    let asked = asked.filter(move |it| it.possible() && which(it));
    asked.filter_map(|it| match it.what {
        What::Compact(revision) if revision <= history.last => Some(revision),
        _ => None,
    })
}

fn rightly(operation: &Operation, reason: &str, history: &History, leases: &Leases<'_>) -> bool {
    let all = &history.operations;
    let id = operation.lease();
    let wanted = wanted(operation);
    match (&operation.what, reason) {
        (What::Put { .. } | What::Many { .. } | What::Revoke(_) | What::KeepAlive(_), NO_LEASE) => {
            id != 0 && !leases.surely_there(id, operation)
        }
        (What::Grant(_), LEASE_THERE) => {
            let mut others = all.iter().filter(|it| it.what == operation.what);
            let granted = others.any(|it| {
                it.possible()
                    && it.begun.order < operation.ended.order
                    && it.begun.order != operation.begun.order
            });
            granted && !leases.surely_gone(id, operation)
        }
        (What::Range { .. } | What::Compact(_), COMPACTED) if wanted > 0 => {
            let before = |it: &Operation| {
                it.begun.order < operation.ended.order && it.begun.order != operation.begun.order
            };
            possible(history, before).any(|compacted| wanted < lowest(operation, compacted))
        }
        (What::Range { .. } | What::Compact(_), FUTURE) => {
            let before = all.iter().filter(|it| it.precedes(operation));
            let seen = before.filter_map(|it| it.done().map(|(revision, ..)| revision));
            seen.max().unwrap_or(1) < wanted
        }
        _ => false,
    }
}
