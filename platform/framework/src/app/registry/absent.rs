//! No registry: this program is built without etcd.

use std::{net::SocketAddr, sync::Arc};

use tokio::time::Instant;

use super::Etcd;
use crate::{
    balance::NotSet,
    breaker::{Order, Snapshot},
    client::{Clients, TargetState},
    discovery::{Announcement, Directory, Registration, registration},
    health::Health,
    journal::Journal,
    shutdown::Tasks,
};

/// There is none.
#[derive(Debug, Clone)]
pub(in crate::app) enum Registry {}

impl Registry {
    pub(in crate::app) fn new(_: &Etcd, _: &Tasks, _: &Journal) -> Option<Self> {
        None
    }

    pub(in crate::app) fn teach(&self, _: Clients, _: &Tasks, _: &Journal) -> Clients {
        match *self {}
    }

    pub(in crate::app) fn directory(&self, _: &Tasks, _: Journal) -> Directory {
        match *self {}
    }

    pub(in crate::app) fn breakers(&self) -> Vec<(Arc<str>, SocketAddr, Snapshot)> {
        match *self {}
    }

    pub(in crate::app) fn set_breakers(
        &self,
        _: &str,
        _: Option<SocketAddr>,
        _: Order,
        _: Option<Instant>,
    ) -> Result<(), NotSet> {
        match *self {}
    }

    pub(in crate::app) fn states(&self) -> Vec<TargetState> {
        match *self {}
    }
}

/// Never begun.
#[derive(Debug)]
pub(in crate::app) struct Registering;

impl Registering {
    pub(in crate::app) fn new(_: bool) -> Self {
        Self
    }

    pub(in crate::app) fn begin(
        &self,
        registry: &Registry,
        _: &Announcement,
        _: &registration::Config,
        _: Health,
        _: (&Tasks, &Journal),
    ) {
        match *registry {}
    }

    pub(in crate::app) fn now(&self) -> Option<Registration> {
        None
    }

    pub(in crate::app) fn missing(&self) -> Option<String> {
        None
    }

    pub(in crate::app) fn pause(&self, _: bool) -> bool {
        false
    }

    pub(in crate::app) async fn leave(&self) {}
}
