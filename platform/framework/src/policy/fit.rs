//! What settings of a policy cannot do together, and not with those of the clients that follow it.
//!
//! What one pattern says is judged as it is read. Whom a method is called through is known only
//! once a process has its clients: [`misfits`] judges that, when the process starts and before a
//! change is taken.

use std::{collections::BTreeMap, time::Duration};

use super::{Policy, explain};
use crate::{
    config::{self, Entry, Fault},
    contract::{Method, Pattern},
    retry::{self, Way},
};

/// Keys that have a say in whether retries fit a time.
const RETRY: [&str; 5] = [
    "retry.attempt_timeout",
    "retry.attempts_max",
    "retry.backoff_min",
    "retry.backoff_max",
    "retry.multiplier",
];

/// The same of hedging.
const HEDGE: [&str; 4] = [
    "hedge.delay",
    "hedge.delay_min",
    "hedge.delay_from",
    "hedge.attempts_max",
];

impl Policy {
    pub(super) fn check(&self, check: &mut config::Check<'_, '_>) {
        self.is_either(check);
        let Some(timeout) = self.timeout() else {
            return;
        };
        let with_timeout = |keys: &[&'static str]| [keys, &["timeout"]].concat();
        if let Some((key, reason)) = self.retry.does_not_fit(timeout, "timeout") {
            check.refuse_together(&format!("retry.{key}"), &with_timeout(&RETRY), reason);
        }
        if let Some((key, reason)) = self.hedge.does_not_fit(timeout, "timeout") {
            check.refuse_together(&format!("hedge.{key}"), &with_timeout(&HEDGE), reason);
        }
        if self.breaker.slow_call > timeout {
            let shown = humantime::format_duration(timeout);
            let reason = format!(
                "expected no more than timeout, which is {shown}: no call takes longer; lower \
                 slow_call, or raise timeout"
            );
            check.refuse_together("breaker.slow_call", &["timeout"], reason);
        }
    }

    /// Of one method, that it is not said to be both hedged and retried, as its contract makes it
    /// one of the two. Of more, some may be the one and some the other.
    fn is_either(&self, check: &mut config::Check<'_, '_>) {
        if !matches!(check.name().parse(), Ok(Pattern::Method(_))) {
            return;
        }
        let hedged = self.hedge.attempts_max > 1 && check.is_given("hedge.attempts_max");
        let retried = [
            (
                "retry.attempts_max",
                self.retry.attempts_max > 1,
                "expected 1, or none",
            ),
            (
                "retry.attempt_timeout",
                !self.retry.attempt_timeout.is_zero(),
                "expected none",
            ),
        ];
        for (key, says, expected) in retried {
            if hedged && says && check.is_given(key) {
                let reason = format!(
                    "{expected} beside hedge.attempts_max: a method is hedged, if its contract says \
                     that it has no side effects, or else retried; leave out the one that is not meant"
                );
                check.refuse(key, reason);
            }
        }
    }
}

/// A method as a process calls it through one of its clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Called {
    /// The client's name.
    pub client: String,
    /// The method.
    pub method: &'static Method,
    /// Longest time of its unary calls that have none.
    pub timeout_default: Duration,
    /// How long the breakers of the client's endpoints remember a call.
    pub window: Duration,
}

/// What the `configured` policies, noted as `entries`, ask of `calls` that cannot be.
#[must_use]
pub fn misfits(
    configured: &BTreeMap<String, Policy>,
    entries: &[Entry],
    calls: &[Called],
) -> Vec<Fault> {
    let mut faults = Vec::new();
    for called in calls {
        let name = called.method.full_name();
        let lineage = Pattern::Method(name.to_owned()).lineage();
        let policy = lineage
            .map(|pattern| pattern.to_string())
            .find_map(|pattern| configured.get(&pattern));
        let Some(policy) = policy else {
            continue;
        };
        let mut refuse = |key: &str, others: &[&str], reason: String| {
            let own = explain::last_word(entries, name, key);
            let mut others = others.iter();
            let said = own
                .clone()
                .or_else(|| others.find_map(|other| explain::last_word(entries, name, other)));
            // Defaults ask for nothing.
            let Some((pattern, entry)) = said else {
                return;
            };
            let path = format!("{}.{key}", explain::path(&pattern));
            let value = own.and_then(|(_, own)| own.value.as_deref());
            let value = value.map_or_else(String::new, |value| format!(" = {value}"));
            faults.push(Fault {
                origin: entry.origin.clone(),
                reason: format!("{path}{value}: {reason}"),
                key: path,
            });
        };
        called.judge(policy, &mut refuse);
    }
    faults
}

impl Called {
    fn judge(&self, policy: &Policy, refuse: &mut impl FnMut(&str, &[&str], String)) {
        let way = retry::Policy::new(&policy.retry, &policy.hedge).way(self.method.idempotency);
        let default = self.method.is_unary() && policy.timeout().is_none();
        let whole = config::path(["clients", &self.client, "timeout_default"]);
        let whole = format!("{whole} (the policy has no timeout)");
        match way {
            Way::Retried if default => {
                let misfit = policy.retry.does_not_fit(self.timeout_default, &whole);
                if let Some((key, reason)) = misfit {
                    refuse(&format!("retry.{key}"), &RETRY, reason);
                }
            }
            Way::Hedged if default => {
                let misfit = policy.hedge.does_not_fit(self.timeout_default, &whole);
                if let Some((key, reason)) = misfit {
                    refuse(&format!("hedge.{key}"), &HEDGE, reason);
                }
            }
            Way::Once | Way::Retried | Way::Hedged => {}
        }
        let timed = way == Way::Retried && !self.method.client_streaming;
        if timed && policy.retry.attempt_timeout * 2 > self.window {
            let window = config::path(["clients", &self.client, "balance", "breaker", "window"]);
            let shown = humantime::format_duration(self.window);
            let reason = format!(
                "expected no more than half of {window}, which is {shown}: the breaker would have \
                 forgotten one attempt that took too long before the next; lower attempt_timeout, or \
                 raise window"
            );
            refuse("retry.attempt_timeout", &[], reason);
        }
    }
}
