//! The answer to a call, measured and bounded to its end.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use http_body::{Body, Frame};
use tonic::{Code, Status};

use super::{
    Answered, Call, Target,
    attempt::{Begun, Peeked, Sent},
    timer::Timer,
};
use crate::{
    classify::End,
    limit::{bulkhead::Permit, throttle::Throttle},
    status::{self, Refusal},
    telemetry::rpc::ClientCall,
    transport::{
        framing::Framing,
        subchannel::{Failed, Incoming},
    },
};

/// How messages are compressed, and how they may be.
static GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
static GRPC_ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");

/// The body of an answer; ends with the trailers or a [`Status`].
///
/// The call counts as in flight, and its deadline holds, until this ends or is dropped. Dropping
/// it early resets the stream.
#[derive(Debug)]
pub struct ResponseBody {
    // Boxed: tonic moves a body several times before it reads it.
    live: Option<Box<Live>>,
}

#[derive(Debug)]
struct Live {
    // First, so that the stream is reset before the call counts as over.
    incoming: Incoming,
    /// What was read of it to see whether the attempt failed.
    peeked: Peeked,
    timer: Timer,
    ends: Ends,
    /// Whether a message, or a part of one, has come.
    answered: bool,
    framing: Framing,
}

/// Whom the end of the call is told.
#[derive(Debug)]
struct Ends {
    sent: Sent,
    throttle: Arc<Throttle>,
    call: ClientCall,
    target: Arc<Target>,
    _permit: Option<Permit>,
}

impl Ends {
    fn end(self, end: End<'_>, code: Code) {
        if code == Code::Ok {
            self.target.allowance.succeeded();
        }
        self.sent.end(&self.throttle, end, code);
        self.call.end(code);
    }
}

/// Takes over an answer that has begun. Headers that already end the call end it here.
pub(super) fn begin(
    answered: Answered,
    call: Call,
    permit: Option<Permit>,
) -> Result<Response<ResponseBody>, Status> {
    let Answered { begun, timer } = answered;
    let Begun {
        response,
        peeked,
        sent,
        refused,
    } = begun;
    let ends = Ends {
        sent,
        throttle: call.throttle,
        call: call.measured,
        target: call.target,
        _permit: permit,
    };
    let (mut head, incoming) = response.into_parts();
    if let Some(status) = refused {
        ends.end(End::Malformed, status.code());
        return Err(status);
    }
    let over = peeked.is_none() && incoming.is_over();
    if over && let Some(code) = status::code_in(&head.headers) {
        ends.end(End::Answered(&head.headers), code);
        return Ok(Response::from_parts(head, ResponseBody { live: None }));
    }
    // Headers that do not end the stream cannot end the call; a status in them says nothing.
    // What belongs to it means nothing without it.
    if head.headers.remove(&status::GRPC_STATUS).is_some() {
        for name in &status::STATUS_DETAILS {
            head.headers.remove(name);
        }
    }
    if over {
        let status = no_end();
        ends.end(End::Malformed, status.code());
        return Err(status);
    }
    let live = Live {
        incoming,
        peeked,
        timer,
        ends,
        answered: false,
        framing: Framing::default(),
    };
    let body = ResponseBody {
        live: Some(Box::new(live)),
    };
    Ok(Response::from_parts(head, body))
}

/// What to tell the caller of an answer with this head, to a request with those headers, that is
/// none whatever it holds.
pub(super) fn refuse(head: &Response<Incoming>, request: &HeaderMap) -> Option<Status> {
    let unreadable = || (!is_readable(head.headers(), request)).then(unreadable);
    not_grpc(head).or_else(unreadable)
}

/// What to tell the caller of an answer that is not gRPC.
fn not_grpc(head: &Response<Incoming>) -> Option<Status> {
    let content_type = head.headers().get(header::CONTENT_TYPE);
    let is_grpc = content_type.is_some_and(|kind| {
        kind.as_bytes()
            .strip_prefix(b"application/grpc")
            .is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
    });
    let has_status = || head.headers().contains_key(&status::GRPC_STATUS);
    if is_grpc && (head.status() == StatusCode::OK || has_status()) {
        return None;
    }
    let kind = content_type.map_or("none".into(), |kind| {
        String::from_utf8_lossy(kind.as_bytes())
    });
    let message = format!(
        "the answer is not gRPC: HTTP status {}, content-type {kind}",
        head.status().as_u16()
    );
    Some(status::not_grpc(head.status(), message))
}

