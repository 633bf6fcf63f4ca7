//! A peer that serves the health contract on h2 and notes what it handled.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use h2::server::{self, SendResponse};
use http::{HeaderMap, HeaderValue, Request, Response};
use tokio::{io::DuplexStream, sync::watch, time};
use tokio_util::sync::CancellationToken;

use super::{Net, net::Listener, raw::SERVING, spawn};

/// The request whose answer has headers and nothing more.
pub(super) const QUIET: &str = "quiet";

/// The request whose answer has one message and no end.
pub(super) const OPEN: &str = "open";

/// How a peer behaves.
#[derive(Debug, Clone, Copy)]
pub(super) struct Manners {
    /// Time until an answer begins.
    pub(super) latency: Duration,
    /// Its `SETTINGS_MAX_CONCURRENT_STREAMS`.
    pub(super) streams_max: u32,
}

impl Default for Manners {
    fn default() -> Self {
        Self {
            latency: Duration::ZERO,
            streams_max: 100,
        }
    }
}

/// A serving peer; clones share it.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    manners: Manners,
    handled: Arc<Mutex<HashMap<String, usize>>>,
    connections: Arc<AtomicUsize>,
    draining: Arc<watch::Sender<bool>>,
    standing: Arc<watch::Sender<bool>>,
    failing: Arc<AtomicBool>,
    serving: Arc<watch::Sender<bool>>,
    dead: CancellationToken,
}

impl Peer {
    pub(super) fn start(net: &Net, addr: SocketAddr, manners: Manners) -> Self {
        let peer = Self {
            manners,
            handled: Arc::default(),
            connections: Arc::default(),
            draining: Arc::new(watch::Sender::new(false)),
            standing: Arc::new(watch::Sender::new(false)),
            failing: Arc::default(),
            serving: Arc::new(watch::Sender::new(true)),
            dead: CancellationToken::new(),
        };
        let living = peer.clone().accept(net.listen(addr));
        spawn(peer.dead.clone().run_until_cancelled_owned(living));
        peer
    }

    /// How often each request was handled, by its service name.
    pub(super) fn handled(&self) -> HashMap<String, usize> {
        self.handled.lock().unwrap().clone()
    }

    pub(super) fn handled_count(&self) -> usize {
        self.handled.lock().unwrap().values().sum()
    }

    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Stops listening, sends GOAWAY, finishes what it has.
    pub(super) fn drain(&self) {
        self.draining.send_replace(true);
    }

    /// Answers nothing while it stands still.
    pub(super) fn stand_still(&self, still: bool) {
        self.standing.send_replace(still);
    }

    /// Fails every call as INTERNAL, when it would answer it.
    pub(super) fn fail(&self, fails: bool) {
        self.failing.store(fails, Ordering::SeqCst);
    }

    /// Says of itself whether it serves, and answers calls all the same.
    pub(super) fn tell_health(&self, serves: bool) {
        self.serving.send_replace(serves);
    }

    /// Stops listening and drops its connections, as a process that is killed.
    pub(super) fn die(&self) {
        self.dead.cancel();
    }

    async fn accept(self, mut listener: Listener) {
        let mut draining = self.draining.subscribe();
        loop {
            tokio::select! {
                _ = draining.wait_for(|draining| *draining) => return,
                Some(io) = listener.recv() => {
                    self.connections.fetch_add(1, Ordering::SeqCst);
                    let serving = self.clone().serve(io);
                    spawn(self.dead.clone().run_until_cancelled_owned(serving));
                }
            }
        }
    }

    async fn serve(self, io: DuplexStream) {
        let mut connection = server::Builder::new()
            .max_concurrent_streams(self.manners.streams_max)
            .handshake::<_, Bytes>(io)
            .await
            .unwrap();
        let mut draining = self.draining.subscribe();
        let mut told = false;
        loop {
            let accepted = tokio::select! {
                _ = draining.wait_for(|draining| *draining), if !told => {
                    told = true;
                    connection.graceful_shutdown();
                    continue;
                }
                accepted = connection.accept() => accepted,
            };
            let Some(Ok((request, respond))) = accepted else {
                return;
            };
            spawn(self.clone().handle(request, respond));
        }
    }

    /// Answers whoever watches its health.
    async fn watched(self, mut respond: SendResponse<Bytes>) {
        let head = Response::builder().header("content-type", "application/grpc");
        let Ok(mut stream) = respond.send_response(head.body(()).unwrap(), false) else {
            return;
        };
        let mut serving = self.serving.subscribe();
        loop {
            let word = if *serving.borrow_and_update() { 1 } else { 2 };
            let message = Bytes::from(vec![0, 0, 0, 0, 2, 8, word]);
            if stream.send_data(message, false).is_err() || serving.changed().await.is_err() {
                return;
            }
        }
    }

    async fn handle(self, request: Request<h2::RecvStream>, mut respond: SendResponse<Bytes>) {
        let watches = request.uri().path().ends_with("/Watch");
        let mut body = request.into_body();
        let mut message = Vec::new();
        while let Some(Ok(data)) = body.data().await {
            message.extend(&data);
            body.flow_control().release_capacity(data.len()).unwrap();
        }
        // Five bytes of gRPC, then field 1 and its length.
        let name = String::from_utf8_lossy(message.get(7..).unwrap_or_default()).into_owned();
        if watches && name.is_empty() {
            return self.watched(respond).await;
        }
        let (quiet, open) = (name == QUIET, name == OPEN);
        *self.handled.lock().unwrap().entry(name).or_default() += 1;
        time::sleep(self.manners.latency).await;
        let mut standing = self.standing.subscribe();
        standing.wait_for(|standing| !*standing).await.unwrap();
        let head = Response::builder().header("content-type", "application/grpc");
        if self.failing.load(Ordering::SeqCst) {
            let head = head.header("grpc-status", "13").body(()).unwrap();
            drop(respond.send_response(head, true));
            return;
        }
        let head = head.body(()).unwrap();
        let Ok(mut stream) = respond.send_response(head, false) else {
            return;
        };
        if quiet {
            return std::future::pending().await;
        }
        drop(stream.send_data(Bytes::from_static(SERVING), false));
        if open {
            return std::future::pending().await;
        }
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        drop(stream.send_trailers(trailers));
    }
}
