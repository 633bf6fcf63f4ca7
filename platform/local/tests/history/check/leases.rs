//! Keys go with their leases: not before a lease was revoked or its time was over, and not after.

use std::{collections::HashMap, time::Duration};

use super::Log;
use crate::record::{History, Operation, TTL, What};

/// How long after its time a lease may still be there: servers look for ended leases now and then,
/// give them some time again when they did not run, and tests share their machine.
pub(crate) const SLACK: Duration = Duration::from_millis(2_500);

/// How long a request that was not answered may go on.
const LINGER: Duration = Duration::from_secs(1);

/// What was asked about each lease.
pub(super) struct Leases<'a> {
    by_id: HashMap<i64, Life<'a>>,
    restarts: &'a [(Duration, Duration)],
}

/// What may have happened to one lease.
#[derive(Default)]
struct Life<'a> {
    grants: Vec<&'a Operation>,
    renewals: Vec<&'a Operation>,
    revocations: Vec<&'a Operation>,
}

impl Life<'_> {
    /// Whether there may have been two of one id, one after the other: what is said of the one
    /// need not hold for the other.
    fn is_ambiguous(&self) -> bool {
        self.grants.len() > 1
    }
}

impl<'a> Leases<'a> {
    pub(super) fn new(history: &'a History) -> Self {
        let mut by_id: HashMap<i64, Life<'_>> = HashMap::new();
        for operation in history.operations.iter().filter(|it| it.possible()) {
            let life = by_id.entry(operation.lease()).or_default();
            match operation.what {
                What::Grant(_) => life.grants.push(operation),
                What::KeepAlive(_) => life.renewals.push(operation),
                What::Revoke(_) => life.revocations.push(operation),
                _ => {}
            }
        }
        by_id.remove(&0);
        Self {
            by_id,
            restarts: &history.restarts,
        }
    }

    /// Whether a lease was there all the while: granted before, not revoked and not at its end.
    pub(super) fn surely_there(&self, id: i64, during: &Operation) -> bool {
        let Some(life) = self.by_id.get(&id) else {
            return false;
        };
        let other = |it: &&&Operation| it.begun.order != during.begun.order;
        let grants: Vec<_> = life.grants.iter().filter(other).collect();
        let mut revocations = life.revocations.iter().filter(other);
        let [grant] = grants.as_slice() else {
            return false;
        };
        let begun = life.renewals.iter().chain([*grant]);
        let begun = begun.filter(|it| it.applied() && it.precedes(during));
        let renewed = begun.map(|it| it.begun.at).max();
        grant.applied()
            && grant.precedes(during)
            && !revocations.any(|it| it.begun.order < during.ended.order)
            && renewed.is_some_and(|at| during.ended.at < at + TTL)
    }

    /// Whether a lease was gone all the while: it was revoked before, or its time was over for
    /// long.
    pub(super) fn surely_gone(&self, id: i64, during: &Operation) -> bool {
        let Some(life) = self.by_id.get(&id) else {
            return true;
        };
        let other = |it: &&&Operation| it.begun.order != during.begun.order;
        if life.grants.iter().filter(other).count() > 1 {
            return false;
        }
        let mut revocations = life.revocations.iter().filter(other);
        revocations.any(|it| it.applied() && it.precedes(during))
            || self.over(life, during) < during.begun.at
    }

    /// When a lease was gone at the latest unless something comes after `during`.
    fn over(&self, life: &Life<'_>, during: &Operation) -> Duration {
        let renewals = life.grants.iter().chain(&life.renewals);
        let renewals = renewals.filter(|it| it.begun.order < during.ended.order);
        let renewals = renewals
            .filter(|it| it.begun.order != during.begun.order)
            .map(|it| match it.done() {
                Some(_) => it.ended.at,
                None => it.ended.at.saturating_add(LINGER),
            });
        let restarts = self.restarts.iter();
        let restarts = restarts
            .filter(|(killed, _)| *killed < during.ended.at)
            .map(|(_, back)| *back);
        let renewed = renewals.chain(restarts).max().unwrap_or_default();
        renewed.saturating_add(TTL + SLACK)
    }

