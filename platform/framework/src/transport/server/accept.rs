//! The loop that takes connections off a socket and starts each on its way.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use rustix::io::Errno;
use tokio::{
    io::DuplexStream,
    net::TcpStream,
    time::{Instant, sleep},
};
use tokio_util::task::TaskTracker;
use tower::Service;

use super::{
    BACKLOG, Handle, Protocols, Source,
    connection::{self, Opened},
    gate::Gate,
};
use crate::{
    BoxError,
    backoff::{self, Backoff},
    caller::Peer,
    shutdown::Tasks,
};

/// A connection as the system hands it over.
pub(super) enum Accepted {
    Tcp(TcpStream, SocketAddr),
    Memory(DuplexStream),
}

impl Accepted {
    fn peer(&self) -> Peer {
        match self {
            Self::Tcp(_, addr) => Peer::Tcp(*addr),
            Self::Memory(_) => Peer::Memory,
        }
    }
}

impl Source {
    fn is_lent(&self) -> bool {
        matches!(self, Self::Tcp { lent: true, .. })
    }

    /// The next connection; `None` if there can be none. Cancel-safe.
    async fn accept(&mut self) -> io::Result<Option<Accepted>> {
        match self {
            Self::Tcp { socket, .. } => {
                let (stream, addr) = socket.accept().await?;
                Ok(Some(Accepted::Tcp(stream, addr)))
            }
            Self::Memory(incoming) => Ok(incoming.accept().await.map(Accepted::Memory)),
            #[cfg(test)]
            Self::Scripted(script) => Err(script.0()),
        }
    }
}

/// See [`Listener::serve`](super::Listener::serve).
pub(super) async fn run<S, B>(
    mut source: Source,
    handle: Handle,
    service: S,
    protocols: Protocols,
    tasks: Tasks,
) where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError> + Send,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let entrance = Entrance {
        handle: handle.clone(),
        service,
        protocols,
        open: TaskTracker::new(),
        tasks: tasks.clone(),
    };
    let shared = &handle.shared;
    let stopping = tasks.stopping();
    shared.gate.write_to(tasks.journal());
    let mut pause = pauses();
    loop {
        // Each arm is cancel-safe: a connection is either accepted or still in the backlog.
        let accepted = tokio::select! {
            biased;
            () = shared.drain.cancelled() => break,
            () = stopping.cancelled() => break,
            () = shared.gate.due() => {
                shared.gate.ease(&shared.limits.load());
                continue;
            }
            accepted = source.accept() => accepted,
        };
        match accepted {
            Ok(Some(accepted)) => {
                pause.reset();
                entrance.admit(accepted);
            }
            Ok(None) => break,
            Err(error) => {
                shared.gate.count_accept_failed();
                if !is_exhausted(&error) {
                    // One peer's misfortune, as an abort before it was accepted.
                    continue;
                }
                let pause = pause.next_pause();
                tracing::warn!(%error, ?pause, "cannot accept connections");
                tokio::select! {
                    () = shared.drain.cancelled() => {}
                    () = stopping.cancelled() => {}
                    () = sleep(pause) => {}
                }
            }
        }
    }
    handle.drain();
    entrance.admit_waiting(&mut source);
    drop(source);
    entrance.open.close();
    entrance.open.wait().await;
    shared.set_closed();
}

struct Entrance<S> {
    handle: Handle,
    service: S,
    protocols: Protocols,
    open: TaskTracker,
    tasks: Tasks,
}

impl<S, B> Entrance<S>
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError> + Send,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    /// Starts those that wait in the backlog already: they would be reset if the socket closed now, and
    /// are told to go away in good order instead. The bound keeps a flood from holding up the drain.
    /// Where another process goes on listening, they are for that one.
    fn admit_waiting(&self, source: &mut Source) {
        let waiting = if source.is_lent() { 0 } else { BACKLOG };
        for _ in 0..waiting {
            match source.accept().now_or_never() {
                Some(Ok(Some(accepted))) => self.admit(accepted),
                Some(Err(error)) if !is_exhausted(&error) => {}
                _ => break,
            }
        }
    }

    /// Starts a connection, or closes it here, before it costs a handshake.
    fn admit(&self, accepted: Accepted) {
        let shared = &self.handle.shared;
        let limits = shared.limits.load_full();
        let peer = accepted.peer();
        let place = match Gate::admit(&shared.gate, peer, &limits) {
            Ok(place) => Arc::new(place),
            Err(reason) => {
                tracing::debug!(%peer, reason = reason.as_str(), "connection refused");
                return;
            }
        };
        let opened = Opened {
            accepted,
            at: Instant::now(),
            listed: shared.list(peer, &place, &limits),
            place,
            shared: Arc::clone(shared),
            limits,
            protocols: self.protocols,
            open: self.open.clone(),
        };
        let serving = connection::run(opened, self.service.clone());
        self.tasks
            .spawn("connection", self.open.track_future(serving));
    }
}

/// Whether the system is out of something every further attempt would need as well.
fn is_exhausted(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(
        errno,
        Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM)
    )
}

fn pauses() -> Backoff {
    let config = backoff::Config {
        min: Duration::from_millis(10),
        max: Duration::from_secs(1),
        multiplier: 2.0,
        jitter: 0.0,
    };
    Backoff::new(config).expect("the constants above grow from more than zero")
}
