//! Lets nothing but gRPC through: POST, with a gRPC content type.
//!
//! A browser sends a POST of some types to anyone without asking first; a handler behind a
//! connection that is trusted must not act on one.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use pin_project_lite::pin_project;
use tower::Service;

use crate::status::Refusal;

/// Refuses requests that are not gRPC.
#[derive(Debug, Clone)]
pub(super) struct Protocol<S> {
    inner: S,
}

impl<S> Protocol<S> {
    pub(super) fn new(inner: S) -> Self {
        Self { inner }
    }
}

impl<S, Q, B> Service<Request<Q>> for Protocol<S>
where
    S: Service<Request<Q>, Response = Response<B>>,
    B: Default,
{
    type Response = Response<B>;
    type Error = S::Error;
    type Future = Checked<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Q>) -> Self::Future {
        let refused = if request.method() != Method::POST {
            Some(StatusCode::METHOD_NOT_ALLOWED)
        } else if is_grpc(request.headers()) {
            None
        } else {
            Some(StatusCode::UNSUPPORTED_MEDIA_TYPE)
        };
        match refused {
            None => Checked::Passed {
                future: self.inner.call(request),
            },
            Some(status) => Checked::Refused { status },
        }
    }
}

/// `application/grpc`, alone, with the one message format there is, or with parameters.
pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    let rest = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.as_bytes().strip_prefix(b"application/grpc"));
    matches!(rest, Some([] | b"+proto" | [b';', ..]))
        || rest.is_some_and(|it| it.starts_with(b"+proto;"))
}

pin_project! {
    /// A call on its way to response headers; one refused has no future.
    #[project = CheckedProjection]
    #[derive(Debug)]
    pub enum Checked<F> {
        Passed { #[pin] future: F },
        Refused { status: StatusCode },
    }
}

impl<F, B, E> Future for Checked<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Default,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        match self.project() {
            CheckedProjection::Passed { future } => future.poll(cx),
            CheckedProjection::Refused { status } => {
                // The status is for those who measure, and for clients that look for it.
                let refused = Refusal::NotGrpc.status(status.as_str());
                let mut response = refused.into_http();
                *response.status_mut() = *status;
                if *status == StatusCode::METHOD_NOT_ALLOWED {
                    let allow = http::HeaderValue::from_static("POST");
                    response.headers_mut().insert(header::ALLOW, allow);
                }
                Poll::Ready(Ok(response))
            }
        }
    }
}
