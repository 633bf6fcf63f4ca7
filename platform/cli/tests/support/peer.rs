//! A running echo server in the test's own process.

#![allow(dead_code, reason = "each test program uses what it needs")]

use std::net::SocketAddr;

use tokio::{net::TcpListener, runtime::Runtime};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;

#[path = "echo.rs"]
mod echo;

use echo::{Echo, Served};

/// A running echo server.
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    _runtime: Runtime,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    V1,
    V1Alpha,
}

impl Peer {
    pub(crate) fn start(version: Version) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let descriptors = echo::descriptors();
        let builder = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(&descriptors)
        };
        let (_, health) = tonic_health::server::health_reporter();
        let echo = Echo::new("peer".to_owned());
        let incoming = TcpListenerStream::new(listener);
        match version {
            Version::V1 => {
                let reflection = builder().build_v1().unwrap();
                let served = Served {
                    echo,
                    reflection,
                    health,
                };
                runtime.spawn(Server::builder().serve_with_incoming(served, incoming));
            }
            Version::V1Alpha => {
                let reflection = OnlyAlpha(builder().build_v1alpha().unwrap());
                let served = Served {
                    echo,
                    reflection,
                    health,
                };
                runtime.spawn(Server::builder().serve_with_incoming(served, incoming));
            }
        }
        Self {
            address,
            _runtime: runtime,
        }
    }
}

/// A server older than reflection v1: it answers v1alpha alone.
#[derive(Clone)]
struct OnlyAlpha<S>(S);

impl<S> tower_service::Service<http::Request<tonic::body::Body>> for OnlyAlpha<S>
where
    S: tower_service::Service<
            http::Request<tonic::body::Body>,
            Response = http::Response<tonic::body::Body>,
            Error = std::convert::Infallible,
        >,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(
        &mut self,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        if request.uri().path().contains(".v1alpha.") {
            Box::pin(self.0.call(request))
        } else {
            let refusal = tonic::Status::unimplemented("older than that").into_http();
            Box::pin(std::future::ready(Ok(refusal)))
        }
    }
}
