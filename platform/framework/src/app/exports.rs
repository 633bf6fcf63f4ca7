//! Turns what lower layers count into metrics: at each scrape, so that it is exact then.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio_util::sync::CancellationToken;

use crate::{
    client::Clients,
    config,
    telemetry::{
        metric::Held,
        platform::{
            Configurations, Connections, EndpointState, Endpoints, RefusedConnection, Reload,
        },
    },
    transport::{
        server::{Handle, Refused},
        subchannel::Connectivity,
    },
};

/// The counters of one process and what has been told of them.
#[derive(Debug)]
pub(super) struct Exports {
    listener: Handle,
    clients: Clients,
    connections: Connections,
    told: Mutex<Told>,
}

#[derive(Debug, Default)]
struct Told {
    open: Vec<Held>,
    accepted: u64,
    accept_failed: u64,
    refused: [u64; Refused::ALL.len()],
    endpoints: BTreeMap<Arc<str>, (Endpoints, Vec<Held>)>,
}

impl Exports {
    pub(super) fn new(listener: Handle, clients: Clients) -> Self {
        Self {
            listener,
            clients,
            connections: Connections::register(),
            told: Mutex::default(),
        }
    }

    /// Tells everything as it is now.
    pub(super) fn refresh(&self) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        self.tell_connections(&mut told);
        self.tell_endpoints(&mut told);
    }

    fn tell_connections(&self, told: &mut Told) {
        let counts = self.listener.counts();
        for _ in told.accepted..counts.accepted {
            told.open.push(self.connections.accept());
        }
        told.accepted = counts.accepted;
        told.open.truncate(counts.open);
        for (reason, told) in Refused::ALL.into_iter().zip(&mut told.refused) {
            for _ in *told..counts.refused(reason) {
                self.connections.refuse(in_metrics(reason));
            }
            *told = counts.refused(reason);
        }
        for _ in told.accept_failed..counts.accept_failed {
            self.connections.refuse(RefusedConnection::Accept);
        }
        told.accept_failed = counts.accept_failed;
    }

    fn tell_endpoints(&self, told: &mut Told) {
        for target in self.clients.states() {
            let (metrics, held) = told
                .endpoints
                .entry(Arc::clone(&target.name))
                .or_insert_with(|| (Endpoints::register(&target.name), Vec::new()));
            held.clear();
            let states = target.endpoints.iter();
            let states = states.filter_map(|endpoint| state(endpoint.connectivity));
            held.extend(states.map(|state| metrics.hold(state)));
        }
    }
}

fn in_metrics(reason: Refused) -> RefusedConnection {
    match reason {
        Refused::Connections => RefusedConnection::TooMany,
        Refused::Peer => RefusedConnection::TooManyOfPeer,
        Refused::Waiting => RefusedConnection::TooManyWaiting,
        Refused::Handshake => RefusedConnection::Tls,
        Refused::FirstRequest => RefusedConnection::NoRequest,
        Refused::Protocol => RefusedConnection::Preface,
    }
}

fn state(connectivity: Connectivity) -> Option<EndpointState> {
    match connectivity {
        Connectivity::Idle => Some(EndpointState::Idle),
        Connectivity::Connecting => Some(EndpointState::Connecting),
        Connectivity::Ready => Some(EndpointState::Ready),
        Connectivity::TransientFailure => Some(EndpointState::TransientFailure),
        Connectivity::Shutdown => None,
    }
}

/// Tells of each configuration as it is applied or refused, until told to stop.
pub(super) async fn follow_configuration(handle: config::Handle, stopping: CancellationToken) {
    let metrics = Configurations::register();
    let mut status = handle.status();
    let (mut applied, mut refused) = (0, 0);
    loop {
        let now = {
            let status = status.borrow_and_update();
            metrics.version(status.version);
            (status.applied, status.refused)
        };
        (applied..now.0).for_each(|_| metrics.reload(Reload::Applied));
        (refused..now.1).for_each(|_| metrics.reload(Reload::Refused));
        (applied, refused) = now;
        match stopping.run_until_cancelled(status.changed()).await {
            Some(Ok(())) => {}
            Some(Err(_)) | None => return,
        }
    }
}
