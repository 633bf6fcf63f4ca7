//! Measures messages as they pass, either way.
//!
//! A gRPC message says its length in five bytes before it. A length beyond the bound ends the
//! stream there, with `RESOURCE_EXHAUSTED`, before anything was reserved for the message. What a
//! compressed message grows to is bounded where it is decompressed, by the generated code.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tonic::Status;

use crate::{status::Refusal, transport::framing::Framing};

pin_project! {
    /// A body that fails at the first message that is too large, once those before it have
    /// passed.
    #[derive(Debug, Default)]
    pub struct Measured<B> {
        #[pin]
        body: B,
        message_max: usize,
        framing: Framing,
        refused: Option<Status>,
    }
}

impl<B> Measured<B> {
    /// Measures `body` against `message_max`, in bytes per message.
    pub(super) fn new(body: B, message_max: usize) -> Self {
        Self {
            body,
            message_max,
            framing: Framing::default(),
            refused: None,
        }
    }
}

impl<B> Body for Measured<B>
where
    B: Body<Data = Bytes, Error = Status>,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.project();
        if let Some(status) = this.refused.take() {
            return Poll::Ready(Some(Err(status)));
        }
        let Some(mut frame) = ready!(this.body.poll_frame(cx)?) else {
            return Poll::Ready(None);
        };
        let Some(data) = frame.data_mut() else {
            return Poll::Ready(Some(Ok(frame)));
        };
        let Err(large) = this.framing.advance(data, *this.message_max) else {
            return Poll::Ready(Some(Ok(frame)));
        };
        let status = Refusal::MessageTooLarge.status(format!(
            "a message of {} bytes is larger than the {} bytes allowed",
            large.length, this.message_max
        ));
        if large.begins == 0 {
            return Poll::Ready(Some(Err(status)));
        }
        data.truncate(large.begins);
        *this.refused = Some(status);
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.refused.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
