//! Where a stand-in keeps its data, where it listens, and how it answers to its end.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use gantry::{
    server::Stack,
    shutdown::Tasks,
    transport::server::{self, BindError, Limits, Listener, LiveLimits, Protocols},
};
use tokio::time::timeout;

use crate::file::StoreError;

/// How long calls in flight may take to end once this ends; streams never do by themselves.
const DRAIN: Duration = Duration::from_millis(100);

/// How long a write under way may take to end after that.
const FAREWELL: Duration = Duration::from_secs(1);

/// Where data is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data {
    /// In a file in this folder, which is made where it is missing.
    Folder(PathBuf),
    /// Nowhere: it is gone with the process.
    Memory,
}

/// Where to listen.
#[derive(Debug)]
pub enum Listen {
    /// An address of this machine's loopback; port 0 takes a free one.
    Address(SocketAddr),
    /// A socket that listens already.
    Socket(std::net::TcpListener),
}

impl Listen {
    /// A free port of this machine's loopback.
    #[must_use]
    pub fn anywhere() -> Self {
        Self::Address(SocketAddr::from(([127, 0, 0, 1], 0)))
    }
}

/// Why nothing listens.
#[derive(Debug)]
pub(crate) enum ListenError {
    Bind(BindError),
    Socket(std::io::Error),
}

/// Listens, and says where.
pub(crate) fn listen(
    listen: Listen,
    limits: LiveLimits,
) -> Result<(Listener, SocketAddr), ListenError> {
    let listener = match listen {
        Listen::Address(address) => {
            let config = server::Config {
                address,
                ..server::Config::default()
            };
            Listener::bind(&config, limits).map_err(ListenError::Bind)?
        }
        Listen::Socket(socket) => Listener::adopt(socket, limits).map_err(ListenError::Socket)?,
    };
    let address = listener.handle().local_addr();
    let address = address.expect("a bound socket has an address");
    Ok((listener, address))
}

/// Answers by `stack` until `tasks` stops, then ends every stream with UNAVAILABLE and closes.
/// `owning` is who owns the state, and ends once nobody can ask any more.
///
/// # Errors
///
/// If `owning` fails: nobody can be answered then.
pub(crate) async fn answer(
    listener: Listener,
    stack: Stack,
    owning: impl Future<Output = Result<(), StoreError>>,
    tasks: Tasks,
) -> Result<(), StoreError> {
    let connections = listener.handle();
    let cut = connections.clone();
    let stopping = tasks.stopping();
    let calls = stack.clone();
    let serving = listener.serve(stack, Protocols::Http2, tasks);
    let draining = async move {
        stopping.cancelled().await;
        connections.drain();
        if timeout(DRAIN, connections.closed()).await.is_err() {
            calls.end_calls();
        }
        if timeout(FAREWELL, connections.closed()).await.is_err() {
            connections.cut();
        }
    };
    // On the heap: once, and it is large.
    let mut owning = Box::pin(owning);
    tokio::select! {
        failed = &mut owning => {
            cut.cut();
            return failed;
        }
        ((), ()) = async { tokio::join!(serving, draining) } => {}
    }
    // Nobody asks any more; what was asked is finished, so that the file is free afterwards.
    timeout(FAREWELL, owning).await.unwrap_or(Ok(()))
}

/// Bounds of the listener, where they differ from a service's.
pub(crate) fn limits() -> Limits {
    Limits {
        // All services of a machine are one peer.
        connections_per_peer_max: 4_096,
        // Whoever waits for news has a call of its own for it.
        streams_max: 10_000,
        // Whoever does not read costs nothing here, and loses nothing by waiting.
        write_stall_max: Duration::from_hours(24),
        // Streams would only have to be taken up again.
        connection_age_max: Duration::from_hours(24 * 365),
        connection_idle_max: Duration::from_hours(24),
        ..Limits::default()
    }
}
