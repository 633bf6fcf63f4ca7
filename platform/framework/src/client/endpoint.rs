//! Which endpoint takes a call, for callers that ask.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

/// Learns which endpoint took a call.
///
/// Put a clone into the extensions of a request before it is sent; this one then holds the
/// endpoint of the latest attempt: while the call is in flight, and after it ended in whatever
/// way. One for each call: two calls overwrite each other's. A request without one pays nothing.
///
/// ```
/// # use gantry::client::PickedEndpoint;
/// let picked = PickedEndpoint::default();
/// let mut request = tonic::Request::new(());
/// request.extensions_mut().insert(picked.clone());
/// // … call, and then:
/// assert_eq!(None, picked.addr(), "it was not sent");
/// ```
#[derive(Debug, Clone, Default)]
pub struct PickedEndpoint {
    addr: Arc<Mutex<Option<SocketAddr>>>,
}

impl PickedEndpoint {
    /// Where the endpoint listens; none if none was picked.
    #[must_use]
    pub fn addr(&self) -> Option<SocketAddr> {
        *self.addr.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set(&self, addr: SocketAddr) {
        *self.addr.lock().unwrap_or_else(PoisonError::into_inner) = Some(addr);
    }
}
