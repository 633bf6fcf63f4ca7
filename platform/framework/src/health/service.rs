//! `grpc.health.v1`, exact to its text.
//!
//! `Check` answers `NOT_FOUND` for a service nobody knows; `Watch` answers `SERVICE_UNKNOWN` and
//! goes on, because it may appear. `Watch` sends the status at once and then changes alone; a reader
//! that is slow sees the latest. Its streams end when the process drains, after they have told.

use std::{pin::Pin, sync::Arc, time::Duration};

use futures_core::Stream;
use futures_util::stream;
use gantry_api::health::v1::{
    HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse,
    health_check_response::ServingStatus, health_server,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::state::{self, Health};
use crate::status::{self, Refusal};

/// Streams of `Watch` at once, over all connections.
const WATCHERS_MAX: usize = 1_024;

/// When one watch too many is worth another try.
const WATCHERS_PAUSE: Duration = Duration::from_secs(1);

/// The server of `grpc.health.v1` for `health`. Watches end once `draining` is cancelled.
pub(crate) fn server(
    health: Health,
    draining: CancellationToken,
) -> health_server::HealthServer<Service> {
    health_server::HealthServer::new(Service::new(health, draining, WATCHERS_MAX))
}

/// Answers for one process.
#[derive(Debug)]
pub(crate) struct Service {
    health: Health,
    draining: CancellationToken,
    places: Arc<Semaphore>,
}

impl Service {
    fn new(health: Health, draining: CancellationToken, watchers_max: usize) -> Self {
        Self {
            health,
            draining,
            places: Arc::new(Semaphore::new(watchers_max)),
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
    Refusal::Watchers.status_with_pause("too many watches of health are open", WATCHERS_PAUSE)
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
        let place = Arc::clone(&self.places)
            .try_acquire_owned()
            .map_err(|_| too_many())?;
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
        Ok(Response::new(Box::pin(statuses)))
    }
}

/// One stream of `Watch`.
struct Watcher {
    service: String,
    health: Health,
    changes: watch::Receiver<u64>,
    draining: CancellationToken,
    sent: Option<ServingStatus>,
    _place: OwnedSemaphorePermit,
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
            // Cancel-safe: both arms only wait. The registry lives as long as `self.health`.
            tokio::select! {
                changed = self.changes.changed() => changed.expect("the sender is in self.health"),
                () = self.draining.cancelled() => return Next::Over,
            }
        }
    }
}

#[cfg(test)]
mod tests;
