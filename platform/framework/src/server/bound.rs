//! Bounds how many calls of a method are in its handler.
//!
//! It stands next to the handler, after all that may refuse a call for less. A call whose caller has
//! stopped waiting leaves the line without having begun: what is done for nobody is what an
//! overloaded process can spare most.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::{HeaderMap, Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tonic::Status;
use tower::Service;

use super::{
    deadline::expired,
    holding::{Holding, is_good},
    protect::criticality,
};
use crate::{
    call,
    classify::{self, End, Verdict},
    deadline::Deadline,
    limit::concurrency::{Admission, Limiter, Place, Waiting},
};

/// Lets calls of one method into their handler.
#[derive(Debug, Clone)]
pub(super) struct Bound<S> {
    inner: S,
    /// Nobody where they are always taken.
    limiter: Option<Limiter>,
}

impl<S> Bound<S> {
    /// Calls come to `inner` as `limiter` lets them in, where there is one.
    pub(super) fn new(inner: S, limiter: Option<Limiter>) -> Self {
        Self { inner, limiter }
    }
}

impl<S, Q, B> Service<Request<Q>> for Bound<S>
where
    S: Service<Request<Q>, Response = Response<B>, Error = Infallible> + Clone,
    B: Body + Default,
{
    type Response = Response<Holding<B, Place>>;
    type Error = Infallible;
    type Future = Bounding<S, Q, S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Q>) -> Self::Future {
        let admission = match &self.limiter {
            None => None,
            Some(limiter) => match limiter.admit(|| criticality(&request)) {
                Ok(admission) => Some(admission),
                Err(refused) => return Bounding::refused(refused),
            },
        };
        match admission {
            Some(Admission::Waits(waiting)) => Bounding {
                waiting: Some(Box::new(InLine {
                    waiting,
                    request,
                    inner: self.inner.clone(),
                })),
                ..Bounding::default()
            },
            Some(Admission::Admitted(place)) => Bounding {
                future: Some(self.inner.call(request)),
                place: Some(place),
                ..Bounding::default()
            },
            None => Bounding {
                future: Some(self.inner.call(request)),
                ..Bounding::default()
            },
        }
    }
}

/// A call that waits. Boxed, as most do not.
#[derive(Debug)]
struct InLine<S, Q> {
    waiting: Waiting,
    request: Request<Q>,
    inner: S,
}

impl<S, Q> InLine<S, Q> {
    /// Whether its caller has stopped waiting.
    fn is_too_late(&self) -> bool {
        let context = self.request.extensions().get::<Arc<call::Context>>();
        let deadline = context.and_then(|context| context.deadline);
        deadline.is_some_and(Deadline::has_passed)
    }
}

pin_project! {
    /// A call on its way to its place and to response headers, or refused.
    #[derive(Debug)]
    pub struct Bounding<S, Q, F> {
        waiting: Option<Box<InLine<S, Q>>>,
        #[pin]
        future: Option<F>,
        place: Option<Place>,
        refused: Option<Status>,
    }
}

impl<S, Q, F> Default for Bounding<S, Q, F> {
    fn default() -> Self {
        Self {
            waiting: None,
            future: None,
            place: None,
            refused: None,
        }
    }
}

impl<S, Q, F> Bounding<S, Q, F> {
    fn refused(status: Status) -> Self {
        Self {
            refused: Some(status),
            ..Self::default()
        }
    }
}

impl<S, Q, B> Future for Bounding<S, Q, S::Future>
where
    S: Service<Request<Q>, Response = Response<B>, Error = Infallible>,
    B: Body + Default,
{
    type Output = Result<Response<Holding<B, Place>>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if let Some(status) = this.refused.take() {
            return Poll::Ready(Ok(status.into_http()));
        }
        if let Some(line) = this.waiting {
            let waited = ready!(Pin::new(&mut line.waiting).poll(cx));
            let line = this.waiting.take().expect("it was there");
            match waited {
                // The place is free again as it is dropped here.
                Ok(_) if line.is_too_late() => return Poll::Ready(Ok(expired().into_http())),
                Ok(place) => {
                    let InLine {
                        request, mut inner, ..
                    } = *line;
                    this.future.set(Some(inner.call(request)));
                    *this.place = Some(place);
                }
                Err(refused) => return Poll::Ready(Ok(refused.into_http())),
            }
        }
        let future = this.future.as_pin_mut();
        let future = future.expect("polled after it was ready");
        let Ok(response) = ready!(future.poll(cx));
        let mut place = this.place.take();
        if let Some(place) = &mut place {
            place.answered(is_good(&response) || has_worked(response.headers()));
        }
        Poll::Ready(Ok(response.map(|body| Holding::new(body, place))))
    }
}

/// Whether an error is what its handler is there to tell, as that there is no such thing.
fn has_worked(headers: &HeaderMap) -> bool {
    classify::judge(End::answered(headers), true) == Verdict::Success
}
