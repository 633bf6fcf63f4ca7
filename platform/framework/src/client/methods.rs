//! What is known of the methods that are called through a channel.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::time::Instant;

use super::{Target, rules::Rules};
use crate::{
    config::Live,
    contract::Method,
    limit::{board::Fill, throttle::Throttle},
    policy::Policies,
    retry::Latencies,
    telemetry::rpc::ClientMethod,
};

/// The methods of a channel.
#[derive(Debug)]
pub(super) struct Methods {
    known: Vec<Called>,
    /// All others, as one to those who measure.
    other: Called,
    policies: Policies,
}

/// One method as it is called at one target.
#[derive(Debug)]
pub(super) struct Called {
    pub(super) method: Option<&'static Method>,
    pub(super) measured: ClientMethod,
    pub(super) throttle: Arc<Throttle>,
    /// What its calls take, where they are hedged by it; others have nothing in common.
    pub(super) latencies: Option<Arc<Latencies>>,
    /// Followed where there is a contract; looked up by the path where not.
    rules: Option<Live<Rules>>,
}

impl Methods {
    pub(super) fn new(methods: &'static [Method], target: &Target, policies: &Policies) -> Self {
        let known = methods.iter().map(|method| {
            let AtTarget {
                throttle,
                latencies,
            } = target.throttles.of(method.path);
            Called {
                method: Some(method),
                measured: ClientMethod::new(method, &target.name),
                throttle,
                latencies: Some(latencies),
                rules: Some(policies.follow(method.full_name()).derive(Rules::new)),
            }
        });
        Self {
            known: known.collect(),
            other: Called {
                method: None,
                measured: ClientMethod::other(&target.name),
                throttle: target.throttles.of("").throttle,
                latencies: None,
                rules: None,
            },
            policies: policies.clone(),
        }
    }

    /// What is known of the method at `path`, and what holds for its calls now.
    pub(super) fn find(&self, path: &str) -> (&Called, Rules) {
        let is_it = |called: &&Called| called.method.is_some_and(|method| method.path == path);
        let called = self.known.iter().find(is_it).unwrap_or(&self.other);
        let rules = match &called.rules {
            Some(rules) => rules.read(|rules| *rules),
            None => Rules::new(&self.policies.find(path.strip_prefix('/').unwrap_or(path))),
        };
        (called, rules)
    }
}

/// What is known of how calls fail and how long they take, by method: channels to one target share
/// it.
#[derive(Debug, Default)]
pub(super) struct Throttles {
    /// As many as contracts name, and one for all that none names.
    by_path: Mutex<HashMap<&'static str, AtTarget>>,
}

#[derive(Debug, Clone, Default)]
struct AtTarget {
    throttle: Arc<Throttle>,
    latencies: Arc<Latencies>,
}

impl Throttles {
    /// What each method of a contract was asked of late; all others as `""`.
    pub(super) fn fills(&self, now: Instant) -> Vec<Fill> {
        let by_path = self.by_path.lock().unwrap_or_else(PoisonError::into_inner);
        let fill = |(path, at): (&&str, &AtTarget)| Fill {
            method: path.trim_start_matches('/').to_owned(),
            ..at.throttle.fill(now)
        };
        by_path.iter().map(fill).collect()
    }

    fn of(&self, path: &'static str) -> AtTarget {
        let mut by_path = self.by_path.lock().unwrap_or_else(PoisonError::into_inner);
        by_path.entry(path).or_default().clone()
    }
}
