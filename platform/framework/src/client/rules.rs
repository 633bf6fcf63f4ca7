//! What holds for calls that fail, and for how many there may be.

use std::collections::BTreeMap;

use super::{Config, Target};
use crate::{config::Live, contract::Method, retry};

/// Settings of calls that may change while the process runs; a call sees one version of them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Rules {
    pub(super) retry: retry::Policy,
    /// Calls to the target that may be in flight.
    pub(super) calls_max: usize,
    /// Whether calls are spared where most fail.
    pub(super) throttled: bool,
}

impl Rules {
    fn new(config: &Config) -> Self {
        Self {
            retry: retry::Policy::new(&config.retry, &config.hedge),
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

impl Target {
    /// What holds for a call of `method`, by now the same for all of them.
    pub(super) fn policy_of(&self, _method: Option<&Method>) -> Rules {
        self.rules.read(|rules| *rules)
    }
}
