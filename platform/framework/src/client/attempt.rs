//! One attempt of a call: from the pick to the beginning of its answer.

use std::{
    future::poll_fn,
    net::SocketAddr,
    pin::{Pin, pin},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, header};
use http_body::{Body as _, Frame};
use tokio::time::Instant;
use tonic::{Code, Status};

use super::{
    Call, PickedEndpoint, body,
    repeats::Repeats,
    timer::{Passed, Patience, Timer},
};
use crate::{
    balance::{NoEndpoint, Picked},
    classify::{self, End, Fate, Verdict},
    deadline::{self, Deadline, GRPC_TIMEOUT},
    limit::throttle::Throttle,
    retry::{self, Failure, PREVIOUS_ATTEMPTS, Way},
    status::{self, Refusal},
    telemetry::{
        platform::RefusedCall,
        rpc::{Attempt, Try},
    },
    transport::subchannel::{Exchange, Failed, Incoming, Outgoing, Slot, exchange},
};

/// When a call that found no endpoint is worth another try: connections are tried again about as
/// often, and a line has moved by then.
const NO_ENDPOINT_PAUSE: Duration = Duration::from_secs(1);

/// What we call ourselves where the caller says nothing.
const USER_AGENT: HeaderValue =
    HeaderValue::from_static(concat!("gantry/", env!("CARGO_PKG_VERSION")));

/// An attempt on the wire, until its end or dropped.
#[derive(Debug)]
pub(super) struct Sent {
    picked: Picked,
    attempt: Attempt,
    fair: bool,
}

/// An attempt that is not sent yet: dropped before, it was no request to its target.
struct Unsent<'a> {
    throttle: Option<&'a Throttle>,
    at: Instant,
}

impl Drop for Unsent<'_> {
    fn drop(&mut self) {
        if let Some(throttle) = self.throttle {
            throttle.unsent(self.at);
        }
    }
}

impl Sent {
    /// Tells everybody who judges by it how the attempt ended. It counts as one until it is dropped.
    pub(super) fn end(&mut self, throttle: &Throttle, end: End<'_>, code: Code) {
        let verdict = classify::judge(end, self.fair);
        self.picked.judged(verdict);
        if matches!(verdict, Verdict::Hard | Verdict::Soft(_)) {
            throttle.judged(verdict, self.picked.since(), Instant::now());
        }
        self.attempt.end(code);
    }

    /// Its first message begins; `streams` where further ones may follow. How long they do is their
    /// caller's affair: its deadline says nothing of who sends them.
    pub(super) fn answered(&mut self, streams: bool) {
        self.picked.answered();
        self.fair &= !streams;
    }

    pub(super) fn addr(&self) -> SocketAddr {
        self.picked.addr()
    }
}

/// What was read of an answer beyond its headers, to see whether it is one; none if nothing was.
pub(super) type Peeked = Option<Option<Result<Frame<Bytes>, Failed>>>;

/// An attempt, and the beginning of its answer. In a box of its own: it goes through many hands.
#[derive(Debug)]
pub(super) struct Begun {
    // In this order, so that the stream is reset before the attempt counts as over. Ended, and without
    // headers, until it comes.
    pub(super) response: Response<Incoming>,
    pub(super) peeked: Peeked,
    pub(super) sent: Sent,
    /// Why it is no answer that anybody can read.
    pub(super) refused: Option<Status>,
}

/// The headers that end a call.
enum Last<'a> {
    /// There are none, or there are messages before.
    No,
    With(&'a HeaderMap),
    /// The stream ended without.
    Missing,
}

