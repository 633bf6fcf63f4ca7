//! What holds for calls, read once by each.

use std::{collections::BTreeMap, time::Duration};

use super::Config;
use crate::{breaker, caller::Criticality, config::Live, policy::Policy, retry};

/// What holds for the calls to a target together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Guards {
    /// Calls that may be in flight.
    pub(super) calls_max: usize,
    /// Whether calls are spared where most fail.
    pub(super) throttled: bool,
}

impl Guards {
    fn new(config: &Config) -> Self {
        Self {
            calls_max: config.bulkhead.calls_max,
            throttled: config.throttle.enabled,
        }
    }

    /// Those of the client `name`, as `configs` say at each moment.
    pub(super) fn follow(configs: &Live<BTreeMap<String, Config>>, name: &str) -> Live<Self> {
        let name = name.to_owned();
        configs.derive(move |configs| match configs.get(&name) {
            Some(config) => Self::new(config),
            None => Self::new(&Config::default()),
        })
    }
}

/// What the policy of a method says of its calls, ready to be read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Rules {
    /// Longest time of a call.
    pub(super) timeout: Option<Duration>,
    /// What its calls claim at most, and claim where nobody says anything.
    pub(super) criticality: Option<Criticality>,
    pub(super) retry: retry::Policy,
    pub(super) breaker: breaker::Policy,
}

impl Rules {
    pub(super) fn new(policy: &Policy) -> Self {
        Self {
            timeout: policy.timeout(),
            criticality: policy.criticality,
            retry: retry::Policy::new(&policy.retry, &policy.hedge),
            breaker: policy.breaker,
        }
    }
}
