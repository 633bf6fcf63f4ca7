//! Watches the health a connection's peer reports of itself (gRFC A17).

use std::{sync::Arc, task::Poll};

use http::{Request, Response};
use tonic::{Code, Status, body::Body};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use super::{
    connection::{Connection, Health, Shared},
    exchange::{Incoming, exchange},
    keepalive::interval_min,
    outgoing::Outgoing,
};
use crate::{backoff::Backoff, status::Refusal};

/// Watches `service` until the connection is retired; sets its health with every answer.
///
/// A peer that does not know the health service is healthy: it is reachable and speaks HTTP/2,
/// and that is all there is to know.
pub(super) async fn watch(connection: Arc<Connection>, service: String, mut backoff: Backoff) {
    let shared = Arc::clone(connection.shared());
    let retired = shared.retired().clone();
    // The connection is let go together with this future: holding it would keep it open.
    let watching = async move {
        loop {
            let (end, answered) = watch_once(&connection, &service).await;
            if end.code() == Code::Unimplemented {
                tracing::debug!(endpoint = %shared.peer, "no health service, taken for healthy");
                shared.set_health(Health::Serving);
                return;
            }
            shared.set_health(Health::NotServing);
            if answered {
                backoff.reset();
            }
            tracing::debug!(endpoint = %shared.peer, status = %end, "health watch ended");
            tokio::time::sleep(backoff.next_pause()).await;
        }
    };
    retired.run_until_cancelled(watching).await;
}

/// Follows one `Watch` to its end; whether it answered at all.
async fn watch_once(connection: &Arc<Connection>, service: &str) -> (Status, bool) {
    let mut client = HealthClient::new(OnConnection(Arc::clone(connection)));
    let request = HealthCheckRequest {
        service: service.to_owned(),
    };
    let answers = match client.watch(request).await {
        Ok(answers) => answers,
        Err(status) => return (status, false),
    };
    if let Some(interval) = interval_min(answers.metadata().as_ref()) {
        connection.shared().leave_to_ping.given(interval);
    }
    let mut answers = answers.into_inner();
    let mut answered = false;
    loop {
        match answers.message().await {
            Ok(Some(answer)) => {
                answered = true;
                note(connection.shared(), answer.status());
            }
            Ok(None) => {
                return (
                    Refusal::ConnectionLost.status("the watch was ended"),
                    answered,
                );
            }
            Err(status) => return (status, answered),
        }
    }
}

fn note(shared: &Shared, status: ServingStatus) {
    tracing::debug!(endpoint = %shared.peer, health = status.as_str_name(), "health reported");
    shared.set_health(match status {
        ServingStatus::Serving => Health::Serving,
        ServingStatus::NotServing | ServingStatus::ServiceUnknown | ServingStatus::Unknown => {
            Health::NotServing
        }
    });
}

/// Sends every call on one connection, whatever its health.
#[derive(Clone)]
struct OnConnection(Arc<Connection>);

impl tower::Service<Request<Body>> for OnConnection {
    type Response = Response<Incoming>;
    type Error = Status;
    type Future = futures_util::future::BoxFuture<'static, Result<Self::Response, Status>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let slot = Connection::open_to_watch(&self.0);
        Box::pin(async move {
            let slot =
                slot.ok_or_else(|| Refusal::NoEndpoint.status("no place for a health watch"))?;
            let (parts, body) = request.into_parts();
            let head = Request::from_parts(parts, ());
            let mut outgoing = Outgoing::new(body);
            let answer = match exchange(slot, head, &mut outgoing) {
                Ok(exchange) => exchange.await,
                Err(failed) => Err(failed),
            };
            answer.map_err(|failed| failed.status)
        })
    }
}