impl Begun {
    fn last(&self) -> Last<'_> {
        match &self.peeked {
            Some(Some(Ok(frame))) => frame.trailers_ref().map_or(Last::No, Last::With),
            Some(_) => Last::No,
            None if !self.response.body().is_over() => Last::No,
            None if self.response.headers().contains_key(&status::GRPC_STATUS) => {
                Last::With(self.response.headers())
            }
            None => Last::Missing,
        }
    }

    /// How the attempt failed, if it did before any message of its answer.
    pub(super) fn failure(&self) -> Option<Failure> {
        let failure = |code| Failure {
            code,
            pushback: None,
            timed_out: false,
        };
        if let Some(status) = &self.refused {
            return Some(failure(status.code()));
        }
        match self.last() {
            Last::No => None,
            Last::Missing => Some(failure(body::no_end().code())),
            Last::With(trailers) => match status::code_in(trailers) {
                Some(Code::Ok) => None,
                code => Some(Failure {
                    pushback: retry::pushback::read(trailers),
                    ..failure(code.unwrap_or(Code::Unknown))
                }),
            },
        }
    }

    /// What an attempt that failed says.
    pub(super) fn status(&self) -> Status {
        if let Some(status) = &self.refused {
            return status.clone();
        }
        match self.last() {
            Last::With(trailers) => Status::from_header_map(trailers).unwrap_or_else(body::no_end),
            Last::No | Last::Missing => body::no_end(),
        }
    }

    /// Ends an attempt that failed in favour of another one.
    pub(super) fn give_up(mut self: Box<Self>, throttle: &Throttle) {
        let code = self.failure().map_or(Code::Cancelled, |it| it.code);
        let trailers = match self.last() {
            Last::With(trailers) if self.refused.is_none() => Some(trailers.clone()),
            _ => None,
        };
        let end = trailers.as_ref().map_or(End::Malformed, End::answered);
        self.sent.end(throttle, end, code);
    }
}

/// An attempt that got no answer, and is over.
pub(super) struct Broken {
    /// What the caller sees if nothing else is tried.
    pub(super) status: Status,
    /// How far the request got; none where another try is of no use.
    fate: Option<Fate>,
    /// Whether the time of the attempt ended it.
    timed_out: bool,
    pub(super) addr: Option<SocketAddr>,
}

impl Broken {
    pub(super) fn last(status: Status) -> Self {
        Self {
            status,
            fate: None,
            timed_out: false,
            addr: None,
        }
    }

    /// Whether no handler can have seen any of it.
    fn reached_nobody(&self) -> bool {
        use Fate::{LeftBehind, NotSent, Refused};
        matches!(self.fate, Some(NotSent | Refused | LeftBehind))
    }

    pub(super) fn failure(&self) -> Option<Failure> {
        let failure = |code| Failure {
            code,
            pushback: None,
            timed_out: self.timed_out,
        };
        if self.timed_out {
            return Some(failure(Code::DeadlineExceeded));
        }
        self.fate.map(|_| failure(self.status.code()))
    }
}

/// What became of one attempt.
pub(super) type Outcome = Result<Box<Begun>, Broken>;

/// Which attempt is to be made.
pub(super) struct Asked<'a> {
    pub(super) which: Try,
    /// When: the first one begins with its call.
    pub(super) at: Instant,
    /// Attempts before, transparent ones apart.
    pub(super) previous: u8,
    /// Where those went.
    pub(super) tried: &'a [SocketAddr],
    pub(super) deadline: Option<Deadline>,
}

impl Call {
    /// One attempt, sent again for as long as it provably reached no handler. `picked` is told
    /// where it goes.
    pub(super) async fn attempt(
        &self,
        head: &mut http::request::Parts,
        outgoing: &mut Outgoing,
        timer: &mut Timer,
        mut asked: Asked<'_>,
        repeats: &mut Repeats,
        picked: impl Fn(SocketAddr),
    ) -> Outcome {
        let mut now = asked.at;
        loop {
            let (endpoint, slot) = self.place(timer, &asked, now).await?;
            picked(endpoint.addr());
            let outcome = self
                .send(endpoint, slot, head, outgoing, timer, &asked)
                .await;
            match outcome {
                Err(broken) if repeats.allow(broken.fate) && outgoing.rewind() => {
                    asked.which = Try::Transparent;
                    // Where it was before is not held against where it goes.
                    now = Instant::now();
                }
                Err(broken) if broken.reached_nobody() => {
                    drop(self.unsent(&asked));
                    return Err(broken);
                }
                outcome => return outcome,
            }
        }
    }

