//! Hands every call on, by either stack: `bench-forward tonic|gantry BACKEND`.
//!
//! tonic's is its server and its channel back to back, the least that a proxy of gRPC can be;
//! Gantry's is the gateway's step within the whole stack of both sides. Prints its address, serves
//! on one thread until its input is closed, then prints the CPU time it took, in microseconds.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    error::Error,
    net::SocketAddr,
    sync::Arc,
    task::{Context, Poll},
};

use gantry::{
    client::{Clients, Config as To},
    config::Live,
    discovery::{Directory, Services},
    journal::Journal,
    limit::rate::Limiter,
    policy::Policies,
    server::{Named, Router, Stack as Layers},
    shutdown::Tasks,
    transport::server::{Config, Limits, Listener, Protocols},
};
use gantry_bench::{Stack, cpu_micros, observed, print, proto::bench_service_server::SERVICE_NAME};
use gateway::{
    access::Access,
    backends::Backends,
    catalogue::Follower,
    config::{StaleCache, Tokens},
    forward::Forward,
    stale::Stale,
    streams::Streams,
};
use http::{Request, Response};
use tokio::{io::AsyncReadExt as _, net::TcpListener, sync::watch, task::LocalSet};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{
    Status,
    body::Body,
    codegen::BoxFuture,
    server::NamedService,
    transport::{Channel, Endpoint, Server},
};
use tower::Service;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [stack, backend] = arguments.as_slice() else {
        return Err("usage: bench-forward tonic|gantry BACKEND".into());
    };
    let serving = LocalSet::new();
    let address = match stack.parse()? {
        Stack::Tonic => tonic_forward(&serving, backend).await?,
        Stack::Gantry => gantry_forward(&serving, backend)?,
    };
    print(address);
    serving
        .run_until(tokio::io::stdin().read_to_end(&mut Vec::new()))
        .await?;
    print(cpu_micros());
    Ok(())
}

async fn tonic_forward(serving: &LocalSet, backend: &str) -> Result<SocketAddr, Box<dyn Error>> {
    let channel = Endpoint::new(format!("http://{backend}"))?
        .connect()
        .await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let server = Server::builder()
        .add_service(BackToBack(channel))
        .serve_with_incoming(TcpListenerStream::new(listener));
    serving.spawn_local(async { server.await.expect("serves") });
    Ok(address)
}

/// A channel as a service.
#[derive(Clone)]
struct BackToBack(Channel);

impl NamedService for BackToBack {
    const NAME: &'static str = SERVICE_NAME;
}

impl Service<Request<Body>> for BackToBack {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Response<Body>, Infallible>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(cx).map(|_| Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let answer = self.0.call(request);
        Box::pin(async move {
            Ok(answer
                .await
                .unwrap_or_else(|error| Status::from_error(error.into()).into_http()))
        })
    }
}

fn gantry_forward(serving: &LocalSet, backend: &str) -> Result<SocketAddr, Box<dyn Error>> {
    let journal = Journal::new();
    let tasks = Tasks::new(journal.clone());
    observed(&tasks)?;
    let configs = BTreeMap::from([("backend".to_owned(), To::to(backend))]);
    let clients = Clients::new(configs, tasks.clone(), journal);
    let services = Services::from([(SERVICE_NAME.into(), "backend".into())]);
    let (registered, directory) = watch::channel(Some(Arc::new(services)));
    let directory = Directory::following(directory);
    let backends = Backends::new(directory.clone(), clients);
    let (follower, catalogue) = Follower::new(backends.clone(), directory);
    serving.spawn_local(follower.run());
    let named = Named::default();
    serving.spawn_local(catalogue.clone().tell(named.clone()));
    let access = Access::new(catalogue, backends.clone(), &Live::fixed(Tokens::default()));
    let streams = Streams::new(Live::fixed(gateway::config::Streams::default()));
    let stale = Stale::new(&Policies::default(), Live::fixed(StaleCache::default()));
    let forward = Forward::new(backends, access, Limiter::default(), streams, stale);
    let limits = Limits::default().live();
    let listener = Listener::bind(&Config::default(), limits.clone())?;
    let address = listener.handle().local_addr().ok_or("no address")?;
    let router = Router::new().others(forward, named);
    let layers = Layers::new(router, limits);
    serving.spawn_local(async move {
        listener.serve(layers, Protocols::Http1And2, tasks).await;
        drop(registered);
    });
    Ok(address)
}
