//! Notices a peer that went silent.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use h2::{Ping, PingPong};
use tokio::time::{self, Instant, Sleep};

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
            heard,
        }
    }

    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Ready once the peer is taken for dead. Called whenever the connection is polled.
    pub(super) fn poll_dead(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.pinged && self.ping_pong.poll_pong(cx).is_ready() {
                self.pinged = false;
                self.wait(self.interval);
            }
            if self.timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            let heard = self.heard.swap(false, Ordering::Relaxed);
            if heard {
                self.wait(self.interval);
            } else if self.pinged {
                return Poll::Ready(());
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
