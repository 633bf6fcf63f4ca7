//! New processes for old ones, without a gap.

use std::{collections::BTreeSet, slice, time::Duration};

use super::{Fault, Progress, Supervisor, Targets};
use crate::supervisor::{roster::Id, world::World};

impl<W: World> Supervisor<W> {
    /// Replaces instances one after the other: a successor with a place of its own serves before
    /// the old one is told to drain, and the next one's turn comes when the old one is gone.
    ///
    /// A successor that does not come to serve is removed, the old one stays, and no further one
    /// is replaced. Once nobody asks any more, the replacement at hand is finished and no further
    /// one begun.
    pub(super) async fn restart(
        &self,
        targets: &Targets,
        timeout: Duration,
        progress: &Progress,
    ) -> Result<(), Fault> {
        let names = self.names(targets);
        let services = names.iter().map(|name| self.service_of(name));
        let services = services.collect::<Result<BTreeSet<_>, _>>()?;
        let claim = self.claim(services)?;
        for old in self.chosen(&names)? {
            if progress.abandoned() {
                break;
            }
            self.replace(&old, timeout, progress).await?;
        }
        drop(claim);
        Ok(())
    }

    fn names(&self, targets: &Targets) -> Vec<String> {
        match targets {
            Targets::Named(names) => names.clone(),
            // The order of draining is callers first.
            Targets::All => self.shared.order.iter().rev().flatten().cloned().collect(),
        }
    }

    /// The service that `name` is, or is an instance of.
    fn service_of(&self, name: &str) -> Result<String, Fault> {
        if self.shared.specs.contains_key(name) {
            return Ok(name.to_owned());
        }
        let roster = self.shared.roster();
        let instance = roster.members().find(|(id, _)| id.to_string() == name);
        instance
            .map(|(id, _)| id.service.clone())
            .ok_or_else(|| self.unknown("service or instance", name))
    }

    /// The instances that go by `names`, each once.
    fn chosen(&self, names: &[String]) -> Result<Vec<Id>, Fault> {
        let mut chosen: Vec<Id> = Vec::new();
        for name in names {
            let service = self.service_of(name)?;
            let settled = self.shared.roster().settled(&service);
            let meant = settled
                .into_iter()
                .filter(|id| *name == service || *name == id.to_string());
            for id in meant {
                if !chosen.contains(&id) {
                    chosen.push(id);
                }
            }
        }
        Ok(chosen)
    }

    async fn replace(&self, old: &Id, timeout: Duration, progress: &Progress) -> Result<(), Fault> {
        let new = self.join(&old.service, 1, Some(old))?;
        let mut failed = self.come_up(&new, timeout, progress).await?;
        if failed.is_empty() && !self.exchange(&new[0], old)? {
            failed.push((new[0].clone(), "serves no more".to_owned()));
        }
        if failed.is_empty() {
            return self.gone(slice::from_ref(old), progress).await;
        }
        self.leave(&new)?;
        self.gone(&new, progress).await?;
        let kept = format!("removed again, {old} stays");
        Err(Fault::undone(&failed, &kept))
    }

    /// Counts upon `new` and tells `old` to drain, if `new` serves at this moment.
    fn exchange(&self, new: &Id, old: &Id) -> Result<bool, Fault> {
        let mut roster = self.shared.roster();
        if roster.ending {
            return Err(Fault::ending());
        }
        if roster.verdict(new) != Some(Ok(())) {
            return Ok(false);
        }
        roster.settle(new);
        roster.leave(old);
        drop(roster);
        self.shared.changed();
        Ok(true)
    }
}
