//! Moves a request's body into its stream.

use std::{
    future::poll_fn,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{Reason, SendStream};
use tokio::sync::oneshot;
use tonic::Status;

use super::outgoing::{Outgoing, Piece};
use crate::shutdown::Tasks;

/// The sending half of one attempt.
///
/// One piece is held back until the next is known, so that the last one carries the end of the
/// stream and a unary request is a single DATA frame.
#[derive(Debug)]
pub(super) struct Pump {
    stream: SendStream<Bytes>,
    held: Option<Bytes>,
    next: Option<Piece>,
    /// The first piece goes without waiting for the window: h2 buffers it, and it is the message
    /// the caller holds anyway.
    first: bool,
}

impl Pump {
    pub(super) fn new(stream: SendStream<Bytes>) -> Self {
        Self {
            stream,
            held: None,
            next: None,
            first: true,
        }
    }

    /// Whether all there is has been sent, and whoever makes the request has more.
    pub(super) fn waits_for_more(&self) -> bool {
        self.held.is_none() && self.next.is_none()
    }

    /// Moves what can be moved. Ready when everything is sent or the stream is gone; why it is
    /// gone is the receiving half's to report.
    ///
    /// # Errors
    ///
    /// If the request's own body fails. The stream is still open.
    pub(super) fn poll(
        &mut self,
        outgoing: &mut Outgoing,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Status>> {
        loop {
            if self.next.is_none() {
                match outgoing.poll_next(cx) {
                    Poll::Ready(Ok(piece)) => self.next = Some(piece),
                    Poll::Ready(Err(status)) => return Poll::Ready(Err(status)),
                    Poll::Pending => {
                        if ready!(self.poll_send_held(false, cx)).is_gone()
                            || self.stream.poll_reset(cx).is_ready()
                        {
                            return Poll::Ready(Ok(()));
                        }
                        return Poll::Pending;
                    }
                }
            }
            let last = matches!(self.next, Some(Piece::End));
            if ready!(self.poll_send_held(last, cx)).is_gone() {
                return Poll::Ready(Ok(()));
            }
            match self.next.take() {
                Some(Piece::Data(data)) => self.held = Some(data),
                Some(Piece::Trailers(trailers)) => {
                    drop(self.stream.send_trailers(trailers));
                    return Poll::Ready(Ok(()));
                }
                Some(Piece::End) | None => return Poll::Ready(Ok(())),
            }
        }
    }

    /// Sends what is held back; `last` also ends the stream, with or without data.
    fn poll_send_held(&mut self, last: bool, cx: &mut Context<'_>) -> Poll<Stream> {
        let Some(held) = &self.held else {
            let sent = if last {
                self.stream.send_data(Bytes::new(), true)
            } else {
                Ok(())
            };
            return Poll::Ready(Stream::after(&sent));
        };
        if !self.first && !held.is_empty() {
            // One byte is claim enough: h2 asks for the rest once the piece is buffered, and a
            // larger claim would hold back other streams while this one waits.
            self.stream.reserve_capacity(1);
            while self.stream.capacity() == 0 {
                match ready!(self.stream.poll_capacity(cx)) {
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => return Poll::Ready(Stream::Gone),
                }
            }
        }
        self.first = false;
        let held = self.held.take().unwrap_or_default();
        Poll::Ready(Stream::after(&self.stream.send_data(held, last)))
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stream {
    Open,
    Gone,
}

impl Stream {
    fn after(sent: &Result<(), h2::Error>) -> Self {
        if sent.is_ok() { Self::Open } else { Self::Gone }
    }

    fn is_gone(self) -> bool {
        self == Self::Gone
    }
}

/// A pump that runs on its own because the answer began before the request ended.
///
/// Dropping this ends it and resets the stream, if it is not through.
#[derive(Debug)]
pub(super) struct Running {
    failure: Arc<Mutex<Option<Status>>>,
    _stop: oneshot::Sender<()>,
}

impl Running {
    pub(super) fn spawn(mut pump: Pump, mut outgoing: Outgoing, tasks: &Tasks) -> Self {
        let (stop, mut stopped) = oneshot::channel();
        let failure = Arc::new(Mutex::new(None));
        let failure_slot = Arc::clone(&failure);
        tasks.spawn("request body", async move {
            let moving = poll_fn(|cx| pump.poll(&mut outgoing, cx));
            let failed = tokio::select! {
                // Only ever dropped, by an answer that ended or that nobody reads any more.
                _ = &mut stopped => None,
                moved = moving => moved.err(),
            };
            if let Some(status) = failed {
                // Before the reset, which wakes the reader that looks for it.
                *failure_slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(status);
                pump.stream.send_reset(Reason::CANCEL);
            }
        });
        Self {
            failure,
            _stop: stop,
        }
    }

    /// The error of the request's own body, if that is what ended the stream.
    pub(super) fn failure(&self) -> Option<Status> {
        self.failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }
}