    async fn place(
        &self,
        timer: &mut Timer,
        asked: &Asked<'_>,
        now: Instant,
    ) -> Result<(Picked, Slot), Broken> {
        let target = &*self.target;
        // What reached nobody is no request more.
        let throttled = self.is_throttled() && asked.which != Try::Transparent;
        if throttled && let Err(refused) = self.throttle.admit(asked.at) {
            target.allowance.refusals().call(RefusedCall::Throttle);
            return Err(Broken::last(refused.status(&target.name)));
        }
        let mut unsent = self.unsent(asked);
        let place = pin!(target.balancer.place_elsewhere(asked.tried, now));
        match timer.bound(place).await {
            Ok(Ok(place)) => {
                unsent.throttle = None;
                Ok(place)
            }
            Ok(Err(error)) => Err(Broken::last(no_endpoint(&error))),
            Err(_) => Err(Broken::last(self.too_late("waiting for an endpoint"))),
        }
    }

    fn is_throttled(&self) -> bool {
        self.is_guarded() && self.guards.throttled
    }

    fn unsent(&self, asked: &Asked<'_>) -> Unsent<'_> {
        Unsent {
            throttle: self.is_throttled().then_some(&self.throttle),
            at: asked.at,
        }
    }

    /// Sends the request to the endpoint that was picked. Not an `async fn`: what it is given would be
    /// kept to the end, beside what it makes of it.
    fn send<'a>(
        &'a self,
        mut picked: Picked,
        slot: Slot,
        head: &'a mut http::request::Parts,
        outgoing: &'a mut Outgoing,
        timer: &'a mut Timer,
        asked: &Asked<'_>,
    ) -> impl Future<Output = Outcome> + use<'a> {
        let addr = picked.addr();
        if !self.is_guarded() {
            picked.of_others();
        }
        picked.follow(self.breaker);
        let deadline = asked.deadline.map(Deadline::instant);
        picked.given_up_at(deadline, self.target.timeout_default);
        let attempt = self
            .measured
            .attempt(asked.which, asked.previous, picked.since());
        attempt.picked(addr);
        if let Some(asked) = head.extensions.get::<PickedEndpoint>() {
            asked.set(addr);
        }
        // Whoever serves this one is told that it belongs to tries, so that it makes none of its own.
        let previous = asked.previous.max(u8::from(self.in_retry));
        let request = on_the_wire(head, asked.deadline, previous, &attempt);
        let time = self.attempt_timeout();
        let mut begun = Box::new(Begun {
            response: Response::default(),
            peeked: None,
            sent: Sent {
                fair: is_fair(&picked, asked, time),
                picked,
                attempt,
            },
            refused: None,
        });
        let patience = time.map(|time| Patience::new(time, outgoing));
        let mut sent = exchange(slot, request, outgoing);
        async move {
            let outcome = match &mut sent {
                Ok(exchange) => {
                    let outcome = {
                        let beginning = pin!(self.begin(exchange, &mut begun));
                        timer.bound_within(patience, beginning).await
                    };
                    // Nobody is slow who waits for the rest of what is asked.
                    begun.sent.fair &= !exchange.waits_for_more();
                    outcome
                }
                Err(failed) => Ok(Err(failed.clone())),
            };
            match outcome {
                Ok(Ok(())) => {
                    begun.refused = body::refuse(&begun.response, &head.headers);
                    Ok(begun)
                }
                Ok(Err(failed)) => Err(self.failed(&mut begun.sent, failed, timer)),
                Err(passed) => Err(self.passed(&mut begun.sent, passed)),
            }
        }
    }

    fn passed(&self, sent: &mut Sent, passed: Passed) -> Broken {
        let addr = sent.addr();
        let (broken, code) = match passed {
            Passed::Deadline => {
                let status = self.too_late(&format!("waiting for {addr}"));
                let code = status.code();
                (Broken::last(status), code)
            }
            Passed::Attempt => {
                let broken = Broken {
                    timed_out: true,
                    addr: Some(addr),
                    ..Broken::last(self.slow(addr))
                };
                (broken, Code::DeadlineExceeded)
            }
        };
        sent.end(&self.throttle, End::DeadlinePassed, code);
        broken
    }

    fn failed(&self, sent: &mut Sent, failed: Failed, timer: &Timer) -> Broken {
        let addr = sent.addr();
        let end = failed.end();
        let mut broken = Broken {
            fate: failed.fate,
            addr: Some(addr),
            ..Broken::last(failed.status)
        };
        if timer.explains(broken.status.code()) {
            broken = Broken::last(self.too_late(&format!("told by {addr}")));
        }
        sent.end(&self.throttle, end, broken.status.code());
        broken
    }

    /// Waits for the answer to begin: for its headers, and, while the whole request can be sent
    /// again, for what follows them. A failure that comes with nothing before it may still be tried
    /// again.
    async fn begin(&self, exchange: &mut Exchange<'_>, begun: &mut Begun) -> Result<(), Failed> {
        begun.response = Pin::new(&mut *exchange).await?;
        begun.sent.picked.heard();
        let incoming = begun.response.body_mut();
        if self.way == Way::Once || incoming.is_over() || !exchange.is_replayable() {
            return Ok(());
        }
        // Whoever waits for one message has no use for headers alone. The reader of a stream does,
        // so that it is shown only what came with them.
        let waits = self.method.is_some_and(|method| !method.server_streaming);
        begun.peeked = poll_fn(|cx| peek(incoming, waits, cx)).await;
        Ok(())
    }

    /// How long an attempt may take; only where it is tried again after that, and not where the caller
    /// takes its time to send what it asks. One whose request turns out to be too large for that has
    /// the time of the call.
    fn attempt_timeout(&self) -> Option<Duration> {
        let streams = self.method.is_none_or(|method| method.client_streaming);
        let retried = self.way == Way::Retried && !self.in_retry && !streams;
        self.retry.attempt_timeout().filter(|_| retried)
    }

    fn slow(&self, addr: SocketAddr) -> Status {
        let public = "no instance answered in time";
        let text = format!("{}: {public}, {addr} last", self.target.name);
        status::with_public(Refusal::AttemptTimeout.status(text), public)
    }
}

