//! The answer to a call, measured and bounded to its end.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use http_body::{Body, Frame};
use tonic::{Code, Status};

use super::{Answered, Call, attempt::Begun, timer::Timer};
use crate::{
    classify::End,
    limit::bulkhead::Permit,
    status::{self, Refusal},
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
    live: Option<Live>,
}

#[derive(Debug)]
struct Live {
    // First, so that the stream is reset before the call counts as over.
    begun: Box<Begun>,
    call: Box<Call>,
    timer: Timer,
    /// Whether a message, or a part of one, has come.
    answered: bool,
    framing: Framing,
    _permit: Option<Permit>,
}

impl Live {
    /// Tells whoever wants to know how the call ended.
    fn end(mut self, end: End<'_>, code: Code) {
        let Call {
            target,
            throttle,
            measured,
            ..
        } = &mut *self.call;
        if code == Code::Ok {
            target.allowance.succeeded();
        }
        self.begun.response.body_mut().close();
        self.begun.sent.end(throttle, end, code);
        measured.end(code);
    }
}

/// Takes over an answer that has begun. Headers that already end the call end it here.
pub(super) fn begin(
    answered: Answered,
    call: Box<Call>,
    permit: Option<Permit>,
) -> Result<Response<ResponseBody>, Status> {
    let Answered { mut begun, timer } = answered;
    let refused = begun.refused.take();
    let over = begun.peeked.is_none() && begun.response.body().is_over();
    // Only the stream is kept.
    let mut head = Response::new(());
    std::mem::swap(head.headers_mut(), begun.response.headers_mut());
    *head.status_mut() = begun.response.status();
    std::mem::swap(head.extensions_mut(), begun.response.extensions_mut());
    let live = Live {
        begun,
        call,
        timer,
        answered: false,
        framing: Framing::default(),
        _permit: permit,
    };
    if let Some(status) = refused {
        live.end(End::Malformed, status.code());
        return Err(status);
    }
    if over && let Some(code) = status::code_in(head.headers()) {
        live.end(End::Answered(Some(code), head.headers()), code);
        return Ok(head.map(|()| ResponseBody { live: None }));
    }
    // Headers that do not end the stream cannot end the call; a status in them says nothing.
    // What belongs to it means nothing without it.
    let headers = head.headers_mut();
    if headers.remove(&status::GRPC_STATUS).is_some() {
        for name in &status::STATUS_DETAILS {
            headers.remove(name);
        }
    }
    if over {
        let status = no_end();
        live.end(End::Malformed, status.code());
        return Err(status);
    }
    Ok(head.map(|()| ResponseBody { live: Some(live) }))
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
        let next = match self.begun.peeked.take() {
            Some(peeked) => Poll::Ready(peeked),
            None => Pin::new(self.begun.response.body_mut()).poll_frame(cx),
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
                        let method = self.call.method;
                        let streams = method.is_none_or(|method| method.server_streaming);
                        self.begun.sent.answered(streams);
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
        Poll::Ready(Some(match step {
            Step::Goes(frame) => Ok(frame),
            Step::Ends(trailers) => {
                if let Some(code) = status::code_in(&trailers) {
                    live.end(End::Answered(Some(code), &trailers), code);
                    Ok(Frame::trailers(trailers))
                } else {
                    live.end(End::Malformed, Code::Unknown);
                    Err(status::without_status(
                        "the server's trailers hold no grpc-status",
                    ))
                }
            }
            Step::Fails(status, end) => {
                live.end(end, status.code());
                Err(status)
            }
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.live.is_none()
    }
}
