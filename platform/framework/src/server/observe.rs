//! Traces and measures calls of one method, from their heads to the ends of their streams.
//!
//! It stands outside everything that can refuse or fail, so that every call is seen once, with the
//! code its caller saw. A span and the metrics share the end of stream, so one layer does both.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tonic::Code;
use tower::Service;

use crate::{
    caller::Peer,
    status::code_in,
    telemetry::rpc::{ServerCall, ServerMethod},
};

/// Observes the calls of one method.
#[derive(Debug, Clone)]
pub(super) struct Observe<S> {
    inner: S,
    method: ServerMethod,
}

impl<S> Observe<S> {
    pub(super) fn new(inner: S, method: ServerMethod) -> Self {
        Self { inner, method }
    }
}

impl<S: Clone> Observe<S> {
    /// The same, observed as `method`.
    pub(super) fn known_as(&self, method: ServerMethod) -> Self {
        Self::new(self.inner.clone(), method)
    }
}

impl<S, Q, B> Service<Request<Q>> for Observe<S>
where
    S: Service<Request<Q>, Response = Response<B>, Error = Infallible>,
    B: Body,
{
    type Response = Response<Observed<B>>;
    type Error = Infallible;
    type Future = Observing<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Q>) -> Self::Future {
        let peer = request.extensions().get::<Peer>().copied();
        let call = self.method.start(request.headers(), peer);
        request.extensions_mut().insert(call.arrival().clone());
        let future = call.span().in_scope(|| self.inner.call(request));
        Observing {
            future,
            call: Some(call),
        }
    }
}

pin_project! {
    /// A call on its way to response headers.
    #[derive(Debug)]
    pub struct Observing<F> {
        #[pin]
        future: F,
        call: Option<ServerCall>,
    }
}

impl<F, B> Future for Observing<F>
where
    F: Future<Output = Result<Response<B>, Infallible>>,
    B: Body,
{
    type Output = Result<Response<Observed<B>>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let polled = within(this.call.as_ref(), || this.future.poll(cx));
        let Ok(response) = ready!(polled);
        // Without a body the code stands in the headers, and nobody asks the body for it.
        if response.body().is_end_stream() {
            let code = code_in(response.headers()).unwrap_or(Code::Unknown);
            end(this.call, code);
        }
        let call = this.call.take();
        Poll::Ready(Ok(response.map(|body| Observed { body, call })))
    }
}

pin_project! {
    /// The stream of an answer, observed to its end.
    #[derive(Debug)]
    pub struct Observed<B> {
        #[pin]
        body: B,
        call: Option<ServerCall>,
    }
}

impl<B> Body for Observed<B>
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
        let frame = ready!(within(this.call.as_ref(), || this.body.poll_frame(cx)));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(trailers) = frame.trailers_ref() {
                    end(this.call, code_in(trailers).unwrap_or(Code::Unknown));
                }
            }
            // The stream ends without saying how.
            Some(Err(_)) | None => end(this.call, Code::Unknown),
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

fn within<T>(call: Option<&ServerCall>, poll: impl FnOnce() -> T) -> T {
    match call {
        Some(call) => call.span().in_scope(poll),
        None => poll(),
    }
}

fn end(call: &mut Option<ServerCall>, code: Code) {
    if let Some(call) = call.take() {
        call.end(code);
    }
}
