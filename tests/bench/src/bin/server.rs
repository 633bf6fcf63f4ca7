//! Serves the echo by either stack: `bench-server tonic|gantry`.
//!
//! Prints its address, serves on one thread until its input is closed, then prints the CPU time
//! it took, in microseconds.

use std::{error::Error, net::SocketAddr};

use gantry::{
    contract::Server as _,
    journal::Journal,
    limit::rate::Limiter,
    server::{Router, Stack as Layers},
    shutdown::Tasks,
    transport::server::{Config, Limits, Listener, Protocols},
};
use gantry_api::health::v1::health_server::HealthServer;
use gantry_bench::{
    Echo, Healthy, Stack, cpu_micros, observed, print,
    proto::bench_service_server::BenchServiceServer,
};
use tokio::{io::AsyncReadExt as _, net::TcpListener, task::LocalSet};
use tokio_stream::wrappers::TcpListenerStream;
use tonic_reflection::server::{
    self as reflection, Builder,
    v1::{ServerReflection, ServerReflectionServer},
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let stack: Stack = std::env::args().nth(1).unwrap_or_default().parse()?;
    let serving = LocalSet::new();
    let address = match stack {
        Stack::Tonic => tonic_server(&serving).await?,
        Stack::Gantry => gantry_server(&serving)?,
    };
    print(address);
    serving
        .run_until(tokio::io::stdin().read_to_end(&mut Vec::new()))
        .await?;
    print(cpu_micros());
    Ok(())
}

async fn tonic_server(serving: &LocalSet) -> Result<SocketAddr, Box<dyn Error>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let server = tonic::transport::Server::builder()
        .add_service(BenchServiceServer::new(Echo))
        .add_service(HealthServer::new(Healthy))
        .add_service(reflection()?)
        .serve_with_incoming(TcpListenerStream::new(listener));
    serving.spawn_local(async { server.await.expect("serves") });
    Ok(address)
}

/// What a gateway asks for.
fn reflection() -> Result<ServerReflectionServer<impl ServerReflection>, reflection::Error> {
    let descriptors = BenchServiceServer::<Echo>::DESCRIPTORS;
    Builder::configure()
        .register_encoded_file_descriptor_set(descriptors)
        .build_v1()
}

fn gantry_server(serving: &LocalSet) -> Result<SocketAddr, Box<dyn Error>> {
    let tasks = Tasks::new(Journal::new());
    observed(&tasks)?;
    let limits = Limits::default().live();
    let listener = Listener::bind(&Config::default(), limits.clone())?;
    let address = listener.handle().local_addr().ok_or("no address")?;
    let router = Router::new()
        .add(BenchServiceServer::new(Echo))
        .count(Limiter::default());
    let layers = Layers::new(router, limits);
    serving.spawn_local(listener.serve(layers, Protocols::Http2, tasks));
    Ok(address)
}
