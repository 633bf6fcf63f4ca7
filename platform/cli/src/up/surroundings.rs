//! What runs beside the services: an etcd and a broker, where none are given.

use gantry::shutdown::Tasks;
use gantry_local::{broker::Broker, etcd::Etcd};

use super::Show;
use crate::{
    access::{Access, Server},
    broker,
    failure::Failure,
    project::Project,
    registry, standin,
    state::StateFolder,
};

/// What a system needs around its services: of our own, or somebody else's.
#[derive(Debug)]
pub(super) struct Surroundings {
    etcd: Option<Etcd>,
    pub(super) etcd_access: Access,
    broker: Option<Broker>,
    /// None where no service has a broker.
    pub(super) broker_access: Option<Access>,
}

impl Surroundings {
    /// Opens what is not given.
    pub(super) fn open(
        project: &Project,
        state: &StateFolder,
        (etcd, broker): (Option<Access>, Option<Access>),
        (etcd_port, broker_port): (u16, u16),
    ) -> Result<Self, Failure> {
        let (etcd, etcd_access) = if let Some(access) = etcd {
            (None, access)
        } else {
            let etcd = registry::open(state, etcd_port)?;
            let url = etcd.handle().url();
            (Some(etcd), Access::local(Server::Etcd, url))
        };
        let wanted = project.services.values().any(|service| service.broker);
        let (broker, broker_access) = match broker {
            _ if !wanted => (None, None),
            Some(access) => (None, Some(access)),
            None => {
                let broker = broker::open(state, broker_port)?;
                let url = broker.handle().url();
                (Some(broker), Some(Access::local(Server::Broker, url)))
            }
        };
        Ok(Self {
            etcd,
            etcd_access,
            broker,
            broker_access,
        })
    }

    /// Keeps running what is our own.
    pub(super) fn keep(&mut self, state: &StateFolder, tasks: &Tasks, show: &Show) {
        if let Some(etcd) = self.etcd.take() {
            let (port, state) = (etcd.handle().address().port(), state.clone());
            let open = move || registry::open(&state, port);
            let kept = standin::keep(registry::KIND, etcd, open, tasks.clone(), show.clone());
            tasks.spawn("local etcd", kept);
        }
        if let Some(broker) = self.broker.take() {
            let (port, state) = (broker.handle().address().port(), state.clone());
            let open = move || broker::open(&state, port);
            let kept = standin::keep(broker::KIND, broker, open, tasks.clone(), show.clone());
            tasks.spawn("local broker", kept);
        }
    }

    /// What of our own environment counts for nothing.
    pub(super) fn ignored(&self) -> impl Iterator<Item = String> {
        let broker = self.broker_access.as_ref().and_then(Access::ignored);
        self.etcd_access.ignored().into_iter().chain(broker)
    }
}
