//! One attempt: a request into a stream, and its answer out of it.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{RecvStream, client::ResponseFuture};
use http::{Method, Request, Response, Uri, Version, header, uri};
use http_body::{Body, Frame};
use tonic::Status;

use super::{
    connection::{Shared, Slot},
    outgoing::Outgoing,
    pump::{Pump, Running},
};
use crate::{
    classify::{End, Fate},
    status::{self, Refusal},
};

/// An attempt that got no answer, or lost it half-way.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{}", status.message())]
pub struct Failed {
    /// How far the request got; none if it was the request's own body that failed.
    pub fate: Option<Fate>,
    /// What the caller sees, if nothing else is tried.
    pub status: Status,
}

impl Failed {
    /// How the call ended, for judging it.
    #[must_use]
    pub fn end(&self) -> End<'static> {
        self.fate.map_or(End::Dropped, End::Failed)
    }

    fn own(status: Status) -> Self {
        Self { fate: None, status }
    }
}

/// Sends a request on the place it was given. What comes back is its answer's beginning, to be
/// waited for.
///
/// `head` holds path and headers; scheme and authority are the endpoint's. Until the answer begins,
/// `outgoing` still owns the request's body and may be rewound for another attempt; after that it
/// says itself whether it may. Dropping what comes back resets the stream.
///
/// # Errors
///
/// If it cannot be sent, or no answer begins; says how far the request got.
pub fn exchange(
    slot: Slot,
    head: Request<()>,
    outgoing: &mut Outgoing,
) -> Result<Exchange<'_>, Failed> {
    let request = on_the_wire(head, slot.shared())?;
    let last = outgoing.is_end();
    let (response, stream) = slot
        .send_request(request, last)
        .map_err(|error| not_sent(&error, slot.shared()))?;
    Ok(Exchange {
        response,
        pump: (!last).then(|| Pump::new(stream)),
        outgoing,
        slot: Some(slot),
        waited_for_more: false,
    })
}

/// A request that is sent while the head of its answer is waited for.
// By hand: an async function keeps what it was given beside what it makes of it, and a call's future
// is moved as it begins.
#[derive(Debug)]
#[must_use = "nothing is sent unless it is polled"]
pub struct Exchange<'a> {
    response: ResponseFuture,
    pump: Option<Pump>,
    outgoing: &'a mut Outgoing,
    /// None once it was answered.
    slot: Option<Slot>,
    /// Whether it was answered before the request was whole.
    waited_for_more: bool,
}

impl Exchange<'_> {
    /// Whether the whole request can be sent again.
    #[must_use]
    pub fn is_replayable(&self) -> bool {
        self.outgoing.is_replayable()
    }

    /// Whether the peer has all there is of a request that is not whole yet: it need not answer before.
    #[must_use]
    pub fn waits_for_more(&self) -> bool {
        let pump = self.pump.as_ref();
        self.waited_for_more || pump.is_some_and(Pump::waits_for_more)
    }

    fn begun(&mut self, slot: Slot, answer: Response<RecvStream>) -> Response<Incoming> {
        slot.answered();
        self.waited_for_more = self.waits_for_more();
        // An answer that is over wants no more of the request: it stays whole, for another attempt.
        let pump = self.pump.take().filter(|_| !answer.body().is_end_stream());
        let pump =
            pump.map(|pump| Running::spawn(pump, self.outgoing.commit(), &slot.shared().tasks));
        answer.map(|stream| Incoming {
            open: Some(Open { pump, stream, slot }),
            data_ended: false,
        })
    }
}

impl Future for Exchange<'_> {
    type Output = Result<Response<Incoming>, Failed>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if let Some(sending) = &mut this.pump
            && let Poll::Ready(sent) = sending.poll(this.outgoing, cx)
        {
            if let Err(status) = sent {
                return Poll::Ready(Err(Failed::own(status)));
            }
            this.pump = None;
        }
        let answer = ready!(Pin::new(&mut this.response).poll(cx));
        let slot = this
            .slot
            .take()
            .expect("polled once more after it was ready");
        Poll::Ready(match answer {
            Ok(answer) => Ok(this.begun(slot, answer)),
            Err(error) => Err(failed(&error, slot.shared())),
        })
    }
}

fn on_the_wire(head: Request<()>, shared: &Shared) -> Result<Request<()>, Failed> {
    let (mut parts, ()) = head.into_parts();
    let mut target = uri::Parts::default();
    target.scheme = Some(shared.scheme.clone());
    target.authority = Some(shared.authority.clone());
    target.path_and_query = parts.uri.into_parts().path_and_query;
    parts.uri = Uri::from_parts(target).map_err(|error| {
        Failed::own(status::broken(format!("the request has no path: {error}")))
    })?;
    parts.method = Method::POST;
    parts.version = Version::HTTP_2;
    parts
        .headers
        .insert(header::TE, header::HeaderValue::from_static("trailers"));
    Ok(Request::from_parts(parts, ()))
}

