//! More or fewer instances of services.

use std::{collections::BTreeSet, time::Duration};

use super::{Fault, Progress, Supervisor};
use crate::{
    project::check_replicas,
    supervisor::{roster::Id, world::World},
};

impl<W: World> Supervisor<W> {
    /// Runs as many instances of each service as `counts` says.
    ///
    /// What is missing is started first, all at once. Where some of it does not come to serve, that
    /// is removed again, the rest stays, and nothing is drained. Then the youngest of what is too
    /// much drain, callers before those they call.
    pub(super) async fn scale(
        &self,
        counts: &[(String, u16)],
        timeout: Duration,
        progress: &Progress,
    ) -> Result<(), Fault> {
        for (service, count) in counts {
            if !self.shared.specs.contains_key(service) {
                return Err(self.unknown("service", service));
            }
            let fault = |why| Fault::usage(format!("{service}={count}: {why}"));
            check_replicas(*count).map_err(fault)?;
        }
        let names: BTreeSet<_> = counts.iter().map(|(name, _)| name.clone()).collect();
        if names.len() < counts.len() {
            return Err(Fault::usage("a service is named twice"));
        }
        let claim = self.claim(names)?;
        self.grow(counts, timeout, progress).await?;
        self.shrink(counts, progress).await?;
        drop(claim);
        Ok(())
    }

    async fn grow(
        &self,
        counts: &[(String, u16)],
        timeout: Duration,
        progress: &Progress,
    ) -> Result<(), Fault> {
        let mut joined = Vec::new();
        for (service, count) in counts {
            let now = self.shared.roster().settled(service).len();
            let missing = usize::from(*count).saturating_sub(now);
            match self.join(service, missing, None) {
                Ok(ids) => joined.extend(ids),
                Err(fault) => {
                    self.leave(&joined)?;
                    self.gone(&joined, progress).await?;
                    return Err(fault);
                }
            }
        }
        let failed = self.come_up(&joined, timeout, progress).await?;
        let lost: Vec<_> = failed.iter().map(|(id, _)| id.clone()).collect();
        joined.retain(|id| !lost.contains(id));
        self.settle(&joined);
        if failed.is_empty() {
            return Ok(());
        }
        self.leave(&lost)?;
        self.gone(&lost, progress).await?;
        Err(Fault::undone(&failed, "removed again"))
    }

    async fn shrink(&self, counts: &[(String, u16)], progress: &Progress) -> Result<(), Fault> {
        for group in &self.shared.order {
            let too_much = |(service, count): &(String, u16)| {
                let settled = self.shared.roster().settled(service);
                settled.into_iter().skip(usize::from(*count))
            };
            let members = counts.iter().filter(|(name, _)| group.contains(name));
            let leaving: Vec<Id> = members.flat_map(too_much).collect();
            self.leave(&leaving)?;
            self.gone(&leaving, progress).await?;
        }
        Ok(())
    }
}
