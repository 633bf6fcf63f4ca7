//! Over real sockets.

use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tonic_health::pb::health_check_response::ServingStatus;

use super::*;

fn clients(target: &str) -> (Clients, Tasks) {
    let journal = Journal::new();
    let tasks = Tasks::new(journal.clone());
    let configs = BTreeMap::from([("peer".to_owned(), Config::to(target))]);
    (Clients::new(configs, tasks.clone(), journal), tasks)
}

/// tonic's health service on hyper's server, on a port of its own.
async fn health_server() -> (SocketAddr, tonic_health::server::HealthReporter) {
    let (reporter, service) = tonic_health::server::health_reporter();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = service.clone();
            let service = hyper::service::service_fn(move |request| {
                let mut service = service.clone();
                async move { service.call(request).await }
            });
            let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service);
            spawn(connection);
        }
    });
    (addr, reporter)
}

/// Goal: a tonic-generated client works over a channel, unary calls and streams.
/// Method: the health contract served by tonic and hyper over TCP.
#[tokio::test]
async fn a_generated_client_calls_and_streams() {
    let (addr, reporter) = health_server().await;
    let (clients, tasks) = clients(&addr.to_string());
    let channel: Channel = clients.client("peer");
    let mut client = HealthClient::new(channel);

    let request = HealthCheckRequest::default();
    let answer = client.check(request.clone()).await.unwrap().into_inner();
    assert_eq!(ServingStatus::Serving, answer.status());

    let unknown = HealthCheckRequest {
        service: "nobody".into(),
    };
    let refused = client.check(unknown).await.unwrap_err();
    assert_eq!(tonic::Code::NotFound, refused.code());

    let mut watch = client.watch(request).await.unwrap().into_inner();
    let first = watch.message().await.unwrap().unwrap();
    assert_eq!(ServingStatus::Serving, first.status());
    reporter
        .set_service_status("", tonic_health::ServingStatus::NotServing)
        .await;
    let second = watch.message().await.unwrap().unwrap();
    assert_eq!(ServingStatus::NotServing, second.status());

    drop(watch);
    tasks.stop().await;
    assert_eq!(0, tasks.running());
}
