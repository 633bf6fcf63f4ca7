//! A connection that takes its time, or breaks off: a proxy that passes every byte on after a delay.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
    task::JoinSet,
    time::{self, Instant},
};

/// Chunks on their way at most, each way.
const CHUNKS: usize = 1_024;

/// A proxy to one address; ends when dropped.
#[derive(Debug)]
pub struct Slow {
    /// Where to connect in place of the real address.
    pub address: SocketAddr,
    delay: Arc<AtomicU64>,
    accepted: Arc<AtomicU64>,
    cuts: watch::Sender<()>,
    _tasks: JoinSet<()>,
}

impl Slow {
    /// Passes on to `target`, without delay at first.
    ///
    /// # Panics
    ///
    /// If there is no port.
    pub async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("a bound socket");
        let delay = Arc::new(AtomicU64::new(0));
        let accepted = Arc::new(AtomicU64::new(0));
        let mut tasks = JoinSet::new();
        let (shared, count) = (Arc::clone(&delay), Arc::clone(&accepted));
        let cuts = watch::Sender::new(());
        let cut = cuts.clone();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((near, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                let shared = Arc::clone(&shared);
                let mut cut = cut.subscribe();
                connections.spawn(async move {
                    let Ok(far) = TcpStream::connect(target).await else {
                        return;
                    };
                    let (near_in, near_out) = near.into_split();
                    let (far_in, far_out) = far.into_split();
                    let both = async {
                        tokio::join!(
                            pass(near_in, far_out, Arc::clone(&shared)),
                            pass(far_in, near_out, shared)
                        );
                    };
                    tokio::select! {
                        () = both => {}
                        // Both ends are told that the other is gone.
                        _ = cut.changed() => {}
                    }
                });
            }
        });
        Self {
            address,
            delay,
            accepted,
            cuts,
            _tasks: tasks,
        }
    }

    /// How much longer everything takes to be answered from now on: bytes take half of it each way.
    pub fn delay(&self, delay: Duration) {
        let millis = u64::try_from((delay / 2).as_millis()).unwrap_or(u64::MAX);
        self.delay.store(millis, Ordering::SeqCst);
    }

    /// Breaks off every connection there is, in the middle of whatever passes; new ones are taken.
    pub fn cut(&self) {
        self.cuts.send_replace(());
    }

    /// Connections taken so far.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::SeqCst)
    }
}

async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    delay: Arc<AtomicU64>,
) {
    let (sender, mut chunks) = mpsc::channel::<(Instant, Vec<u8>)>(CHUNKS);
    let read = async move {
        let mut buffer = vec![0; 16 << 10];
        while let Ok(count @ 1..) = from.read(&mut buffer).await {
            let delay = Duration::from_millis(delay.load(Ordering::SeqCst));
            let chunk = (Instant::now() + delay, buffer[..count].to_vec());
            if sender.send(chunk).await.is_err() {
                return;
            }
        }
    };
    let write = async move {
        while let Some((due, chunk)) = chunks.recv().await {
            time::sleep_until(due).await;
            if to.write_all(&chunk).await.is_err() {
                return;
            }
        }
        drop(to.shutdown().await);
    };
    tokio::join!(read, write);
}
