//! The listener against peers that mean well, and peers that do not.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use tokio::time::{Instant, sleep, timeout};
use tower::Service;

use super::*;
use crate::{journal::Journal, transport::wire::Wire};

mod admission;
mod binding;
mod encrypted;
mod eviction;
mod lifetime;
mod malice;

/// A path that is answered after [`SLOW`].
const SLOW_PATH: &str = "/slow";

/// A path that is never answered.
const NEVER_PATH: &str = "/never";

/// A path that is never answered, and whose caller says that it waits for [`PATIENCE`].
const PATIENT_PATH: &str = "/patient";

const PATIENCE: Duration = Duration::from_secs(10);

/// A path that is answered once its request has ended.
const READ_PATH: &str = "/read";

/// A path that is answered at once, with [`BIG`] bytes.
const BIG_PATH: &str = "/big";

const BIG: usize = 256 << 10;

/// A path that is answered with a byte where its caller is known to belong to the system, and with
/// nothing where not.
const TRUSTED_PATH: &str = "/trusted";

/// A path that is answered at once.
const PATH: &str = "/";

const SLOW: Duration = Duration::from_secs(8);

/// Answers by path.
#[derive(Clone)]
struct Answer;

impl Service<Request<Incoming>> for Answer {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        let path = request.uri().path().to_owned();
        let writing = request.extensions().get::<Writing>().unwrap();
        let trusted = writing.is_trusted();
        if path == PATIENT_PATH {
            writing.not_beyond(Instant::now() + PATIENCE, Instant::now());
        }
        Box::pin(async move {
            match path.as_str() {
                SLOW_PATH => sleep(SLOW).await,
                NEVER_PATH | PATIENT_PATH => std::future::pending().await,
                READ_PATH => drop(request.into_body().collect().await),
                _ => {}
            }
            let length = match path.as_str() {
                BIG_PATH => BIG,
                TRUSTED_PATH => usize::from(trusted),
                _ => 0,
            };
            Ok(Response::new(Full::from(vec![b'x'; length])))
        })
    }
}

fn start(listener: Listener) -> Handle {
    start_with(listener, Protocols::Http2, Journal::new())
}

fn start_with(listener: Listener, protocols: Protocols, journal: Journal) -> Handle {
    let handle = listener.handle();
    let tasks = Tasks::new(journal);
    tasks.spawn("listener", listener.serve(Answer, protocols, tasks.clone()));
    handle
}

/// A listener on the in-memory network.
fn in_memory(limits: Limits) -> (memory::Connector, Handle) {
    let (connector, incoming) = memory::network();
    let handle = start(Listener::memory(incoming, limits.live()));
    (connector, handle)
}

/// A listener on loopback.
fn on_loopback(config: &Config, limits: Limits) -> (SocketAddr, Handle) {
    let handle = start(Listener::bind(config, limits.live()).unwrap());
    (handle.local_addr().unwrap(), handle)
}

async fn connected(connector: &memory::Connector) -> Wire {
    Wire::over(connector.connect().await.unwrap()).await
}

/// Bounds, on the paused clock, what would otherwise never end where a defence is missing.
async fn in_time<F: Future>(future: F) -> F::Output {
    timeout(Duration::from_hours(2), future)
        .await
        .expect("it ends in time")
}

/// Waits, in real time, until `condition` holds.
async fn until(condition: impl Fn() -> bool) {
    let reached = async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(10), reached)
        .await
        .expect("the condition holds in time");
}

fn limits() -> Limits {
    Limits::default()
}

fn shared(limits: Limits) -> LiveLimits {
    Arc::new(arc_swap::ArcSwap::from_pointee(limits))
}
