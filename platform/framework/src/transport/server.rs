//! The accept loop: from a listening socket to requests, with a bound on everything.
//!
//! ```text
//! Listener ──accept──▶ Gate (caps) ──▶ TLS ──▶ HTTP/2 ──▶ service    (or HTTP/1.1)
//!                        │                        │
//!                     Handle ◀── counts, list ────┘   drain, cut, reload
//! ```
//!
//! What happens above a request is the service's business; this module knows connections alone.

use std::{io, net::SocketAddr, path::PathBuf};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;
use tower::Service;

use crate::{
    BoxError, config,
    shutdown::Tasks,
    transport::{
        memory,
        tls::{self, Files, Tls},
    },
};

mod accept;
mod calls;
mod connection;
mod gate;
mod handle;
pub mod holder;
mod limits;
mod line;
mod outflow;
mod pressure;

pub use calls::Writing;
pub use gate::{Counts, Evicted, Refused};
pub use handle::{ConnectionInfo, Handle};
pub use limits::{Limits, LiveLimits};

/// Connections the kernel holds until they are accepted.
const BACKLOG: i32 = 1_024;

config::section! {
    /// Where to listen, and how to prove who listens.
    pub struct Config {
        /// Address and port; port 0 takes a free one.
        pub address: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 0)), restart;
        /// Serve plaintext on an address that is not loopback.
        pub insecure: bool = false, restart;
        /// Certificate chain as PEM; with `key`, connections are TLS. What the file holds is read
        /// again when it changes.
        pub certificate: Option<PathBuf> = None, restart;
        /// Private key as PEM.
        pub key: Option<PathBuf> = None, restart;
        /// Certificates as PEM that must have signed a client's; where given, clients without one
        /// are refused.
        pub client_ca: Option<PathBuf> = None, restart;
    }
    validate = Config::check;
}

impl Config {
    fn check(&self, check: &mut config::Check<'_, '_>) {
        if self.certificate.is_some() != self.key.is_some() {
            let (without, with) = match self.key {
                None => ("key", "certificate"),
                Some(_) => ("certificate", "key"),
            };
            check.refuse(without, format!("expected a file, as {with} is set"));
        }
        if self.client_ca.is_some() && self.certificate.is_none() {
            check.refuse("client_ca", "expected certificate and key beside it");
        }
    }
}

/// Why nothing listens.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Someone else listens there.
    #[error(
        "listen.address {address}: port {} is taken by {}",
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
    #[error("listen.address {address}")]
    Address {
        /// The address asked for.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// Anyone on the network could read and write along.
    #[error(
        "listen.address {address} is not loopback and would be served in plaintext; \
         set listen.certificate and listen.key, or listen.insecure = true"
    )]
    Plaintext {
        /// The address asked for.
        address: SocketAddr,
    },
    /// One of the two is of no use.
    #[error("listen.certificate and listen.key must be set together")]
    HalfTls,
    /// The certificate cannot be used.
    #[error("listen.certificate, listen.key")]
    Tls {
        /// Why not.
        #[from]
        source: tls::LoadError,
    },
}

/// What a listener's connections may speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocols {
    /// HTTP/2, as gRPC does.
    Http2,
    /// HTTP/1.1 as well; its requests come one after the other on each connection.
    Http1And2,
}

/// A bound socket, not yet accepting.
///
/// Connections that arrive before [`Listener::serve`] wait in the kernel's backlog. Dropping it
/// closes the socket.
#[derive(Debug)]
pub struct Listener {
    source: Source,
    handle: Handle,
}

#[derive(Debug)]
enum Source {
    Tcp {
        socket: TcpListener,
        /// Whether whoever handed it over goes on listening there.
        lent: bool,
    },
    Memory(memory::Incoming),
    /// Fails each time, as told.
    #[cfg(test)]
    Scripted(Scripted),
}

#[cfg(test)]
struct Scripted(Box<dyn FnMut() -> io::Error + Send>);

#[cfg(test)]
impl std::fmt::Debug for Scripted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Scripted")
    }
}

