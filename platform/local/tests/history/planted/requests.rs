//! What was answered or refused is wrong.

use std::time::Duration;

use super::{Fault, find, revision, told, written};
use crate::{
    client::NO_LEASE,
    record::{Entries, Entry, Event, History, Moment, Operation, Outcome, What},
};

pub(super) const FAULTS: [Fault; 14] = [
    Fault {
        name: "a read is stale",
        found: "seen before it",
        plant: |history| {
            let reads = |it: &&Operation| it.what == What::Read && it.done().is_some();
            let reads: Vec<_> = history.operations.iter().filter(reads).cloned().collect();
            let (old, new) = (reads.first()?, reads.last()?.begun);
            // It reads what was true once, at that revision: only its time is wrong.
            let place = find(history, |it| it.begun == new)?;
            place.outcome = old.outcome.clone();
            place.key.clone_from(&old.key);
            Some(())
        },
    },
    Fault {
        name: "a read of several keys mixes revisions",
        found: "answers other than",
        plant: |history| {
            let (key, old) =
                told(history).find_map(|it| Some((it.key.clone(), it.entry.clone()?)))?;
            let read = find_range(history, |revision, entries| {
                let now = entries.get(&key);
                revision == 0 && entries.len() > 1 && now.is_some_and(|it| *it != old)
            })?;
            replace(read, key, old)
        },
    },
    Fault {
        name: "a read of old shows what came afterwards",
        found: "answers other than",
        plant: |history| {
            let (key, new) = told(history)
                .filter_map(|it| Some((it.key.clone(), it.entry.clone()?)))
                .last()?;
            let read = find_range(history, |revision, entries| {
                revision > 0 && revision < new.modified && entries.contains_key(&key)
            })?;
            replace(read, key, new)
        },
    },
    Fault {
        name: "what was compacted is read",
        found: "is of what was compacted",
        plant: |history| {
            history
                .operations
                .retain(|it| !matches!(it.what, What::Compact(_)));
            let operation = find_range(history, |revision, _| revision > 0)?;
            let What::Range { revision, .. } = operation.what else {
                return None;
            };
            let compaction = Operation {
                begun: Moment::default(),
                ended: Moment::default(),
                key: String::new(),
                what: What::Compact(revision + 1),
                outcome: done(revision + 1),
            };
            history.operations.push(compaction);
            Some(())
        },
    },
    Fault {
        name: "what is not yet there is read",
        found: "is of the future",
        plant: |history| {
            let operation = find_range(history, |revision, _| revision > 0)?;
            let answered = revision(operation);
            let What::Range { revision, .. } = &mut operation.what else {
                return None;
            };
            *revision = answered + 1;
            Some(())
        },
    },
    Fault {
        name: "a refused write happened",
        found: "nobody asked for",
        plant: |history| refuse_write(history, NO_LEASE),
    },
    Fault {
        name: "a write without a lease is refused for its lease",
        found: "should not be refused",
        plant: |history| refuse_write(history, NO_LEASE),
    },
    Fault {
        name: "a lease that is there is not found",
        found: "should not be refused",
        plant: |history| {
            let granted: Vec<_> = history
                .operations
                .iter()
                .filter(|it| matches!(it.what, What::Grant(_)) && it.applied())
                .cloned()
                .collect();
            let quick = |it: &Operation| {
                let revoked = history
                    .operations
                    .iter()
                    .any(|other| other.what == What::Revoke(it.lease()));
                let grant = granted.iter().find(|grant| grant.lease() == it.lease());
                let soon = grant.is_some_and(|grant| {
                    grant.precedes(it) && it.ended.at < grant.begun.at + Duration::from_secs(1)
                });
                matches!(it.what, What::Put { .. } | What::KeepAlive(_)) && soon && !revoked
            };
            let begun = history.operations.iter().find(|it| quick(it))?.begun;
            find(history, |it| it.begun == begun)?.outcome = Outcome::Refused(NO_LEASE.to_owned());
            Some(())
        },
    },
    Fault {
        name: "a read of now is refused as compacted",
        found: "should not be refused",
        plant: |history| {
            let operation = find_range(history, |revision, _| revision == 0)?;
            let reason = "etcdserver: mvcc: required revision has been compacted";
            operation.outcome = Outcome::Refused(reason.to_owned());
            Some(())
        },
    },
    Fault {
        name: "a read of what is there is refused as compacted",
        found: "should not be refused",
        plant: |history| {
            let operation = find_range(history, |revision, _| revision > 0)?;
            let reason = "etcdserver: mvcc: required revision has been compacted";
            operation.outcome = Outcome::Refused(reason.to_owned());
            // Nobody compacts in this history.
            history
                .operations
                .retain(|it| !matches!(it.what, What::Compact(_)));
            Some(())
        },
    },
    Fault {
        name: "a lease is granted twice",
        found: "grants a lease that is there",
        plant: |history| {
            let granted = |it: &Operation| matches!(it.what, What::Grant(_)) && it.applied();
            let first = find(history, |it| granted(it))?.clone();
            let mut again = first.clone();
            again.begun.order = first.ended.order + 1;
            again.ended.order = first.ended.order + 1;
            history
                .operations
                .retain(|it| it.lease() != first.lease() || it.begun == first.begun);
            history.operations.push(again);
            Some(())
        },
    },
    Fault {
        name: "a lease ends before its time",
        found: "nobody asked for",
        plant: |history| {
            let revoked: Vec<_> = history
                .operations
                .iter()
                .filter(|it| matches!(it.what, What::Revoke(_)) && it.applied())
                .cloned()
                .collect();
            let with_keys = revoked.into_iter().find(|it| {
                let grants = history.operations.iter();
                let mut grants = grants.filter(|other| other.what == What::Grant(it.lease()));
                let (Some(grant), None) = (grants.next(), grants.next()) else {
                    return false;
                };
                let early = grant.begun.at + Duration::from_secs(1);
                let gone = |event: &Event| {
                    let before = event.before.as_ref().map(|entry| entry.lease);
                    event.revision == revision(it)
                        && event.entry.is_none()
                        && before == Some(it.lease())
                        && event.at < early
                        && !may_be_deleted(history, &event.key)
                };
                grant.applied() && it.ended.at < early && told(history).any(gone)
            })?;
            // It was not revoked by anyone.
            history.operations.retain(|it| it.what != with_keys.what);
            Some(())
        },
    },
    Fault {
        name: "a key outlives its revoked lease",
        found: "outlives",
        plant: |history| {
            let put = find(history, |it| {
                matches!(it.what, What::Put { lease, .. } if lease != 0) && it.applied()
            })?
            .clone();
            let revoke = Operation {
                what: What::Revoke(put.lease()),
                begun: put.ended,
                ended: put.ended,
                key: String::new(),
                outcome: done(revision(&put)),
            };
            history.operations.retain(|it| it.what != revoke.what);
            history.operations.push(revoke);
            Some(())
        },
    },
    Fault {
        name: "a key outlives the time of its lease",
        found: "long after its lease",
        plant: |history| {
            let read = find(history, |it| {
                let read = matches!(it.what, What::Read | What::Range { revision: 0, .. });
                let found = it
                    .done()
                    .into_iter()
                    .flat_map(|(_, _, before)| before.values());
                read && found.into_iter().any(|entry| entry.lease != 0)
            })?;
            read.begun.at += Duration::from_mins(1);
            read.ended.at += Duration::from_mins(1);
            Some(())
        },
    },
];

