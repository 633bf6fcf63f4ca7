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
        Self { services }
    }

    /// All there are now; nothing before the registry was read.
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
        services.get(service).cloned().ok_or(Unfound::Unregistered)
    }

    /// Completes once the registry was read. Cancel-safe.
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
