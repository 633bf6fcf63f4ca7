//! The call being served: what its handler and everything it starts inherit.
//!
//! The server's stack makes one [`Context`] per call and scopes it around every poll of the
//! handler and of its response stream. Clients read it to pass on what remains of the deadline
//! and the trace; log lines read it for trace ids. It does not follow `tokio::spawn`: start work
//! of a call through [`spawn`], which inherits the context and ends with the call.

use std::{
    cell::RefCell,
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    task::{self, Poll},
    time::Duration,
};

use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::{task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    caller::{Criticality, Peer},
    contract::Method,
    deadline::{Deadline, GRPC_TIMEOUT, MalformedTimeout, parse_timeout},
};

pub mod trace;

pub use trace::TraceContext;

/// What is known of the call being served.
#[derive(Debug)]
pub struct Context {
    /// The method called; its facts are known from the contract.
    pub method: &'static Method,
    /// Who is connected.
    pub peer: Option<Peer>,
    /// When the caller stops waiting.
    pub deadline: Option<Deadline>,
    /// The trace this call belongs to; the span is the server's own.
    pub trace: TraceContext,
    /// How often the caller had tried before (`grpc-previous-rpc-attempts`).
    pub previous_attempts: u32,
    /// How much it matters that this call is served, and whatever is called for it, if anybody has
    /// said so: its caller, or the policy of its method.
    pub criticality: Option<Criticality>,
    /// Whether and when the call ends, in any way.
    pub ended: Ended,
}

/// What the outermost layer reads of a call's head, once, for those further in; it travels in the
/// request's extensions as far as the layer that makes the [`Context`].
#[derive(Debug, Clone)]
pub struct Arrival {
    /// The trace the call belongs to; the span is the server's own.
    pub trace: TraceContext,
    /// How long the caller waits, as it says.
    pub asked: Result<Option<Duration>, MalformedTimeout>,
    /// When the head was there.
    pub at: Instant,
}

impl Arrival {
    /// A call that arrives now with `headers`.
    #[must_use]
    pub fn now(headers: &HeaderMap, trace: TraceContext) -> Self {
        Self {
            trace,
            asked: headers.get(&GRPC_TIMEOUT).map(parse_timeout).transpose(),
            at: Instant::now(),
        }
    }

    /// When the caller stops waiting, where it says so readably.
    #[must_use]
    pub fn deadline(&self) -> Option<Deadline> {
        let asked = self.asked.as_ref().ok().copied().flatten();
        asked.and_then(|timeout| Deadline::since(self.at, timeout))
    }
}

/// Whether and when a call has ended. Its token is made when first asked for: most calls end
/// before anyone asks.
#[derive(Debug, Default)]
pub struct Ended {
    over: AtomicBool,
    token: OnceLock<CancellationToken>,
}

impl Ended {
    /// Cancelled when the call ends.
    #[must_use]
    pub fn token(&self) -> CancellationToken {
        let token = self.token.get_or_init(CancellationToken::new);
        // The call may have ended between a look at the flag and the making of the token; with
        // both sides sequentially consistent, one of them sees the other.
        if self.over.load(Ordering::SeqCst) {
            token.cancel();
        }
        token.clone()
    }

    /// Whether the call has ended.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    /// Ends the call: what was spawned for it stops.
    pub fn set(&self) {
        self.over.store(true, Ordering::SeqCst);
        if let Some(token) = self.token.get() {
            token.cancel();
        }
    }
}

thread_local! {
    static CURRENT: RefCell<Option<Arc<Context>>> = const { RefCell::new(None) };
}

/// The context of the call being served, where there is one.
#[must_use]
pub fn current() -> Option<Arc<Context>> {
    CURRENT.with_borrow(Clone::clone)
}

/// Reads the current context without cloning it.
pub fn with_current<R>(read: impl FnOnce(Option<&Context>) -> R) -> R {
    CURRENT.with_borrow(|context| read(context.as_deref()))
}

/// Makes a request say how much it matters: no more than the call being served that it is sent for,
/// where there is one of which that was said, nor than `policy`, that of the method it calls. Where
/// neither says anything nothing is added: whoever is further on may.
pub fn pass_on_criticality(headers: &mut HeaderMap, policy: Option<Criticality>) {
    let inherited = with_current(|call| call.and_then(|call| call.criticality));
    if let Some(most) = Criticality::least(inherited, policy) {
        most.pass_on(headers);
    }
}

/// Whether a call is being served here; may be asked anywhere, even while a thread ends.
pub(crate) fn is_current() -> bool {
    let found = CURRENT.try_with(|current| {
        // One that is being changed is there.
        current
            .try_borrow()
            .map_or(true, |context| context.is_some())
    });
    found.unwrap_or(false)
}

/// Makes `context` current until the guard is dropped; for the inside of one poll.
#[must_use]
pub fn enter(context: Arc<Context>) -> Entered {
    Entered {
        outer: CURRENT.replace(Some(context)),
        _not_send: std::marker::PhantomData,
    }
}

/// Restores the outer context when dropped.
#[derive(Debug)]
pub struct Entered {
    outer: Option<Arc<Context>>,
    _not_send: std::marker::PhantomData<*const ()>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        CURRENT.set(self.outer.take());
    }
}

pin_project! {
    /// A future or body that is polled with a context current.
    #[derive(Debug)]
    pub struct Scoped<T> {
        #[pin]
        inner: T,
        context: Arc<Context>,
    }
}

impl<T> Scoped<T> {
    /// Polls `inner` with `context` current, always.
    pub fn new(context: Arc<Context>, inner: T) -> Self {
        Self { inner, context }
    }
}

impl<F: Future> Future for Scoped<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let _entered = enter(Arc::clone(this.context));
        this.inner.poll(cx)
    }
}

impl<B: Body> Body for Scoped<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut task::Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = self.project();
        let _entered = enter(Arc::clone(this.context));
        this.inner.poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// Starts work that belongs to the call being served: it inherits the context and is dropped when
/// the call ends, by its answer, its deadline, or its caller's cancel.
///
/// Outside a call it is an ordinary task without a deadline. A panic in it is the join handle's
/// to report. The result is `None` where the call ended first.
pub fn spawn<F>(future: F) -> JoinHandle<Option<F::Output>>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let context = current();
    // The one place beside `shutdown` that spawns: the call is the owner, and its end is the join.
    #[allow(clippy::disallowed_methods)]
    tokio::spawn(async move {
        match context {
            Some(context) => {
                let ended = context.ended.token();
                let scoped = Scoped::new(context, future);
                ended.run_until_cancelled(scoped).await
            }
            None => Some(future.await),
        }
    })
}
