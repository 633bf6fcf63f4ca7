//! What others may know of a listener, and ask of it.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    gate::{Counts, Gate, Place, Refused},
    limits::{Limits, LiveLimits},
    line::Usage,
};
use crate::{
    caller::Peer,
    transport::tls::{LoadError, Tls},
};

/// Watches a listener and its connections, and ends them; clones are for the same one.
#[derive(Debug, Clone)]
pub struct Handle {
    pub(super) shared: Arc<Shared>,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) limits: LiveLimits,
    pub(super) gate: Arc<Gate>,
    pub(super) tls: Option<Tls>,
    /// Accept nothing more; connections go away once their calls have ended.
    pub(super) drain: CancellationToken,
    /// Connections close now.
    pub(super) cut: CancellationToken,
    local_addr: Option<SocketAddr>,
    connections: Mutex<BTreeMap<u64, Arc<Connection>>>,
    next: AtomicU64,
    closed: watch::Sender<bool>,
}

/// What is published of one connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) peer: Peer,
    pub(super) tls: bool,
    /// Whether the peer has proved that it belongs to the system.
    pub(super) trusted: bool,
    accepted: Instant,
    pub(super) usage: Arc<Usage>,
    /// Whether the peer speaks HTTP/1.1, as far as it has asked for anything.
    pub(super) http1: AtomicBool,
    /// Whether the next answer over HTTP/1.1 says that it is the last.
    pub(super) last_answer: AtomicBool,
    abandoned: Mutex<Abandoned>,
    abandoned_max: u32,
    gate: Arc<Gate>,
    /// Closes this connection now; also by [`Handle::cut`].
    pub(super) cut: CancellationToken,
}

/// What a peer gave up since a moment at most [`ABANDONED_WINDOW`] ago.
#[derive(Debug)]
struct Abandoned {
    since: Instant,
    /// Calls that had ended then.
    ended_before: u64,
    count: u32,
}

/// For how long calls that are given up add up.
const ABANDONED_WINDOW: Duration = Duration::from_secs(1);

/// One open connection, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionInfo {
    /// Unique among the connections of this listener, in the order they were accepted.
    pub id: u64,
    /// The other end.
    pub peer: Peer,
    /// Whether it is encrypted.
    pub tls: bool,
    /// Time since it was accepted.
    pub age: Duration,
    /// Calls in flight.
    pub streams_open: u64,
    /// Calls so far.
    pub streams_total: u64,
}

impl Handle {
    pub(super) fn new(
        limits: LiveLimits,
        local_addr: Option<SocketAddr>,
        tls: Option<Tls>,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                limits,
                gate: Arc::default(),
                tls,
                drain: CancellationToken::new(),
                cut: CancellationToken::new(),
                local_addr,
                connections: Mutex::default(),
                next: AtomicU64::new(1),
                closed: watch::Sender::new(false),
            }),
        }
    }

    /// The address bound, with the port that was taken; none in memory.
    #[must_use]
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.shared.local_addr
    }

    /// The bounds in force; store into them to change them.
    #[must_use]
    pub fn limits(&self) -> &LiveLimits {
        &self.shared.limits
    }

    /// Replaces the bounds, from the next connection and the next call on.
    pub fn set_limits(&self, limits: Limits) {
        self.shared.limits.store(Arc::new(limits));
    }

    /// The certificate in use, where there is one.
    #[must_use]
    pub fn tls(&self) -> Option<&Tls> {
        self.shared.tls.as_ref()
    }

    /// Reads the certificate's files again; without TLS there is nothing to read.
    ///
    /// # Errors
    ///
    /// If they cannot be used; the certificate in use stays.
    pub fn reload_tls(&self) -> Result<(), LoadError> {
        self.shared.tls.as_ref().map_or(Ok(()), Tls::reload)
    }

    /// As long as it is wanted, tells connections to go away that were open for ten seconds, each some
    /// time in the ten seconds after, with the grace of those that are old: their callers come back
    /// by other connections, and to other instances where there are some. New ones are accepted.
    pub fn thin(&self, wanted: bool) {
        self.shared.gate.thin(wanted);
    }

    /// Stops accepting and tells every connection to go away; calls in flight go on.
    pub fn drain(&self) {
        self.shared.drain.cancel();
    }

    /// Whether [`Handle::drain`] was called.
    #[must_use]
    pub fn draining(&self) -> bool {
        self.shared.drain.is_cancelled()
    }

    /// Closes every connection now, whatever is in flight on it.
    pub fn cut(&self) {
        self.shared.drain.cancel();
        self.shared.cut.cancel();
    }

    /// Completes when the last connection of a drained listener is closed.
    pub async fn closed(&self) {
        let mut closed = self.shared.closed.subscribe();
        // The sender lives in `self`, so this cannot fail.
        drop(closed.wait_for(|closed| *closed).await);
    }

    /// Connections since the listener was bound.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.shared.gate.counts()
    }

    /// The open connections, oldest first.
    #[must_use]
    pub fn connections(&self) -> Vec<ConnectionInfo> {
        let connections = self.shared.lock();
        connections
            .iter()
            .map(|(id, connection)| connection.info(*id))
            .collect()
    }
}

