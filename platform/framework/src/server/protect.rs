//! What a process refuses as it is full or overloaded, before a call costs more.
//!
//! It stands within the deadline, so that nobody is let in whose caller has stopped waiting, and before
//! the token: to judge a signature is work as well. Health, reflection and the platform's own services are
//! never refused; who asks them wants to know how the process is just then.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tonic::Status;
use tower::Service;

use super::{holding::Holding, verify::is_from_outside};
use crate::{
    call,
    caller::Criticality,
    config::Live,
    contract::Method,
    limit::{
        board::Board,
        concurrency::{Cap, Held, Limiter},
        shed::{self, Coming, Shedder},
    },
    policy::Policy,
};

/// What bounds the calls of a process.
#[derive(Debug, Clone, Default)]
pub struct Protection {
    cap: Cap,
    shedder: Shedder,
    board: Board,
}

impl Protection {
    /// At most as many calls as `cap` holds, without those that `shedder` refuses.
    #[must_use]
    pub fn new(cap: Cap, shedder: Shedder) -> Self {
        Self {
            cap,
            shedder,
            board: Board::default(),
        }
    }

    /// Has all that bounds calls be seen on `board`.
    #[must_use]
    pub fn shown_on(mut self, board: Board) -> Self {
        self.cap.show(&board);
        self.shedder.show(&board);
        self.board = board;
        self
    }

    /// What bounds the calls of a method; nothing where they are always taken.
    pub(super) fn limiter(
        &self,
        method: &'static Method,
        policy: &Live<Policy>,
    ) -> Option<Limiter> {
        let policy = || policy.map(|policy| &policy.concurrency);
        let limiter = || {
            let limiter = Limiter::new(method, policy(), self.shedder.throughput());
            limiter.show(&self.board);
            limiter
        };
        (!method.is_for_operation()).then(limiter)
    }
}

/// Lets calls of one method into the process.
#[derive(Debug, Clone)]
pub(super) struct Protect<S> {
    inner: S,
    /// Read only while something is refused.
    policy: Live<shed::Policy>,
    /// Nobody where they are always taken.
    protection: Option<Arc<Protection>>,
    /// Whether callers are strangers, who may say of any call that it was tried before.
    strangers: bool,
}

impl<S> Protect<S> {
    pub(super) fn new(
        inner: S,
        method: &'static Method,
        policy: &Live<Policy>,
        protection: &Arc<Protection>,
        strangers: bool,
    ) -> Self {
        Self {
            inner,
            policy: policy.map(|policy| &policy.shed),
            strangers,
            protection: (!method.is_for_operation()).then(|| Arc::clone(protection)),
        }
    }

    fn admit<Q>(&self, request: &Request<Q>) -> Result<Option<Held>, Status> {
        let Some(protection) = &self.protection else {
            return Ok(None);
        };
        let level = |policy: &shed::Policy| policy.level(criticality(request));
        protection.shedder.admit(|| Coming {
            level: self.policy.read(level),
            again: is_again(request, self.strangers),
        })?;
        protection.cap.admit().map(Some)
    }
}

/// Whether a call was tried before, by its context. Strangers may say so of any call, to us or to the
/// gateway it passed: that tells nothing of how others of ours do.
pub(super) fn is_again<B>(request: &Request<B>, from_stranger: bool) -> bool {
    let context = request.extensions().get::<Arc<call::Context>>();
    let tried = context.is_some_and(|context| context.previous_attempts > 0);
    tried && !from_stranger && !is_from_outside(request.headers())
}

/// How much a call matters, by its context.
pub(super) fn criticality<B>(request: &Request<B>) -> Criticality {
    let context = request.extensions().get::<Arc<call::Context>>();
    let said = context.and_then(|context| context.criticality);
    said.unwrap_or_default()
}

impl<S, Q, B> Service<Request<Q>> for Protect<S>
where
    S: Service<Request<Q>, Response = Response<B>, Error = Infallible>,
    B: Body + Default,
{
    type Response = Response<Holding<B, Held>>;
    type Error = Infallible;
    type Future = Protecting<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Q>) -> Self::Future {
        match self.admit(&request) {
            Ok(held) => Protecting {
                future: Some(self.inner.call(request)),
                held,
                refused: None,
            },
            Err(refused) => Protecting {
                future: None,
                held: None,
                refused: Some(refused),
            },
        }
    }
}

pin_project! {
    /// A call on its way to response headers, or refused and without a future.
    #[derive(Debug)]
    pub struct Protecting<F> {
        #[pin]
        future: Option<F>,
        held: Option<Held>,
        refused: Option<Status>,
    }
}

impl<F, B> Future for Protecting<F>
where
    F: Future<Output = Result<Response<B>, Infallible>>,
    B: Body + Default,
{
    type Output = Result<Response<Holding<B, Held>>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Some(status) = this.refused.take() {
            return Poll::Ready(Ok(status.into_http()));
        }
        let future = this.future.as_pin_mut();
        let future = future.expect("polled after it was ready");
        let Ok(response) = ready!(future.poll(cx));
        let held = this.held.take();
        Poll::Ready(Ok(response.map(|body| Holding::new(body, held))))
    }
}
