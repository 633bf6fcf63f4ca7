//! A request's body on its way out, kept for as long as it may have to be sent again.

use std::{
    future::poll_fn,
    mem,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::Body as _;
use tonic::{Status, body::Body};

/// Bytes of a request body kept for sending it again; a body beyond this is sent once.
pub const REPLAY_MAX: usize = 64 * 1024;

/// A request body that remembers what was taken from it, up to [`REPLAY_MAX`] bytes, until it is
/// clear that it is sent no more.
#[derive(Debug)]
pub struct Outgoing {
    source: Body,
    source_ended: bool,
    /// Everything taken from `source`, as long as `replayable`.
    kept: Vec<Bytes>,
    kept_bytes: usize,
    /// How many of `kept` this attempt has taken.
    position: usize,
    replayable: bool,
    /// Where it is told that it is not any more, to whoever asked.
    kept_for: Option<Arc<AtomicBool>>,
    trailers: Option<HeaderMap>,
}

/// Whether a body that is on its way can begin again from its first byte.
#[derive(Debug, Clone)]
pub struct Replayable(Arc<AtomicBool>);

impl Replayable {
    /// Whether it can at this moment; once it cannot, it never can again.
    #[must_use]
    pub fn is_so(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The next piece of a body.
#[derive(Debug)]
pub(super) enum Piece {
    Data(Bytes),
    Trailers(HeaderMap),
    End,
}

impl Outgoing {
    /// Takes over a body of which nothing was taken yet.
    #[must_use]
    pub fn new(source: Body) -> Self {
        Self {
            source_ended: source.is_end_stream(),
            source,
            kept: Vec::new(),
            kept_bytes: 0,
            position: 0,
            replayable: true,
            kept_for: None,
            trailers: None,
        }
    }

    /// Begins again from the first byte; `false` if that is no longer possible.
    #[must_use]
    pub fn rewind(&mut self) -> bool {
        self.position = 0;
        self.replayable
    }

    /// Whether it can begin again from the first byte.
    #[must_use]
    pub fn is_replayable(&self) -> bool {
        self.replayable
    }

    /// The same for whoever asks while an attempt has the body.
    #[must_use]
    pub fn follow_replayable(&mut self) -> Replayable {
        let replayable = self.replayable;
        let kept_for = self
            .kept_for
            .get_or_insert_with(|| Arc::new(AtomicBool::new(replayable)));
        Replayable(Arc::clone(kept_for))
    }

    /// Reads the whole body before any of it is sent; `false` if it is too large to be kept: then
    /// it is sent all the same, once, and as often as nothing of it was taken. For bodies whose source does not wait for an answer.
    ///
    /// # Errors
    ///
    /// If its source fails.
    pub async fn fill(&mut self) -> Result<bool, Status> {
        while !self.source_ended {
            let frame = poll_fn(|cx| Pin::new(&mut self.source).poll_frame(cx)).await;
            let Some(frame) = frame.transpose()? else {
                self.source_ended = true;
                break;
            };
            match frame.into_data() {
                Ok(data) => {
                    self.source_ended = self.source.is_end_stream();
                    self.kept_bytes += data.len();
                    self.kept.push(data);
                }
                Err(frame) => {
                    self.source_ended = true;
                    self.trailers = Some(frame.into_trailers().unwrap_or_default());
                }
            }
            if self.kept_bytes > REPLAY_MAX {
                return Ok(false);
            }
        }
        Ok(self.replayable)
    }

    /// What was kept, from its first byte: beside this body, the same one, if [`Outgoing::fill`]
    /// said so.
    #[must_use]
    pub fn copy(&self) -> Self {
        Self {
            source: Body::empty(),
            source_ended: true,
            kept: self.kept.clone(),
            kept_bytes: self.kept_bytes,
            position: 0,
            replayable: self.replayable,
            kept_for: None,
            trailers: self.trailers.clone(),
        }
    }

    /// Whether nothing is left to send.
    pub(super) fn is_end(&self) -> bool {
        self.source_ended && self.position == self.kept.len() && self.trailers.is_none()
    }

    /// The answer has begun while there is more to send, so nothing will be sent again: forgets
    /// what was kept and hands over what is still to come.
    pub(super) fn commit(&mut self) -> Self {
        let mut rest = mem::replace(self, Self::new(Body::empty()));
        self.replayable = false;
        rest.forget();
        rest
    }

    /// Drops what this attempt has taken; what is left of a replay stays.
    fn forget(&mut self) {
        self.kept.drain(..self.position);
        self.position = 0;
        self.replayable = false;
        if let Some(kept_for) = &self.kept_for {
            kept_for.store(false, Ordering::Relaxed);
        }
    }

    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, Status>> {
        if let Some(data) = self.kept.get(self.position) {
            let data = data.clone();
            self.position += 1;
            if self.kept_bytes > REPLAY_MAX {
                // Read ahead, and more than is kept of what is on its way.
                self.forget();
            }
            return Poll::Ready(Ok(Piece::Data(data)));
        }
        if let Some(trailers) = self.trailers.clone() {
            return Poll::Ready(Ok(Piece::Trailers(trailers)));
        }
        if self.source_ended {
            return Poll::Ready(Ok(Piece::End));
        }
        let frame = match ready!(Pin::new(&mut self.source).poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            Some(Err(status)) => return Poll::Ready(Err(status)),
            None => {
                self.source_ended = true;
                return Poll::Ready(Ok(Piece::End));
            }
        };
        Poll::Ready(Ok(match frame.into_data() {
            Ok(data) => {
                self.source_ended = self.source.is_end_stream();
                self.keep(&data);
                Piece::Data(data)
            }
            Err(frame) => {
                self.source_ended = true;
                let trailers = frame.into_trailers().unwrap_or_default();
                self.trailers = Some(trailers.clone());
                Piece::Trailers(trailers)
            }
        }))
    }

    fn keep(&mut self, data: &Bytes) {
        if !self.replayable {
            return;
        }
        self.kept_bytes += data.len();
        if self.kept_bytes > REPLAY_MAX {
            // All of it is on its way: the source is read only once a replay is through.
            self.forget();
        } else {
            self.kept.push(data.clone());
            self.position = self.kept.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt as _, StreamBody};

    use super::*;

    /// A body of so many pieces of a kibibyte.
    fn body(pieces: usize) -> Outgoing {
        let piece = |number: usize| {
            let data = Bytes::from(vec![u8::try_from(number % 251).unwrap(); 1024]);
            Ok::<_, Status>(http_body::Frame::data(data))
        };
        let stream = tokio_stream::iter((0..pieces).map(piece));
        Outgoing::new(Body::new(StreamBody::new(stream).boxed_unsync()))
    }

    async fn next(outgoing: &mut Outgoing) -> Option<Bytes> {
        match poll_fn(|cx| outgoing.poll_next(cx)).await.unwrap() {
            Piece::Data(data) => Some(data),
            Piece::Trailers(_) | Piece::End => None,
        }
    }

    /// Goal: a body that was read ahead and is too large to be kept can be sent as long as none of it
    /// was, whole, and once after that.
    /// Method: 60 KiB and 100 KiB, read ahead; begun again before and after the first piece, and read
    /// to the end.
    #[tokio::test]
    async fn what_is_too_large_begins_again_until_it_is_begun() {
        for (pieces, kept) in [(60, true), (100, false)] {
            let mut outgoing = body(pieces);
            assert_eq!(kept, outgoing.fill().await.unwrap());
            let replayable = outgoing.follow_replayable();
            assert!(outgoing.rewind() && replayable.is_so());
            let first = next(&mut outgoing).await;
            assert_eq!(Some(&0), first.as_ref().and_then(|data| data.first()));
            assert_eq!(kept, outgoing.is_replayable());
            assert_eq!(kept, replayable.is_so());
            if outgoing.rewind() {
                assert_eq!(first, next(&mut outgoing).await);
            }
            for number in 1..pieces {
                let data = next(&mut outgoing).await.unwrap();
                assert_eq!(number % 251, usize::from(data[0]));
            }
            assert_eq!(None, next(&mut outgoing).await);
        }
    }
}
