//! From a name to the endpoints behind it.
//!
//! A [`Resolve`] answers with a watch: the list as known now, and every later version of it. A
//! watch coalesces by itself: a reader that was busy sees the newest list. Nothing here blocks a
//! call; a resolver that fails keeps the last good list and says what went wrong.

mod directory;
mod dns;
#[cfg(feature = "etcd")]
pub mod etcd;
mod memory;
mod names;
pub mod registration;
mod target;

use std::{fmt, net::SocketAddr, sync::Arc};

use tokio::sync::watch;

pub use self::{
    directory::{Directory, Services, Unfound},
    dns::Dns,
    memory::Memory,
    registration::{Announcement, Layout, Registration},
    target::{Target, TargetError},
};

/// One address behind a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Where it listens.
    pub addr: SocketAddr,
    /// What is known about it.
    pub attributes: Attributes,
}

impl From<SocketAddr> for Endpoint {
    fn from(addr: SocketAddr) -> Self {
        Self {
            addr,
            attributes: Attributes::default(),
        }
    }
}

/// What a resolver knows about an endpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Which process it is, across changes of address.
    pub instance: Option<Arc<str>>,
    /// What it runs.
    pub version: Option<Arc<str>>,
    /// Where it runs.
    pub zone: Option<Arc<str>>,
    /// Its share of calls, in percent of an ordinary endpoint's.
    pub weight_percent: Option<u32>,
    /// Whether the registry does not list it any more and it is kept for being reachable: it goes
    /// with its connection, unless there is nothing else to try.
    pub held: bool,
}

/// What a name stands for at one moment.
#[derive(Debug, Clone, Default)]
pub struct Resolution {
    /// The endpoints of the last good answer; none before the first.
    pub endpoints: Arc<[Endpoint]>,
    /// Why there is no newer answer, if the last try failed.
    pub error: Option<Arc<str>>,
}

impl Resolution {
    /// A good answer.
    #[must_use]
    pub fn new(endpoints: impl IntoIterator<Item = impl Into<Endpoint>>) -> Self {
        Self {
            endpoints: endpoints.into_iter().map(Into::into).collect(),
            error: None,
        }
    }
}

/// Knows the endpoints behind names of one kind.
pub trait Resolve: fmt::Debug + Send + Sync + 'static {
    /// Begins to watch `name`, or joins those who do: there is one watch per name, however many
    /// ask. Returns at once; the first list may come later. The watch ends when its last reader
    /// goes.
    fn resolve(&self, name: &str) -> watch::Receiver<Resolution>;

    /// A hint that endpoints of `name` fail, so that a new list may be worth asking for. The
    /// resolver bounds how often it follows.
    fn refresh(&self, _name: &str) {}
}
