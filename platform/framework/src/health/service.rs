//! `grpc.health.v1`, exact to its text.
//!
//! `Check` answers `NOT_FOUND` for a service nobody knows; `Watch` answers `SERVICE_UNKNOWN` and
//! goes on, because it may appear. `Watch` sends the status at once and then changes alone; a reader
//! that is slow sees the latest. Its streams end when the process drains, after they have told.

use std::{
    collections::{HashMap, hash_map::Entry},
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_core::Stream;
use futures_util::stream;
use gantry_api::health::v1::{
    HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse,
    health_check_response::ServingStatus, health_server,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::state::{self, Health};
use crate::{
    caller::Peer,
    status::{self, Refusal},
    transport::subchannel::{PING_INTERVAL_MIN, PING_INTERVAL_MIN_OURS},
};

/// Streams of `Watch` at once on one connection: a caller needs one for each service it calls on
/// it. All together they are bounded by the connections.
const CONNECTION_WATCHERS_MAX: usize = 8;

/// The same for callers that cannot be told apart: those in this process.
const PROCESS_WATCHERS_MAX: usize = 1_024;

/// When one watch too many is worth another try.
const WATCHERS_PAUSE: Duration = Duration::from_secs(1);

/// The server of `grpc.health.v1` for `health`. Watches end once `draining` is cancelled.
pub(crate) fn server(
    health: Health,
    draining: CancellationToken,
) -> health_server::HealthServer<Service> {
    health_server::HealthServer::new(Service::new(health, draining))
}

/// Answers for one process.
#[derive(Debug)]
pub(crate) struct Service {
    health: Health,
    draining: CancellationToken,
    watchers: Arc<Watchers>,
}

impl Service {
    fn new(health: Health, draining: CancellationToken) -> Self {
        Self {
            health,
            draining,
            watchers: Arc::default(),
        }
    }
}

/// Open streams of `Watch` by who opened them. Every client watches each of its connections, and
/// takes one that it cannot watch for one that does not serve: so nobody may take the place of
/// another.
#[derive(Debug, Default)]
struct Watchers {
    /// An address and port is one connection; those that are done are not kept.
    open: Mutex<HashMap<Option<SocketAddr>, usize>>,
}

impl Watchers {
    fn admit(watchers: &Arc<Self>, peer: Option<Peer>) -> Option<Place> {
        let (connection, most) = match peer {
            Some(Peer::Tcp(addr)) => (Some(addr), CONNECTION_WATCHERS_MAX),
            Some(Peer::Memory) | None => (None, PROCESS_WATCHERS_MAX),
        };
        let mut open = watchers.lock();
        let count = open.entry(connection).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(Place {
            watchers: Arc::clone(watchers),
            connection,
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Option<SocketAddr>, usize>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One stream's place, given back when dropped.
#[derive(Debug)]
struct Place {
    watchers: Arc<Watchers>,
    connection: Option<SocketAddr>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.watchers.lock();
        if let Entry::Occupied(mut count) = open.entry(self.connection) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

fn on_wire(status: state::Status) -> ServingStatus {
    match status {
        state::Status::Unknown => ServingStatus::Unknown,
        state::Status::Serving => ServingStatus::Serving,
        state::Status::NotServing => ServingStatus::NotServing,
    }
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse {
        status: status.into(),
    }
}

fn too_many() -> Status {
    Refusal::Watchers.status_with_pause(
        "too many watches of health are open on this connection",
        WATCHERS_PAUSE,
    )
}

#[tonic::async_trait]
impl health_server::Health for Service {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        match self.health.status(&request.get_ref().service) {
            Some(status) => Ok(Response::new(response(on_wire(status)))),
            None => Err(Refusal::ServiceUnknown.status("this process serves no such service")),
        }
    }

    async fn list(
        &self,
        _request: Request<HealthListRequest>,
    ) -> Result<Response<HealthListResponse>, Status> {
        let statuses = self.health.statuses().into_iter();
        let statuses = statuses.map(|(service, status)| (service, response(on_wire(status))));
        Ok(Response::new(HealthListResponse {
            statuses: statuses.collect(),
        }))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let peer = request.extensions().get::<Peer>().copied();
        let place = Watchers::admit(&self.watchers, peer).ok_or_else(too_many)?;
        let watcher = Watcher {
            service: request.into_inner().service,
            changes: self.health.changes(),
            health: self.health.clone(),
            draining: self.draining.clone(),
            sent: None,
            _place: place,
        };
        let statuses = stream::unfold(Some(watcher), |watcher| async {
            match watcher?.next().await {
                Next::Changed(watcher, status) => Some((Ok(response(status)), Some(watcher))),
                Next::Over => Some((Err(status::draining()), None)),
            }
        });
        let mut response = Response::<Self::WatchStream>::new(Box::pin(statuses));
        let headers = response.metadata_mut().as_mut();
        headers.insert(&PING_INTERVAL_MIN, PING_INTERVAL_MIN_OURS);
        Ok(response)
    }
}

/// One stream of `Watch`.
struct Watcher {
    service: String,
    health: Health,
    changes: watch::Receiver<u64>,
    draining: CancellationToken,
    sent: Option<ServingStatus>,
    _place: Place,
}

enum Next {
    Changed(Watcher, ServingStatus),
    Over,
}

impl Watcher {
    /// Waits until the status is not the one sent last.
    async fn next(mut self) -> Next {
        loop {
            // Marked as seen before it is read, so that a change in between is not missed.
            self.changes.mark_unchanged();
            let status = self.health.status(&self.service);
            let status = status.map_or(ServingStatus::ServiceUnknown, on_wire);
            if self.sent != Some(status) {
                self.sent = Some(status);
                return Next::Changed(self, status);
            }
            // Cancel-safe: both arms only wait. The registry lives as long as `self.health`. What
            // changed is told before the end.
            tokio::select! {
                biased;
                changed = self.changes.changed() => changed.expect("the sender is in self.health"),
                () = self.draining.cancelled() => return Next::Over,
            }
        }
    }
}

#[cfg(test)]
mod tests;