impl Listener {
    /// Binds the socket. Call it within a runtime.
    ///
    /// # Errors
    ///
    /// If the address is taken or unusable, if it would be plaintext beyond loopback, or if the
    /// certificate cannot be used. Each error names the setting.
    pub fn bind(config: &Config, limits: LiveLimits) -> Result<Self, BindError> {
        Self::at(config, listen, limits, false)
    }

    /// As [`Listener::bind`], at a socket that listens already and that others may listen at as well:
    /// what waits there when this one drains is left to them.
    ///
    /// # Errors
    ///
    /// As [`Listener::bind`].
    pub fn lent(
        config: &Config,
        socket: std::net::TcpListener,
        limits: LiveLimits,
    ) -> Result<Self, BindError> {
        let unusable = |source| BindError::Address {
            address: config.address,
            source,
        };
        let config = Config {
            address: socket.local_addr().map_err(unusable)?,
            ..config.clone()
        };
        let take = |_| {
            socket.set_nonblocking(true)?;
            TcpListener::from_std(socket)
        };
        Self::at(&config, take, limits, true)
    }

    fn at(
        config: &Config,
        listen: impl FnOnce(SocketAddr) -> io::Result<TcpListener>,
        limits: LiveLimits,
        lent: bool,
    ) -> Result<Self, BindError> {
        let tls = load_tls(config)?;
        let address = config.address;
        if tls.is_none() && !config.insecure && !address.ip().to_canonical().is_loopback() {
            return Err(BindError::Plaintext { address });
        }
        let socket = listen(address).map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => BindError::Taken {
                address,
                holder: holder::of(address),
            },
            _ => BindError::Address { address, source },
        })?;
        let local_addr = socket.local_addr().ok();
        Ok(Self {
            source: Source::Tcp { socket, lent },
            handle: Handle::new(limits, local_addr, tls),
        })
    }

    /// Takes over a socket that listens already, to be served in plaintext. Call it within a
    /// runtime. Whoever bound it answers for its address.
    ///
    /// # Errors
    ///
    /// If the runtime cannot watch it.
    pub fn adopt(socket: std::net::TcpListener, limits: LiveLimits) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let socket = TcpListener::from_std(socket)?;
        let local_addr = Some(socket.local_addr()?);
        Ok(Self {
            source: Source::Tcp {
                socket,
                lent: false,
            },
            handle: Handle::new(limits, local_addr, None),
        })
    }

    /// Listens on the in-memory network.
    #[must_use]
    pub fn memory(incoming: memory::Incoming, limits: LiveLimits) -> Self {
        Self {
            source: Source::Memory(incoming),
            handle: Handle::new(limits, None, None),
        }
    }

    /// Watches and ends what this listener serves.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Accepts connections and serves each with a clone of `service`, until
    /// [`Handle::drain`] or the owner of `tasks` stops; then accepts what already waits, tells
    /// every connection to go away, and returns when the last is closed. Over TLS, a connection's
    /// protocol is agreed on by ALPN.
    ///
    /// Each request carries the [`Peer`](crate::caller::Peer) in its extensions, and [`Writing`],
    /// by which the service says until when its caller may take to read the answer. The service must
    /// always be ready: it answers a call it cannot take, it does not hold back a connection.
    pub async fn serve<S, B>(self, service: S, protocols: Protocols, tasks: Tasks)
    where
        S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + Sync + 'static,
        S::Future: Send + 'static,
        S::Error: Into<BoxError> + Send,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        accept::run(self.source, self.handle, service, protocols, tasks).await;
    }
}

fn load_tls(config: &Config) -> Result<Option<Tls>, BindError> {
    let (certificate, key) = match (&config.certificate, &config.key) {
        (Some(certificate), Some(key)) => (certificate, key),
        (None, None) => return Ok(None),
        _ => return Err(BindError::HalfTls),
    };
    let tls = Tls::load(Files {
        certificate: certificate.clone(),
        key: key.clone(),
        client_ca: config.client_ca.clone(),
    })?;
    Ok(Some(tls))
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    // A restart must not wait for the last connections of the process before it.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

#[cfg(test)]
mod tests;
