//! Turns whatever goes wrong below into a status: errors of a body, and panics.
//!
//! It stands outside all that can fail, so that those who measure outside of it see a status for
//! every call, and the process lives on.

use std::{
    convert::Infallible,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tonic::Status;
use tower::Service;

use crate::{
    contract::Method,
    status::{self, Refusal},
};

/// Answers for calls of one method that panic.
#[derive(Debug, Clone)]
pub(super) struct Rescue<S> {
    inner: S,
    method: &'static Method,
}

impl<S> Rescue<S> {
    pub(super) fn new(inner: S, method: &'static Method) -> Self {
        Self { inner, method }
    }
}

impl<S, Q, B> Service<Request<Q>> for Rescue<S>
where
    S: Service<Request<Q>, Response = Response<B>, Error = Infallible>,
{
    type Response = Response<Rescued<B>>;
    type Error = Infallible;
    type Future = Rescuing<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Q>) -> Self::Future {
        Rescuing {
            future: Some(self.inner.call(request)),
            method: self.method,
        }
    }
}

pin_project! {
    /// A call on its way to response headers; the future is gone once it panicked.
    #[derive(Debug)]
    pub struct Rescuing<F> {
        #[pin]
        future: Option<F>,
        method: &'static Method,
    }
}

impl<F, B> Future for Rescuing<F>
where
    F: Future<Output = Result<Response<B>, Infallible>>,
{
    type Output = Result<Response<Rescued<B>>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let method = *this.method;
        let future = this.future.as_mut().as_pin_mut();
        let future = future.expect("polled after it was ready");
        // What a panic leaves half done is dropped with the future and seen by nobody.
        let Ok(polled) = catch_unwind(AssertUnwindSafe(|| future.poll(cx))) else {
            this.future.set(None);
            return Poll::Ready(Ok(panicked(method).into_http()));
        };
        let Ok(response) = ready!(polled);
        Poll::Ready(Ok(response.map(|body| Rescued {
            body: Some(body),
            method: Some(method),
        })))
    }
}

pin_project! {
    /// A body that ends with a status where `B` fails or panics; it never fails itself.
    #[derive(Debug)]
    pub struct Rescued<B> {
        #[pin]
        body: Option<B>,
        method: Option<&'static Method>,
    }
}

impl<B> Default for Rescued<B> {
    fn default() -> Self {
        Self {
            body: None,
            method: None,
        }
    }
}

impl<B> Body for Rescued<B>
where
    B: Body<Data = Bytes, Error = Status>,
{
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let mut this = self.project();
        let (Some(body), Some(method)) = (this.body.as_mut().as_pin_mut(), *this.method) else {
            return Poll::Ready(None);
        };
        let failed = match catch_unwind(AssertUnwindSafe(|| body.poll_frame(cx))) {
            Ok(polled) => match ready!(polled) {
                None => return Poll::Ready(None),
                Some(Ok(frame)) => return Poll::Ready(Some(Ok(frame))),
                Some(Err(status)) => status,
            },
            Err(_) => panicked(method),
        };
        this.body.set(None);
        let trailers = status::trailers(&failed);
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        // An exact size would become a content-length, which trailers of our own could belie.
        SizeHint::new()
    }
}

/// The caller learns an id, the log what it belongs to; what the panic says is for neither, as it
/// may quote the request.
fn panicked(method: &Method) -> Status {
    let id = format!("{:016x}", fastrand::u64(..));
    let name = method.full_name();
    tracing::error!(rpc.method = name, error.id = id, "handler panicked");
    Refusal::Panic.status(format!("internal error {id}"))
}