/// Whether the messages of an answer with these headers, if they are compressed, are so in a way
/// that whoever sent a request with those accepts.
fn is_readable(answer: &HeaderMap, request: &HeaderMap) -> bool {
    let Some(encoding) = answer.get(&GRPC_ENCODING) else {
        return true;
    };
    let text = |value: &HeaderValue| value.to_str().unwrap_or_default().to_owned();
    let encoding = text(encoding);
    let accepted = request.get(&GRPC_ACCEPT_ENCODING).map(text);
    let accepted = accepted.unwrap_or_default();
    encoding == "identity" || accepted.split(',').any(|it| it.trim() == encoding)
}

/// What to tell the caller of an answer that is not.
fn unreadable() -> Status {
    status::broken("the answer is compressed in a way that was not asked for")
}

fn broken_off() -> Status {
    status::broken("the server ended the stream inside a message")
}

pub(super) fn no_end() -> Status {
    status::broken("the server ended the stream without trailers")
}

impl Live {
    /// What the caller sees of a stream that broke.
    fn status_of(&self, failed: &Failed) -> Status {
        if self.timer.explains(failed.status.code()) {
            return too_late();
        }
        failed.status.clone()
    }
}

fn too_late() -> Status {
    Refusal::DeadlineExceeded.status("deadline exceeded while the answer was read")
}

/// How a frame, or its absence, ends a call; none if it goes on.
enum Step {
    Goes(Frame<Bytes>),
    Ends(HeaderMap),
    Fails(Status, End<'static>),
}

impl Live {
    fn follow(&mut self, frame: &Frame<Bytes>) {
        if let Some(data) = frame.data_ref() {
            // Its size is for the generated client to bound.
            drop(self.framing.advance(data, usize::MAX));
        }
    }

    fn step(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        let next = match self.peeked.take() {
            Some(peeked) => Poll::Ready(peeked),
            None => Pin::new(&mut self.incoming).poll_frame(cx),
        };
        let frame = match next {
            Poll::Ready(frame) => frame,
            Poll::Pending => {
                return self
                    .timer
                    .poll_passed(cx)
                    .map(|()| Step::Fails(too_late(), End::DeadlinePassed));
            }
        };
        Poll::Ready(match frame {
            Some(Ok(frame)) => match frame.into_trailers() {
                Ok(_) if !self.framing.is_between_messages() => {
                    Step::Fails(broken_off(), End::Malformed)
                }
                Ok(trailers) => Step::Ends(trailers),
                // A stream that always has data never waits, and is bounded all the same.
                Err(_) if self.answered && self.timer.has_passed() => {
                    Step::Fails(too_late(), End::DeadlinePassed)
                }
                Err(frame) => {
                    self.follow(&frame);
                    if !self.answered {
                        self.answered = true;
                        self.ends.sent.answered();
                    }
                    Step::Goes(frame)
                }
            },
            Some(Err(failed)) => Step::Fails(self.status_of(&failed), failed.end()),
            None => Step::Fails(no_end(), End::Malformed),
        })
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Some(live) = &mut self.live else {
            return Poll::Ready(None);
        };
        let step = std::task::ready!(live.step(cx));
        if let Step::Goes(frame) = step {
            return Poll::Ready(Some(Ok(frame)));
        }
        let Some(live) = self.live.take() else {
            return Poll::Ready(None);
        };
        let Live { incoming, ends, .. } = *live;
        drop(incoming);
        Poll::Ready(Some(match step {
            Step::Goes(frame) => Ok(frame),
            Step::Ends(trailers) => {
                if let Some(code) = status::code_in(&trailers) {
                    ends.end(End::Answered(&trailers), code);
                    Ok(Frame::trailers(trailers))
                } else {
                    ends.end(End::Malformed, Code::Unknown);
                    Err(status::without_status(
                        "the server's trailers hold no grpc-status",
                    ))
                }
            }
            Step::Fails(status, end) => {
                ends.end(end, status.code());
                Err(status)
            }
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.live.is_none()
    }
}