fn not_sent(error: &h2::Error, shared: &Shared) -> Failed {
    if error.is_go_away() || error.is_io() || error.is_reset() {
        // The connection is over, whether or not its driver has noticed yet.
        shared.retire_by(error);
        return Failed {
            fate: Some(Fate::NotSent),
            status: lost(shared, error),
        };
    }
    // The caller's mistake says nothing about the connection, on which others have calls.
    if is_callers_fault(error) {
        return Failed::own(status::broken(format!(
            "the request cannot be sent: {error}"
        )));
    }
    // A connection out of stream ids; fixed by another one, so it counts as refused: one more try.
    shared.retire_by(error);
    Failed {
        fate: Some(Fate::Refused),
        status: lost(shared, error),
    }
}

/// Whether the request has a header that HTTP/2 forbids, as `connection`. h2 tells it in words
/// alone.
fn is_callers_fault(error: &h2::Error) -> bool {
    error.to_string().ends_with("malformed headers")
}

/// What became of a stream that was open.
fn failed(error: &h2::Error, shared: &Shared) -> Failed {
    let fate = Some(Fate::of_stream(error));
    let status = match error.reason() {
        Some(reason) if error.is_reset() && error.is_remote() => {
            let text = format!("reset the stream: {reason:?}");
            let status = status::reset(reason, format!("{} {text}", shared.peer));
            status::with_public(status, format!("the instance {text}"))
        }
        Some(reason) if error.is_reset() => {
            let text = format!("broke the protocol: {reason:?}");
            let status = status::broken(format!("{} {text}", shared.peer));
            status::with_public(status, format!("the instance {text}"))
        }
        _ => lost(shared, error),
    };
    Failed { fate, status }
}

/// The connection's own reason says more than the stream's, which is a broken pipe at best; where
/// the peer had said goodbye first, both are wanted.
fn lost(shared: &Shared, error: &h2::Error) -> Status {
    let own = status::chain(error);
    let reason = match shared.reason() {
        Some(reason) if shared.said_goodbye() && own != reason => format!("{reason} ({own})"),
        Some(reason) => reason.to_owned(),
        None => own,
    };
    let text = format!("connection to {} lost: {reason}", shared.peer);
    let status = Refusal::ConnectionLost.status(text);
    status::with_public(status, "the connection to the instance was lost")
}

/// The body of an answer; by default one that is over. Dropped before its end it resets the stream.
#[derive(Default)]
pub struct Incoming {
    open: Option<Open>,
    data_ended: bool,
}

// In the order in which they go: the request stops, the stream closes, its place becomes free.
struct Open {
    pump: Option<Running>,
    stream: RecvStream,
    slot: Slot,
}

impl Incoming {
    /// Lets go of the stream, which resets it where it has not ended.
    pub fn close(&mut self) {
        self.open = None;
    }

    /// Whether the stream ended with what was read so far.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.open
            .as_ref()
            .is_none_or(|open| open.stream.is_end_stream())
    }

    /// Why the stream broke: the request's own body, or what h2 says.
    fn failed(open: &Open, error: &h2::Error) -> Failed {
        let own = open.pump.as_ref().and_then(Running::failure);
        match own {
            Some(status) => Failed::own(status),
            None => failed(error, open.slot.shared()),
        }
    }
}

impl Body for Incoming {
    type Data = Bytes;
    type Error = Failed;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Failed>>> {
        let this = &mut *self;
        let Some(open) = &mut this.open else {
            return Poll::Ready(None);
        };
        if !this.data_ended {
            match ready!(open.stream.poll_data(cx)) {
                Some(Ok(data)) => {
                    // Taken by the caller, so the peer may send as much again. It cannot be more
                    // than was received.
                    drop(open.stream.flow_control().release_capacity(data.len()));
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Err(error)) => {
                    let failed = Self::failed(open, &error);
                    this.open = None;
                    return Poll::Ready(Some(Err(failed)));
                }
                None => this.data_ended = true,
            }
        }
        let trailers = ready!(open.stream.poll_trailers(cx));
        let end = match trailers {
            Ok(trailers) => trailers.map(|trailers| Ok(Frame::trailers(trailers))),
            Err(error) => Some(Err(Self::failed(open, &error))),
        };
        this.open = None;
        Poll::Ready(end)
    }

    fn is_end_stream(&self) -> bool {
        self.is_over()
    }
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let peer = self.open.as_ref().map(|open| open.slot.shared().peer);
        f.debug_struct("Incoming")
            .field("peer", &peer)
            .finish_non_exhaustive()
    }
}
