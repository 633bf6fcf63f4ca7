//! Where the bytes of a call come from.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use pin_project_lite::pin_project;
use tonic::body::Body;

use crate::BoxError;

pin_project! {
    /// The request's stream as it arrives, or as a translation makes it.
    #[derive(Debug)]
    #[project = WireProjection]
    pub enum Wire {
        /// From the connection.
        Arriving { #[pin] body: Incoming },
        /// From a request of another protocol.
        Translated { #[pin] body: Body },
    }
}

impl From<Incoming> for Wire {
    fn from(body: Incoming) -> Self {
        Self::Arriving { body }
    }
}

impl From<Body> for Wire {
    fn from(body: Body) -> Self {
        Self::Translated { body }
    }
}

impl http_body::Body for Wire {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.project() {
            WireProjection::Arriving { body } => {
                body.poll_frame(cx).map_err(|error| Box::new(error).into())
            }
            WireProjection::Translated { body } => body
                .poll_frame(cx)
                .map_err(|status| Box::new(status).into()),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Arriving { body } => body.is_end_stream(),
            Self::Translated { body } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Arriving { body } => body.size_hint(),
            Self::Translated { body } => body.size_hint(),
        }
    }
}
