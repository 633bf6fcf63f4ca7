//! Notices a peer that went silent.
//!
//! gRPC servers end a connection on which they are pinged more often than they bear, with every
//! call on it: every five minutes, unless they are set up otherwise (gRFC A8, "Keepalive"). A server
//! of this platform says, by a header of its health watch, how often it bears pings; who says
//! nothing is pinged as rarely as any server bears.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use h2::{Ping, PingPong};
use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::time::{self, Instant, Sleep};

/// How often a server bears pings, in milliseconds between two.
pub(crate) static PING_INTERVAL_MIN: HeaderName =
    HeaderName::from_static("gantry-ping-interval-min-ms");

/// What a server of this platform says of itself: its listener minds no pings.
pub(crate) const PING_INTERVAL_MIN_OURS: HeaderValue = HeaderValue::from_static("1000");

/// Silence before a peer is pinged that does not say how often it bears it: what any gRPC server
/// does, and a little for the clocks.
const INTERVAL_UNTOLD: Duration = Duration::from_secs(5 * 60 + 10);

/// How often the peer bears pings, as the headers of its health watch say.
pub(super) fn interval_min(headers: &HeaderMap) -> Option<Duration> {
    let millis = headers.get(&PING_INTERVAL_MIN)?.to_str().ok()?;
    millis.parse().ok().map(Duration::from_millis)
}

/// How often a peer may be pinged.
#[derive(Debug)]
pub(super) struct Leave {
    /// Milliseconds.
    interval_min: AtomicU64,
}

impl Leave {
    /// For a peer that has not said anything, or whose word is not asked for.
    pub(super) fn new(always: bool) -> Self {
        let interval_min = if always {
            Duration::ZERO
        } else {
            INTERVAL_UNTOLD
        };
        let leave = Self {
            interval_min: AtomicU64::new(0),
        };
        leave.given(interval_min);
        leave
    }

    pub(super) fn given(&self, interval_min: Duration) {
        let millis = u64::try_from(interval_min.as_millis()).unwrap_or(u64::MAX);
        self.interval_min.store(millis, Ordering::Relaxed);
    }

    fn interval_min(&self) -> Duration {
        Duration::from_millis(self.interval_min.load(Ordering::Relaxed))
    }
}

/// Pings a peer that nothing was heard of for an interval, and gives up when nothing follows.
///
/// Any byte counts as life, so a busy connection is never pinged, and one whose pong queues
/// behind a large answer is not cut.
pub(super) struct Keepalive {
    ping_pong: PingPong,
    interval: Duration,
    timeout: Duration,
    timer: Pin<Box<Sleep>>,
    pinged: bool,
    /// Silence so far, in whole intervals.
    silent: Duration,
    /// Set by every read from the peer.
    heard: Arc<AtomicBool>,
}

impl Keepalive {
    pub(super) fn new(
        ping_pong: PingPong,
        interval: Duration,
        timeout: Duration,
        heard: Arc<AtomicBool>,
    ) -> Self {
        Self {
            ping_pong,
            interval,
            timeout,
            timer: Box::pin(time::sleep(interval)),
            pinged: false,
            silent: Duration::ZERO,
            heard,
        }
    }

    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Ready once the peer is taken for dead. Called whenever the connection is polled.
    pub(super) fn poll_dead(&mut self, leave: &Leave, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.pinged && self.ping_pong.poll_pong(cx).is_ready() {
                self.pinged = false;
                self.silent = Duration::ZERO;
                self.wait(self.interval);
            }
            if self.timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            let heard = self.heard.swap(false, Ordering::Relaxed);
            if heard {
                self.silent = Duration::ZERO;
                self.wait(self.interval);
                continue;
            }
            if self.pinged {
                return Poll::Ready(());
            }
            self.silent += self.interval;
            if self.silent < leave.interval_min() {
                self.wait(self.interval);
            } else {
                // Fails only while a ping is out, and then there is one.
                drop(self.ping_pong.send_ping(Ping::opaque()));
                self.pinged = true;
                self.wait(self.timeout);
            }
        }
    }

    fn wait(&mut self, pause: Duration) {
        self.timer.as_mut().reset(Instant::now() + pause);
    }
}
