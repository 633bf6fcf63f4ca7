//! Something that is held for as long as an answer lasts.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::Response;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use crate::status::code_in;

pin_project! {
    /// The stream of an answer, which lets go of `held` at its end: trailers, an error, nothing more, or
    /// a drop. Never at headers: a stream only begins there.
    #[derive(Debug)]
    pub struct Holding<B, H> {
        #[pin]
        body: B,
        held: Option<H>,
    }
}

impl<B, H> Holding<B, H> {
    /// Holds `held` until `body` ends.
    pub(super) fn new(body: B, held: Option<H>) -> Self {
        Self { body, held }
    }
}

impl<B: Default, H> Default for Holding<B, H> {
    fn default() -> Self {
        Self::new(B::default(), None)
    }
}

impl<B, H> Body for Holding<B, H>
where
    B: Body<Data = Bytes>,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.project();
        let frame = ready!(this.body.poll_frame(cx));
        let ended = match &frame {
            Some(Ok(frame)) => frame.is_trailers(),
            Some(Err(_)) | None => true,
        };
        if ended {
            *this.held = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Whether a handler answers with something: an error is all head.
pub(super) fn is_good<B>(response: &Response<B>) -> bool {
    code_in(response.headers()).is_none()
}
