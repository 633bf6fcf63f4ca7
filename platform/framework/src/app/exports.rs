//! Turns what lower layers count into metrics.

use std::sync::{Mutex, PoisonError};

use tokio_util::sync::CancellationToken;

use crate::{
    config,
    telemetry::platform::{
        Configurations, Connections, EvictedConnection, RefusedConnection, Reload,
    },
    transport::server::{Evicted, Handle, Refused},
};

/// The counters of one process and what has been told of them.
#[derive(Debug)]
pub(super) struct Exports {
    listener: Handle,
    connections: Connections,
    told: Mutex<Told>,
}

#[derive(Debug, Default)]
struct Told {
    accepted: u64,
    accept_failed: u64,
    refused: [u64; Refused::ALL.len()],
    evicted: [u64; Evicted::ALL.len()],
}

impl Exports {
    pub(super) fn new(listener: Handle) -> Self {
        Self {
            listener,
            connections: Connections::register(),
            told: Mutex::default(),
        }
    }

    /// Tells everything as it is now; called at each scrape, so that it is exact then.
    pub(super) fn refresh(&self) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let told = &mut *told;
        let counts = self.listener.counts();
        self.connections.open(counts.open);
        self.connections.accept(counts.accepted - told.accepted);
        told.accepted = counts.accepted;
        for (reason, told) in Refused::ALL.into_iter().zip(&mut told.refused) {
            let refused = counts.refused(reason);
            self.connections.refuse(in_metrics(reason), refused - *told);
            *told = refused;
        }
        for (reason, told) in Evicted::ALL.into_iter().zip(&mut told.evicted) {
            let evicted = counts.evicted(reason);
            let label = match reason {
                Evicted::Connections => EvictedConnection::TooMany,
                Evicted::Waiting => EvictedConnection::TooManyWaiting,
            };
            self.connections.evict(label, evicted - *told);
            *told = evicted;
        }
        let failed = counts.accept_failed - told.accept_failed;
        self.connections.refuse(RefusedConnection::Accept, failed);
        told.accept_failed = counts.accept_failed;
    }
}

fn in_metrics(reason: Refused) -> RefusedConnection {
    match reason {
        Refused::Connections => RefusedConnection::TooMany,
        Refused::Peer => RefusedConnection::TooManyOfPeer,
        Refused::Waiting => RefusedConnection::TooManyWaiting,
        Refused::Handshake => RefusedConnection::Tls,
        Refused::FirstRequest => RefusedConnection::NoRequest,
        Refused::Protocol => RefusedConnection::Protocol,
        Refused::GivenUp => RefusedConnection::GivenUp,
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