/// That something was done which finds nothing.
fn done(revision: i64) -> Outcome {
    Outcome::Done {
        revision,
        applied: true,
        before: Entries::new(),
    }
}

/// A read of keys as of a revision that was answered.
fn find_range(
    history: &mut History,
    wanted: impl Fn(i64, &Entries) -> bool,
) -> Option<&mut Operation> {
    find(history, |it| match (&it.what, it.done()) {
        (What::Range { revision, .. }, Some((_, _, found))) => wanted(*revision, found),
        _ => false,
    })
}

/// Has a read find something else.
fn replace(operation: &mut Operation, key: String, entry: Entry) -> Option<()> {
    let Outcome::Done { before, .. } = &mut operation.outcome else {
        return None;
    };
    before.insert(key, entry);
    Some(())
}

/// Says of a write that happened that it was refused.
fn refuse_write(history: &mut History, reason: &str) -> Option<()> {
    let (at, key) = written(history)?;
    let mut all = history.operations.iter_mut();
    let written = all.find(|it| it.key == key && it.applied() && revision(it) == at)?;
    written.outcome = Outcome::Refused(reason.to_owned());
    if let What::Put { lease, .. } = &mut written.what {
        *lease = 0;
    }
    Some(())
}

/// Whether a key may have been deleted by a request of which nobody knows whether it happened.
fn may_be_deleted(history: &History, key: &str) -> bool {
    let unknown = |it: &&Operation| it.done().is_none() && it.possible();
    let mut unknown = history.operations.iter().filter(unknown);
    unknown.any(|it| match &it.what {
        What::Delete => it.key == key,
        What::Many { changes, .. } => changes
            .iter()
            .any(|(changed, value)| changed == key && value.is_none()),
        _ => false,
    })
}
