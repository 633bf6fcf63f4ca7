//! A rule of the configuration that needs what is known only while the process runs.

use std::{
    any::Any,
    fmt,
    sync::{Arc, OnceLock},
};

use super::{Entry, Fault};

type Judge = dyn Fn(&dyn Any, &[Entry]) -> Vec<Fault> + Send + Sync;

/// The rule, once there is one; clones are the same.
#[derive(Clone, Default)]
pub(super) struct Rule(Arc<OnceLock<Box<Judge>>>);

impl fmt::Debug for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Rule")
            .field(&self.0.get().is_some())
            .finish()
    }
}

impl Rule {
    /// Sets it, for a configuration of type `C`; the first one stays.
    pub(super) fn set<C: 'static>(
        &self,
        judge: impl Fn(&C, &[Entry]) -> Vec<Fault> + Send + Sync + 'static,
    ) {
        let judge = move |config: &dyn Any, entries: &[Entry]| {
            let config = config.downcast_ref::<C>();
            config.map_or_else(Vec::new, |config| judge(config, entries))
        };
        // A second one is a mistake that costs a rule and no more.
        let _: Result<(), Box<Judge>> = self.0.set(Box::new(judge));
    }

    /// What is wrong by it.
    pub(super) fn judge<C: 'static>(&self, config: &C, entries: &[Entry]) -> Vec<Fault> {
        let judge = self.0.get();
        judge.map_or_else(Vec::new, |judge| judge(config, entries))
    }
}
