//! The side port's socket: HTTP/1.1 for people and scrapers, HTTP/2 for gRPC, one address.

mod places;

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    time,
};
use tonic::body::Body;

use self::places::Places;
use super::{Config, pages::Pages};
use crate::{
    caller::Peer,
    shutdown::Tasks,
    transport::{server::holder, stall::Stall},
};

/// Connections at once, where there are descriptors for them; one more takes the place of another.
pub(crate) const CONNECTIONS_MAX: usize = 64;

/// Streams of one HTTP/2 connection at once.
const STREAMS_MAX: u32 = 64;

/// How long a connection may take to send a request, from the first byte of it to the last.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// How long an answer may wait for its reader to make room for more of it.
const STALL_MAX: Duration = Duration::from_secs(5);

/// Pause after an accept that failed for want of resources.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why the side port cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Anyone on the network could look inside and drain the process.
    #[error(
        "admin.address {address} is not loopback, and the side port asks nobody who he is; \
         set admin.insecure = true to serve it all the same"
    )]
    Remote {
        /// The address asked for.
        address: SocketAddr,
    },
    /// Someone else listens there.
    #[error(
        "admin.address {address}: port {} is taken by {}",
        address.port(),
        holder.as_deref().unwrap_or("another process")
    )]
    Taken {
        /// The address asked for.
        address: SocketAddr,
        /// Name and id of the process, where it could be found.
        holder: Option<String>,
    },
    /// The address cannot be listened on.
    #[error("admin.address {address}")]
    Address {
        /// The address asked for.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
}

/// A bound side port, not yet accepting.
#[derive(Debug)]
pub struct SidePort {
    socket: TcpListener,
    local_addr: SocketAddr,
}

impl SidePort {
    /// Binds the socket. Call it within a runtime.
    ///
    /// # Errors
    ///
    /// If the address is beyond loopback without leave, taken, or unusable.
    pub async fn bind(config: &Config) -> Result<Self, BindError> {
        let address = config.address;
        if !config.insecure && !address.ip().to_canonical().is_loopback() {
            return Err(BindError::Remote { address });
        }
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::AddrInUse => BindError::Taken {
                address,
                holder: holder::of(address),
            },
            _ => BindError::Address { address, source },
        };
        let socket = TcpListener::bind(address).await.map_err(failed)?;
        let local_addr = socket.local_addr().map_err(failed)?;
        Ok(Self { socket, local_addr })
    }

    /// The address bound, with the port that was taken.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Answers until `tasks` stops; each connection is a task of it. There are at most
    /// `connections_max` of them.
    pub(crate) async fn serve(self, pages: Arc<Pages>, tasks: Tasks, connections_max: usize) {
        let places = Places::new(connections_max);
        let stopping = tasks.stopping();
        let answer = move |request| {
            let pages = Arc::clone(&pages);
            async move { pages.answer(request).await }
        };
        loop {
            let next = async {
                let (stream, peer) = self.socket.accept().await?;
                let place = places.take(peer.ip(), &stopping).await;
                Ok::<_, io::Error>((stream, peer, place))
            };
            let Some(accepted) = stopping.run_until_cancelled(next).await else {
                return;
            };
            match accepted {
                Ok((stream, peer, place)) => {
                    let connection = connection(stream, peer, tasks.clone(), answer.clone());
                    tasks.spawn("side port connection", async move {
                        place.cut.run_until_cancelled(connection).await;
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "side port cannot accept");
                    time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// Runs the calls of HTTP/2 connections. One ends at the latest with its connection, which resets
/// its stream.
#[derive(Clone)]
struct Calls(Tasks);

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Calls {
    fn execute(&self, call: F) {
        self.0.spawn("side port call", call);
    }
}

async fn connection<I, A, F>(io: I, peer: SocketAddr, tasks: Tasks, answer: A)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    A: Fn(Request<Incoming>) -> F,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let asked = Arc::new(AtomicBool::new(false));
    let noted = Arc::clone(&asked);
    let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
        noted.store(true, Ordering::Relaxed);
        request.extensions_mut().insert(Peer::Tcp(peer));
        let answered = answer(request);
        async move { Ok::<_, std::convert::Infallible>(answered.await) }
    });
    let mut builder = auto::Builder::new(Calls(tasks));
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_TIMEOUT);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .keep_alive_interval(Some(Duration::from_secs(20)))
        .keep_alive_timeout(Duration::from_secs(20));
    let io = TokioIo::new(Stall::new(io, STALL_MAX));
    let mut serving = std::pin::pin!(builder.serve_connection(io, service));
    // Hyper waits for ever for the first bytes, which tell the version.
    let silent = async {
        time::sleep(REQUEST_TIMEOUT).await;
        if asked.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        served = serving.as_mut() => {
            if let Err(error) = served {
                tracing::debug!(%peer, error = %error, "side port connection failed");
            }
        }
        () = silent => tracing::debug!(%peer, "side port connection asked nothing"),
    }
}

#[cfg(test)]
mod tests;
