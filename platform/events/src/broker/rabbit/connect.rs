//! One connection: TCP, TLS as everywhere in the platform, and the handshake of AMQP.
//!
//! The client library is handed a stream that is made already, as it would try for longer than anybody
//! waits, with a stack of TLS of its own. When nobody waits any more, the stream is cut: a thread of the
//! library reads it, and would do so for as long as a broker that stands still keeps it open.

use std::{
    fmt, future,
    io::{self, Read, Write},
    net::SocketAddr,
    path::Path,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use async_rs::{Runtime, Tokio, traits::Reactor, util::RuntimeParts};
use futures_core::Stream;
use futures_util::{stream, task::AtomicWaker};
use gantry::client::Tls;
use lapin::{
    AsyncTcpStream, Connection, ConnectionProperties, Error,
    uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo},
};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
};
use tokio::{net::TcpStream, task::spawn_blocking};
use tokio_rustls::TlsConnector;
use tokio_util::compat::TokioAsyncReadCompatExt as _;

use crate::broker::rabbit::{failure::Failure, place::Place};

/// Connects to a place, under a name for its operators. Dropped meanwhile, nothing of it is left.
pub(super) async fn connect(place: &Place, name: &str) -> Result<Connection, Failure> {
    let stream = TcpStream::connect((place.host(), place.port())).await?;
    // Confirmations and acks are small, and somebody waits for each.
    stream.set_nodelay(true)?;
    let stream: Box<dyn Both> = match &place.tls {
        None => Box::new(stream.compat()),
        Some(tls) => Box::new(secured(stream, place, tls.clone()).await?.compat()),
    };
    let cut = Arc::<Cut>::default();
    let wire = Wire {
        stream,
        cut: Arc::clone(&cut),
    };
    let guard = Guard(Some(cut));
    let handed = Mutex::new(Some(wire));
    let hand = async move |_: AMQPUri, _: Runtime<Kit>| {
        let taken = handed.lock().unwrap_or_else(PoisonError::into_inner).take();
        taken
            .map(AsyncTcpStream::Plain)
            .ok_or_else(|| Error::from(io::Error::from(io::ErrorKind::NotConnected)))
    };
    let properties = ConnectionProperties::default().with_connection_name(name.into());
    let runtime = Runtime::new(RuntimeParts::new(Tokio::current(), Wires));
    let connection = Connection::connector(uri(place), runtime, hand, properties).await?;
    guard.disarm();
    Ok(connection)
}

fn uri(place: &Place) -> AMQPUri {
    AMQPUri {
        // Whatever it is secured by, the library has no part in it.
        scheme: AMQPScheme::AMQP,
        authority: AMQPAuthority {
            userinfo: AMQPUserInfo {
                username: place.user.clone(),
                password: place.password.expose().to_owned(),
            },
            host: place.host().to_owned(),
            port: place.port(),
        },
        vhost: place.virtual_host(),
        query: AMQPQueryString {
            // Twice that with no word, and either end takes the connection for gone.
            heartbeat: u16::try_from(place.heartbeat.as_secs()).ok(),
            ..AMQPQueryString::default()
        },
    }
}

async fn secured(
    stream: TcpStream,
    place: &Place,
    tls: Tls,
) -> Result<tokio_rustls::client::TlsStream<TcpStream>, Failure> {
    let unsecured = |why: String| Failure::Unsecured(why.into());
    let name = tls.server_name.clone();
    let name = name.unwrap_or_else(|| place.host().to_owned());
    let name = ServerName::try_from(name).map_err(|error| unsecured(error.to_string()))?;
    // Files are read each time: they may have been replaced.
    let config = spawn_blocking(move || believing(&tls)).await;
    let config = config.map_err(|error| unsecured(error.to_string()))?;
    let connector = TlsConnector::from(Arc::new(config.map_err(unsecured)?));
    let secured = connector.connect(name, stream).await;
    secured.map_err(|error| unsecured(format!("TLS: {error}")))
}

/// How to greet whom we trust, and who we are, where that is asked.
fn believing(tls: &Tls) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    let ca = tls.ca.as_deref().ok_or("broker.tls.ca is missing")?;
    for certificate in certificates(ca)? {
        roots
            .add(certificate)
            .map_err(|error| format!("{}: {error}", ca.display()))?;
    }
    let provider = Arc::new(ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring supports the default versions")
        .with_root_certificates(roots);
    let (Some(certificate), Some(key)) = (&tls.certificate, &tls.key) else {
        return Ok(config.with_no_client_auth());
    };
    let failed = |error: &dyn fmt::Display| format!("{}: {error}", key.display());
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| failed(&error))?;
    config
        .with_client_auth_cert(certificates(certificate)?, private)
        .map_err(|error| failed(&error))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let failed = |error: &dyn fmt::Display| format!("{}: {error}", path.display());
    let found = CertificateDer::pem_file_iter(path).map_err(|error| failed(&error))?;
    let found: Result<Vec<_>, _> = found.collect();
    let found = found.map_err(|error| failed(&error))?;
    if found.is_empty() {
        return Err(failed(&"there is no certificate in it"));
    }
    Ok(found)
}

/// A stream that can be read and written.
trait Both: futures_io::AsyncRead + futures_io::AsyncWrite + Send + Unpin {}

impl<S: futures_io::AsyncRead + futures_io::AsyncWrite + Send + Unpin> Both for S {}

/// A stream that can be cut from elsewhere.
struct Wire {
    stream: Box<dyn Both>,
    cut: Arc<Cut>,
}

/// Whether a stream is cut.
#[derive(Default)]
struct Cut {
    is: AtomicBool,
    reader: AtomicWaker,
}

/// Cuts a stream when dropped.
struct Guard(Option<Arc<Cut>>);

impl Guard {
    fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(cut) = self.0.take() {
            cut.is.store(true, Ordering::Release);
            cut.reader.wake();
        }
    }
}

impl Wire {
    fn whole(&self) -> io::Result<()> {
        if self.cut.is.load(Ordering::Acquire) {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        Ok(())
    }
}

impl futures_io::AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        self.cut.reader.register(context.waker());
        self.whole()?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl futures_io::AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.whole()?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(context)
    }
}

/// What the library runs on: the runtime that there is, and streams of ours.
type Kit = RuntimeParts<Tokio, Wires>;

/// Time, by the runtime; streams come from elsewhere.
#[derive(Debug, Clone, Copy)]
struct Wires;

impl Reactor for Wires {
    type TcpStream = Wire;
    type Sleep = <Tokio as Reactor>::Sleep;

    fn register<H: Read + Write + Send + 'static>(
        &self,
        _: H,
    ) -> io::Result<impl futures_io::AsyncRead + futures_io::AsyncWrite + Send + Unpin + 'static>
    {
        Err::<Wire, _>(io::ErrorKind::Unsupported.into())
    }

    fn sleep(&self, pause: Duration) -> Self::Sleep {
        Tokio::current().sleep(pause)
    }

    #[expect(
        clippy::disallowed_types,
        reason = "what the trait says; none is ever made"
    )]
    fn interval(&self, _: Duration) -> impl Stream<Item = std::time::Instant> + Send + 'static {
        stream::pending()
    }

    fn tcp_connect_addr(
        &self,
        _: SocketAddr,
    ) -> impl Future<Output = io::Result<Wire>> + Send + 'static {
        future::ready(Err(io::ErrorKind::Unsupported.into()))
    }
}
