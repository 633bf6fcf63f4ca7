//! The gRPC face: etcd's services over the owner.
//!
//! Each service checks a request as etcd does, turns it into the engine's words, asks the owner,
//! and turns the answer back. Codes and texts of refusals are in [`refusal`].

mod checks;
mod cluster;
mod convert;
mod describe;
mod keepalive;
mod kv;
mod lease;
mod maintenance;
mod refusal;
mod watch;

use std::{sync::Arc, time::Duration};

use etcd_client::proto::PbResponseHeader;
use gantry::server::{DescriptorError, Router};

pub(super) use convert::watched;
pub(super) use refusal::{COMPACTED, DUPLICATE_WATCH, EMPTY_RANGE, TOO_MANY_WATCHES, stopped};

use super::{
    owner::{Asker, State},
    store::Identity,
};
use crate::ask::Stopped;

/// Largest request taken, in bytes: etcd's default.
pub(super) const REQUEST_MAX: usize = 1_536 * 1_024;

/// Largest message taken: a request and what surrounds it, as etcd has it.
pub(super) const MESSAGE_MAX: usize = 2 * 1_024 * 1_024;

/// What the services share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) asker: Asker,
    pub(super) identity: Identity,
    /// Where clients find this server.
    pub(super) client_urls: Vec<String>,
    /// How often a watch that asks for it is told how far it is.
    pub(super) progress_interval: Duration,
}

impl Shared {
    pub(super) fn header(&self, revision: i64) -> PbResponseHeader {
        header(self.identity, revision)
    }

    /// Asks the owner; a stopped one is a status.
    async fn ask<T, F>(&self, work: F) -> Result<T, tonic::Status>
    where
        T: Send + 'static,
        F: FnOnce(&mut State) -> T + Send + 'static,
    {
        self.asker.ask(work).await.map_err(|Stopped| stopped())
    }
}

/// The header of every answer.
fn header(identity: Identity, revision: i64) -> PbResponseHeader {
    PbResponseHeader {
        cluster_id: identity.cluster_id,
        member_id: identity.member_id,
        revision,
        raft_term: identity.term,
    }
}

/// A service of etcd over the shared state.
#[derive(Debug, Clone)]
struct Face(Arc<Shared>);

/// All services.
pub(super) fn router(shared: Shared) -> Result<Router, DescriptorError> {
    use etcd_client::proto::{
        PbClusterServer, PbKvServer, PbLeaseServer, PbMaintenanceServer, PbWatchServer,
    };
    let face = Face(Arc::new(shared));
    let descriptors = describe::etcd();
    Router::new()
        .add_plain(PbKvServer::new(face.clone()), descriptors)?
        .add_plain(PbWatchServer::new(face.clone()), descriptors)?
        .add_plain(PbLeaseServer::new(face.clone()), descriptors)?
        .add_plain(PbClusterServer::new(face.clone()), descriptors)?
        .add_plain(PbMaintenanceServer::new(face), descriptors)
}
