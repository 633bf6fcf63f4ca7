//! What can be called in other ways than gRPC: read from the descriptors of whoever is registered.
//!
//! ```text
//! registry, instances ──▶ Follower ──reflection──▶ Service (files, rules) ──▶ Api ──▶ calls
//! ```
//!
//! Reading happens beside calls and never on their way: they see the last [`Api`] that was put
//! together. What a service says is read anew when its instances change, another version of it may
//! run then. One that cannot be read keeps what it said before, as long as it is registered, and is
//! in no other's way.

pub mod describe;
mod follow;
pub mod percent;
pub mod routes;
pub mod rule;
pub mod template;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use gantry::server::Named;
use tokio::{sync::watch, time};

pub use self::{describe::Method, follow::Follower};
use self::{describe::Service, routes::Routes};
use crate::pages::Pages;

/// How long a request waits for the first reading, after which nothing is unknown by mistake.
const FIRST_MAX: Duration = Duration::from_secs(5);

/// Everything that is described, at one moment.
#[derive(Debug, Default)]
pub struct Api {
    /// By full name.
    pub services: BTreeMap<Arc<str>, Arc<Service>>,
    /// Those that are registered no longer and can be reached all the same, as they were: they are
    /// called by gRPC alone.
    pub leaving: BTreeMap<Arc<str>, Arc<Service>>,
    /// Who answers which path.
    pub routes: Routes,
    /// What was there a little while ago.
    pub gone: Gone,
    /// Whether somebody has registered whom nobody has asked yet.
    pub is_partial: bool,
    /// What is written of it.
    pub pages: Pages,
}

/// Services that went a little while ago, as they were: they answer nothing, and are not unknown.
#[derive(Debug, Default)]
pub struct Gone {
    /// By full name.
    pub services: BTreeMap<Arc<str>, Arc<Service>>,
    /// Who answered which path.
    pub routes: Routes,
}

/// The service and the method of `path`, as gRPC spells it: `/package.Service/Method`.
#[must_use]
pub fn names(path: &str) -> Option<(&str, &str)> {
    path.strip_prefix('/')?.split_once('/')
}

impl Gone {
    /// The method that `path` called, as gRPC spells it.
    #[must_use]
    pub fn method(&self, path: &str) -> Option<&Arc<Method>> {
        let (service, method) = names(path)?;
        self.services.get(service)?.methods.get(method)
    }
}

impl Api {
    /// The service `name`, be it one that is leaving.
    #[must_use]
    pub fn reachable(&self, name: &str) -> Option<&Arc<Service>> {
        self.services.get(name).or_else(|| self.leaving.get(name))
    }

    /// The method that `path` calls, as gRPC spells it.
    #[must_use]
    pub fn method(&self, path: &str) -> Option<&Arc<Method>> {
        let (service, method) = names(path)?;
        self.services.get(service)?.methods.get(method)
    }

    /// The path of each method that can be reached.
    fn paths(&self) -> impl Iterator<Item = String> {
        let services = self.services.iter().chain(&self.leaving);
        services.flat_map(|(service, described)| {
            let methods = described.methods.keys();
            methods.map(move |method| format!("/{service}/{method}"))
        })
    }
}

/// Reads the newest [`Api`]; clones are the same.
#[derive(Debug, Clone)]
pub struct Catalogue {
    newest: watch::Receiver<Option<Arc<Api>>>,
}

impl Catalogue {
    /// The newest; waits while there is none yet. None if that takes too long.
    pub async fn api(&self) -> Option<Arc<Api>> {
        if let Some(api) = &*self.newest.borrow() {
            return Some(Arc::clone(api));
        }
        self.wait_for(Option::is_some).await
    }

    /// The newest; waits as long as there is none, or `service` may only be unread. None if there is
    /// none after that.
    pub async fn knowing(&self, service: &str) -> Option<Arc<Api>> {
        let api = self.api().await?;
        if api.reachable(service).is_some() {
            return Some(api);
        }
        let completed = self.completed(&api).await;
        completed.or(Some(api))
    }

    /// Whether the method at `path` is described, and takes one message. Waits as [`Self::knowing`].
    pub async fn takes_one(&self, path: &str) -> bool {
        let service = names(path).map_or(path, |(service, _)| service);
        let api = self.knowing(service).await;
        let method = api.as_ref().and_then(|api| api.method(path));
        method.is_some_and(|it| !it.descriptor.is_client_streaming())
    }

    /// What comes after `api` where that is not all there is; none where it is, or takes too long.
    pub async fn completed(&self, api: &Api) -> Option<Arc<Api>> {
        if !api.is_partial {
            return None;
        }
        self.wait_for(|it| it.as_ref().is_some_and(|api| !api.is_partial))
            .await
    }

    /// The next that is as `wanted`; none if it takes too long. In a box: calls carry the room for
    /// what they wait for, and hardly any waits here.
    async fn wait_for(&self, wanted: impl FnMut(&Option<Arc<Api>>) -> bool) -> Option<Arc<Api>> {
        let mut newest = self.newest.clone();
        let found = time::timeout(FIRST_MAX, newest.wait_for(wanted));
        Box::pin(found).await.ok()?.ok()?.clone()
    }

    /// Tells `named` what there is, for ever, or until nothing changes any more.
    pub async fn tell(mut self, named: Named) {
        loop {
            if let Some(api) = &*self.newest.borrow_and_update() {
                named.set(api.paths());
            }
            if self.newest.changed().await.is_err() {
                return;
            }
        }
    }

    /// Completes once everything that was registered has been asked. Cancel-safe.
    ///
    /// # Errors
    ///
    /// If that never will be.
    pub async fn read(&mut self) -> Result<(), watch::error::RecvError> {
        self.newest.wait_for(Option::is_some).await.map(drop)
    }
}

#[cfg(test)]
mod tests;
