//! Which services are registered, and under which name each is found.

use std::{collections::BTreeMap, sync::Arc};

use tokio::sync::watch;

/// The names by service: `shop.orders.v1.OrdersService` is found as `orders`.
pub type Services = BTreeMap<Arc<str>, Arc<str>>;

/// What is registered, whoever registered it; clones share it.
///
/// A service whose last instance went is listed for some seconds more: one that is restarted is
/// unavailable meanwhile, and not unknown.
#[derive(Debug, Clone)]
pub struct Directory {
    services: watch::Receiver<Option<Arc<Services>>>,
    /// Whether they were read, and are not only remembered from before.
    current: watch::Receiver<bool>,
}

/// Why there is no name for a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unfound {
    /// The registry has not been read yet.
    #[error("the registry has not been read yet")]
    Unread,
    /// Nobody registered it.
    #[error("nobody registered it")]
    Unregistered,
}

impl Directory {
    /// Follows what `services` says; nothing until the registry was read.
    #[must_use]
    pub fn following(services: watch::Receiver<Option<Arc<Services>>>) -> Self {
        let (_, current) = watch::channel(true);
        Self { services, current }
    }

    /// Follows what `services` says, which is remembered from before until `current` is true: what
    /// is not among them may be registered all the same.
    #[must_use]
    pub fn remembering(
        services: watch::Receiver<Option<Arc<Services>>>,
        current: watch::Receiver<bool>,
    ) -> Self {
        Self { services, current }
    }

    /// All there are now, or those that are remembered; nothing before either was read.
    #[must_use]
    pub fn services(&self) -> Option<Arc<Services>> {
        self.services.borrow().clone()
    }

    /// The name under which `service` is found.
    ///
    /// # Errors
    ///
    /// If it is not known, or not yet.
    pub fn find(&self, service: &str) -> Result<Arc<str>, Unfound> {
        let services = self.services.borrow();
        let services = services.as_ref().ok_or(Unfound::Unread)?;
        let unfound = if *self.current.borrow() {
            Unfound::Unregistered
        } else {
            Unfound::Unread
        };
        services.get(service).cloned().ok_or(unfound)
    }

    /// Completes once there are services to be found, read or remembered. Cancel-safe.
    ///
    /// # Errors
    ///
    /// If it never will be.
    pub async fn read(&mut self) -> Result<(), watch::error::RecvError> {
        self.services.wait_for(Option::is_some).await.map(drop)
    }

    /// Completes when there is another list than when it was last waited for. Cancel-safe.
    ///
    /// # Errors
    ///
    /// If there never will be.
    pub async fn changed(&mut self) -> Result<(), watch::error::RecvError> {
        self.services.changed().await
    }
}
