//! Bodies of which the beginning is held: all of those that are small.

use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as _, Frame};
use http_body_util::BodyExt as _;
use tonic::{Status, body::Body};

/// A body as far as it was read, and what is left of it.
#[derive(Debug)]
pub(super) struct Taken {
    frames: VecDeque<Frame<Bytes>>,
    bytes: usize,
    rest: Option<Body>,
}

impl Taken {
    /// `body`, read until it is whole or has more than `bytes_max`.
    ///
    /// # Errors
    ///
    /// If it breaks off. Dropping it lets go of what was read.
    pub(super) async fn of(mut body: Body, bytes_max: usize) -> Result<Self, Status> {
        let mut taken = Self::whole([]);
        // Frames of no bytes are no way around the bound.
        while taken.bytes <= bytes_max && taken.frames.len() <= bytes_max {
            if body.is_end_stream() {
                return Ok(taken);
            }
            let Some(frame) = body.frame().await.transpose()? else {
                return Ok(taken);
            };
            taken.bytes += frame.data_ref().map_or(0, Bytes::len);
            taken.frames.push_back(frame);
        }
        taken.rest = Some(body);
        Ok(taken)
    }

    /// A body of these `frames`.
    pub(super) fn whole(frames: impl IntoIterator<Item = Frame<Bytes>>) -> Self {
        let frames: VecDeque<_> = frames.into_iter().collect();
        let data = frames.iter().filter_map(Frame::data_ref);
        Self {
            bytes: data.map(Bytes::len).sum(),
            frames,
            rest: None,
        }
    }

    /// Whether all of it is held.
    pub(super) fn is_whole(&self) -> bool {
        self.rest.is_none()
    }

    /// Bytes of data that are held.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The data that is held, piece by piece.
    pub(super) fn data(&self) -> impl Iterator<Item = &Bytes> {
        self.frames.iter().filter_map(Frame::data_ref)
    }

    /// What came after the data, if that is held.
    pub(super) fn trailers(&self) -> Option<&HeaderMap> {
        self.frames.iter().find_map(Frame::trailers_ref)
    }
}

impl http_body::Body for Taken {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Some(frame) = self.frames.pop_front() {
            return Poll::Ready(Some(Ok(frame)));
        }
        match &mut self.rest {
            Some(rest) => Pin::new(rest).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.frames.is_empty() && self.rest.as_ref().is_none_or(Body::is_end_stream)
    }
}