impl Shared {
    /// Lists a connection until the guard is dropped.
    pub(super) fn list(self: &Arc<Self>, peer: Peer, place: &Place, limits: &Limits) -> Listed {
        let accepted = Instant::now();
        let connection = Arc::new(Connection {
            peer,
            tls: self.tls.is_some(),
            trusted: match &self.tls {
                // Whoever shows no certificate is refused then, before its first request.
                Some(tls) => tls.files().client_ca.is_some(),
                None => peer.is_loopback(),
            },
            accepted,
            usage: place.usage(),
            http1: AtomicBool::new(false),
            last_answer: AtomicBool::new(false),
            abandoned: Mutex::new(Abandoned {
                since: accepted,
                ended_before: 0,
                count: 0,
            }),
            abandoned_max: limits.streams_abandoned_max,
            gate: Arc::clone(&self.gate),
            cut: self.cut.child_token(),
        });
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        self.lock().insert(id, Arc::clone(&connection));
        Listed {
            shared: Arc::clone(self),
            connection,
            id,
        }
    }

    pub(super) fn set_closed(&self) {
        self.closed.send_replace(true);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, Arc<Connection>>> {
        self.connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connection {
    /// Counts a call that the peer gave up early. A peer that does it all the time makes us begin work
    /// for nothing, within every other limit: its connection is cut. A busy one whose calls are
    /// given up now and then is let be.
    pub(super) fn abandon(&self) {
        let ended = self.usage.ended();
        let now = Instant::now();
        let mut abandoned = self
            .abandoned
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if now - abandoned.since > ABANDONED_WINDOW {
            *abandoned = Abandoned {
                since: now,
                ended_before: ended,
                count: 0,
            };
        }
        abandoned.count += 1;
        let all = ended.saturating_sub(abandoned.ended_before);
        if abandoned.count > self.abandoned_max && u64::from(abandoned.count) * 2 > all {
            if !self.cut.is_cancelled() {
                tracing::info!(peer = %self.peer, "connection cut: its calls are given up too fast");
                self.gate.count_refused(Refused::GivenUp);
            }
            self.cut.cancel();
        }
    }

    fn info(&self, id: u64) -> ConnectionInfo {
        ConnectionInfo {
            id,
            peer: self.peer,
            tls: self.tls,
            age: self.accepted.elapsed(),
            streams_open: self.usage.open(),
            streams_total: self.usage.begun(),
        }
    }
}

/// The entry of one open connection; dropping it takes it off the list.
#[derive(Debug)]
pub(super) struct Listed {
    shared: Arc<Shared>,
    pub(super) connection: Arc<Connection>,
    id: u64,
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.shared.lock().remove(&self.id);
    }
}
