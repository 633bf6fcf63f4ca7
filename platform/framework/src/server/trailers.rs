//! Trailing metadata of a successful answer.
//!
//! gRPC lets a server end any call with metadata; tonic's `Response` has a place for headers only.
//! A handler puts [`Trailers`] into the extensions of its response, whatever the kind of call.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::{HeaderMap, Response};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

/// Metadata to send after the last message: a response extension.
///
/// Added to the trailers of the call, however it ends. Where the handler answers with an error
/// instead of a response, the error's own metadata takes this place.
#[derive(Debug, Clone, Default)]
pub struct Trailers(pub HeaderMap);

pin_project! {
    /// A body whose trailers are added to.
    #[derive(Debug, Default)]
    pub struct Trailing<B> {
        #[pin]
        body: B,
        trailers: Option<HeaderMap>,
    }
}

impl<B> Trailing<B> {
    /// Takes the handler's trailers out of its response, to be sent at the end of the body.
    pub(super) fn of(mut response: Response<B>) -> Response<Self> {
        let trailers = response.extensions_mut().remove::<Trailers>();
        let trailers = trailers.map(|Trailers(map)| map);
        response.map(|body| Self { body, trailers })
    }
}

impl<B: Body> Body for Trailing<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = self.project();
        let mut frame = ready!(this.body.poll_frame(cx));
        if this.trailers.is_some()
            && let Some(Ok(frame)) = &mut frame
            && let Some(sent) = frame.trailers_mut()
            && let Some(added) = this.trailers.take()
        {
            // Appended, not replaced: the status is the platform's to write.
            let mut name = None;
            for (next, value) in added {
                name = next.or(name);
                if let Some(name) = name
                    .clone()
                    .filter(|name| !name.as_str().starts_with("grpc-"))
                {
                    sent.append(name, value);
                }
            }
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

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use bytes::Bytes;
    use http::HeaderValue;
    use http_body_util::{BodyExt as _, StreamBody};

    use super::*;

    /// Goal: the handler's trailers join those of the call, and cannot speak in the status's place.
    /// Method: two values of one name and a forged status, behind a body that ends well.
    #[tokio::test]
    async fn the_handlers_trailers_join_those_of_the_call() {
        let mut added = HeaderMap::new();
        added.append("cost", HeaderValue::from_static("1"));
        added.append("cost", HeaderValue::from_static("2"));
        added.append("grpc-status", HeaderValue::from_static("7"));
        let mut ends = HeaderMap::new();
        ends.insert("grpc-status", HeaderValue::from_static("0"));
        let frames = [
            Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"one"))),
            Ok(Frame::trailers(ends)),
        ];
        let mut response = Response::new(StreamBody::new(tokio_stream::iter(frames)));
        response.extensions_mut().insert(Trailers(added));

        let body = Trailing::of(response).into_body();
        let collected = body.collect().await.expect("infallible");

        let trailers = collected.trailers().expect("trailers").clone();
        let costs: Vec<_> = trailers.get_all("cost").iter().collect();
        assert_eq!(vec!["1", "2"], costs);
        let statuses: Vec<_> = trailers.get_all("grpc-status").iter().collect();
        assert_eq!(vec!["0"], statuses);
    }
}
