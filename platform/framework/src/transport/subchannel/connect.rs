//! How bytes reach an endpoint: TCP, or what a test puts in its place.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

/// A connection's bytes.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Io for T {}

/// Connects to endpoints. Time limits are the caller's; dropping the future gives up.
#[async_trait::async_trait]
pub trait Connect: Send + Sync + 'static {
    /// Opens a connection to `addr`.
    ///
    /// # Errors
    ///
    /// If there is no way to `addr`, with the reason.
    async fn connect(&self, addr: SocketAddr) -> io::Result<Box<dyn Io>>;

    /// Whether the bytes are encrypted, which decides the scheme requests name.
    fn is_secure(&self) -> bool {
        false
    }
}

/// How long bytes may stay without TCP's acknowledgement: a host that is gone is noticed as soon as
/// there is something to tell it.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(20);

/// Plain TCP.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tcp;

#[async_trait::async_trait]
impl Connect for Tcp {
    async fn connect(&self, addr: SocketAddr) -> io::Result<Box<dyn Io>> {
        let stream = TcpStream::connect(addr).await?;
        // Small frames wait for nobody.
        stream.set_nodelay(true)?;
        let millis = u32::try_from(UNACKNOWLEDGED_MAX.as_millis()).unwrap_or(u32::MAX);
        rustix::net::sockopt::set_tcp_user_timeout(&stream, millis)?;
        Ok(Box::new(stream))
    }
}

/// Notes every read, for the keepalive.
pub(super) struct Watched {
    io: Box<dyn Io>,
    heard: Arc<AtomicBool>,
}

impl Watched {
    pub(super) fn new(io: Box<dyn Io>, heard: Arc<AtomicBool>) -> Self {
        Self { io, heard }
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buffer))?;
        if buffer.filled().len() > before {
            self.heard.store(true, Ordering::Relaxed);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