    /// Whether a key may have gone at `revision` with its lease.
    pub(super) fn could_end(&self, log: &Log, key: &str, revision: i64) -> bool {
        let Some(id) = ended_with(log, key, revision) else {
            return false;
        };
        let Some(life) = self.by_id.get(&id) else {
            return false;
        };
        let mut revocations = life.revocations.iter();
        let revoked = revocations.any(|it| match it.done() {
            Some((at, ..)) => at == revision,
            None => it.begun.at <= log.known(revision),
        });
        // All that kept it alive did so before it went, as nothing does afterwards.
        let renewals = life.grants.iter().chain(&life.renewals);
        let renewals = renewals.filter(|it| it.applied());
        let renewed = renewals.map(|it| it.begun.at).max().unwrap_or_default();
        let over = revoked || log.known(revision) >= renewed + TTL;
        life.is_ambiguous() || over && !used_after(log, id, revision)
    }

    pub(super) fn check(&self, history: &History, log: &Log, faults: &mut Vec<String>) {
        for operation in &history.operations {
            self.uses(operation, faults);
            self.sees(operation, faults);
        }
        for (id, life) in self.by_id.iter().filter(|(_, it)| !it.is_ambiguous()) {
            for revocation in &life.revocations {
                let Some((revoked, ..)) = revocation.done() else {
                    continue;
                };
                for (key, versions) in &log.keys {
                    let now = versions.range(..=revoked).next_back();
                    let later = versions.range(revoked..);
                    let mut held = now
                        .into_iter()
                        .chain(later)
                        .filter_map(|(_, it)| it.as_ref());
                    if let Some(entry) = held.find(|entry| entry.lease == *id) {
                        faults.push(format!("{key}: {entry:?} outlives {revocation:?}"));
                    }
                }
            }
        }
    }

    /// A lease that is gone is not kept alive, takes no keys and is not revoked again; one that is
    /// there is not granted again.
    fn uses(&self, operation: &Operation, faults: &mut Vec<String>) {
        let id = operation.lease();
        if id == 0 || !operation.applied() {
            return;
        }
        if matches!(operation.what, What::Grant(_)) {
            if self.surely_there(id, operation) {
                faults.push(format!("{operation:?} grants a lease that is there"));
            }
        } else if self.surely_gone(id, operation) {
            let puts = match &operation.what {
                What::Many { changes, .. } => changes.iter().any(|(_, value)| value.is_some()),
                _ => true,
            };
            if puts {
                faults.push(format!("{operation:?} uses a lease that is gone"));
            }
        }
    }

    /// No key is seen long after the time of its lease.
    fn sees(&self, operation: &Operation, faults: &mut Vec<String>) {
        let old = matches!(operation.what, What::Range { revision, .. } if revision != 0);
        let Some((_, _, before)) = operation.done().filter(|_| !old) else {
            return;
        };
        for (key, entry) in before {
            let Some(life) = self.by_id.get(&entry.lease) else {
                continue;
            };
            if self.over(life, operation) < operation.begun.at {
                faults.push(format!("{operation:?} sees {key} long after its lease"));
            }
        }
    }
}

/// The lease that a key may have gone with at a revision: all its other keys went at once.
fn ended_with(log: &Log, key: &str, revision: i64) -> Option<i64> {
    let before = log.at(key, revision - 1)?;
    let lease = Some(before.lease).filter(|id| *id != 0)?;
    let holds = |key: &String| log.at(key, revision).is_some_and(|it| it.lease == lease);
    (!log.keys.keys().any(holds)).then_some(lease)
}

/// Whether a lease got a key after a revision.
fn used_after(log: &Log, id: i64, revision: i64) -> bool {
    let mut versions = log.keys.values().flat_map(|it| it.range(revision..));
    versions.any(|(_, entry)| entry.as_ref().is_some_and(|it| it.lease == id))
}