/// Whether the endpoint has as much time for this attempt as it needs.
fn is_fair(picked: &Picked, asked: &Asked<'_>, time: Option<Duration>) -> bool {
    let left = |deadline: Deadline| picked.left_until(deadline.instant());
    let left = asked.deadline.map(left);
    let time = match (left, time) {
        (Some(left), Some(time)) => Some(left.min(time)),
        (left, time) => left.or(time),
    };
    time.is_none_or(|time| picked.is_fair(time))
}

fn peek(incoming: &mut Incoming, waits: bool, cx: &mut Context<'_>) -> Poll<Peeked> {
    match Pin::new(incoming).poll_frame(cx) {
        Poll::Ready(frame) => Poll::Ready(Some(frame)),
        Poll::Pending if waits => Poll::Pending,
        Poll::Pending => Poll::Ready(None),
    }
}

/// The request of one attempt: what the caller wrote, and what the platform owns. The latter is
/// written into `head`, where the next attempt overwrites it: the copy has the right size then.
fn on_the_wire(
    head: &mut http::request::Parts,
    deadline: Option<Deadline>,
    previous: u8,
    attempt: &Attempt,
) -> Request<()> {
    let headers = &mut head.headers;
    if let Some(deadline) = deadline {
        let mut timeout = deadline::format_timeout(deadline.remaining());
        // Never the same twice: in HPACK's table it would only push out what is.
        timeout.set_sensitive(true);
        headers.insert(&GRPC_TIMEOUT, timeout);
    }
    match previous {
        0 => drop(headers.remove(&PREVIOUS_ATTEMPTS)),
        previous => {
            let previous = HeaderValue::from(u16::from(previous));
            headers.insert(&PREVIOUS_ATTEMPTS, previous);
        }
    }
    headers.entry(header::USER_AGENT).or_insert(USER_AGENT);
    attempt.inject(headers);
    let mut request = Request::new(());
    *request.headers_mut() = headers.clone();
    *request.uri_mut() = head.uri.clone();
    request
}

fn no_endpoint(error: &NoEndpoint) -> Status {
    let text = status::chain(error);
    let status = Refusal::NoEndpoint.status_with_pause(text, NO_ENDPOINT_PAUSE);
    let public = match error {
        NoEndpoint::NotReady { .. } => "no instance is ready",
        NoEndpoint::Full { .. } => "too many calls wait already",
    };
    status::with_public(status, public)
}
