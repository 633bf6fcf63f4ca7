//! The stack over the in-memory network, called by a client of tonic's.

use hyper_util::rt::TokioIo;
use tonic::{
    Request, Response, Status,
    transport::{Channel, Endpoint},
};
use tonic_health::pb::{
    self, HealthCheckRequest, HealthCheckResponse,
    health_client::HealthClient,
    health_server::{Health, HealthServer},
};

use super::*;
use crate::{
    journal::Journal,
    shutdown::Tasks,
    transport::{
        memory,
        server::{Limits, Listener},
    },
};

/// A server over the in-memory network.
struct Served {
    connector: memory::Connector,
    listener: Handle,
    stack: Stack,
}

impl Served {
    fn new(router: Router, limits: Limits) -> Self {
        let (connector, incoming) = memory::network();
        let limits = limits.live();
        let stack = Stack::new(router, Arc::clone(&limits));
        let listener = Listener::memory(incoming, limits);
        let handle = listener.handle();
        let tasks = Tasks::new(Journal::new());
        tasks.spawn("listener", listener.serve(stack.clone(), tasks.clone()));
        Self {
            connector,
            listener: handle,
            stack,
        }
    }

    async fn channel(&self) -> Channel {
        let connector = self.connector.clone();
        let connect = tower::service_fn(move |_: http::Uri| {
            let connector = connector.clone();
            async move { connector.connect().await.map(TokioIo::new) }
        });
        let endpoint = Endpoint::from_static("http://memory");
        endpoint.connect_with_connector(connect).await.unwrap()
    }
}

/// Answers for services by their names.
struct Named;

#[tonic::async_trait]
impl Health for Named {
    async fn check(
        &self,
        _: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        Ok(Response::new(HealthCheckResponse { status: 1 }))
    }

    type WatchStream = tokio_stream::Pending<Result<HealthCheckResponse, Status>>;

    async fn watch(
        &self,
        _: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        Ok(Response::new(tokio_stream::pending()))
    }
}

fn named() -> Router {
    Router::new()
        .add_plain(HealthServer::new(Named), pb::FILE_DESCRIPTOR_SET)
        .unwrap()
}

/// Goal: a generated service is served end to end.
/// Method: one unary call by a generated client.
#[tokio::test]
async fn a_call_reaches_its_handler() {
    let served = Served::new(named(), Limits::default());
    let mut client = HealthClient::new(served.channel().await);
    let answer = client.check(HealthCheckRequest::default()).await.unwrap();
    assert_eq!(1, answer.into_inner().status);
    served
        .stack
        .drain(&served.listener, Duration::from_secs(1))
        .await;
}
