//! gRPC-Web: gRPC for browsers, which see no trailers. Bytes of messages stay untouched; what ends
//! the call comes as one more frame. As text, everything is base64.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::{BufMut as _, Bytes, BytesMut};
use gantry::{
    BoxError,
    server::Calls,
    status::{self, Refusal},
    transport::framing::Framing,
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header, request};
use http_body::Frame;
use tokio::sync::oneshot;
use tonic::{Status, body::Body};

use crate::{
    headers,
    json::{Failure, Faults, Incoming, Pace},
};

/// Marks the frame that holds trailers.
const TRAILERS: u8 = 0x80;

/// Characters of base64 that stand for bytes together.
const GROUP: usize = 4;

/// What such a request looks like.
#[derive(Debug, Clone)]
pub(crate) struct Kind {
    /// Whether everything is base64.
    is_text: bool,
    /// How it was said, and is said back.
    content_type: HeaderValue,
}

impl Kind {
    /// Whether `headers` are of such a request; an error for one in a format that is not spoken.
    pub(crate) fn of(headers: &HeaderMap) -> Option<Result<Self, ()>> {
        let content_type = headers.get(header::CONTENT_TYPE)?;
        let text = content_type.to_str().ok()?;
        let media = text.split(';').next().unwrap_or_default().trim();
        let media = media.to_ascii_lowercase();
        let rest = media.strip_prefix("application/grpc-web")?;
        let is_text = match rest {
            "" | "+proto" => false,
            "-text" | "-text+proto" => true,
            _ => return Some(Err(())),
        };
        let content_type = HeaderValue::from_str(&media).map_err(|_| ());
        Some(content_type.map(|content_type| Self {
            is_text,
            content_type,
        }))
    }
}

/// Answers a request of `kind`, whose body comes at `pace` and has one message where it `is_single`.
pub(crate) async fn answer(
    kind: Kind,
    head: request::Parts,
    body: Incoming,
    pace: Pace,
    is_single: bool,
) -> Response<Body> {
    if head.method != Method::POST {
        let mut response = empty(StatusCode::METHOD_NOT_ALLOWED);
        let allow = HeaderValue::from_static("POST");
        response.headers_mut().insert(header::ALLOW, allow);
        return response;
    }
    let Some(calls) = head.extensions.get::<Calls>() else {
        return empty(StatusCode::INTERNAL_SERVER_ERROR);
    };
    let (fault, mut faults) = Faults::channel();
    let mut call = Request::new(Body::new(Decoded {
        body,
        pace,
        begun: BytesMut::new(),
        framing: Framing::default(),
        is_text: kind.is_text,
        is_single,
        fault: Some(fault),
    }));
    *call.method_mut() = Method::POST;
    *call.uri_mut() = head.uri;
    *call.headers_mut() = headers::metadata(&head.headers);
    for name in ["grpc-timeout", "grpc-encoding", "grpc-accept-encoding"] {
        if let Some(value) = head.headers.get(name) {
            call.headers_mut().insert(name, value.clone());
        }
    }
    let grpc = HeaderValue::from_static("application/grpc");
    call.headers_mut().insert(header::CONTENT_TYPE, grpc);
    let trailers = HeaderValue::from_static("trailers");
    call.headers_mut().insert(header::TE, trailers);

    let response = tokio::select! {
        biased;
        failure = faults.next() => {
            let mut response = failure.status.into_http();
            response.headers_mut().extend(failure.headers);
            response
        }
        response = calls.call(call) => response,
    };
    let (mut head, body) = response.into_parts();
    head.headers.insert(header::CONTENT_TYPE, kind.content_type);
    head.headers.remove(header::CONTENT_LENGTH);
    let body = Encoded {
        body: Some(body),
        faults,
        is_text: kind.is_text,
    };
    Response::from_parts(head, Body::new(body))
}

fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// The frames of a request. It stands still where something is wrong with them, which is told.
struct Decoded {
    body: Incoming,
    pace: Pace,
    /// Characters that are no whole group yet.
    begun: BytesMut,
    framing: Framing,
    is_text: bool,
    /// Whether there is one message, and not as many as come.
    is_single: bool,
    fault: Option<oneshot::Sender<Failure>>,
}

impl Decoded {
    /// The bytes of `data`, and what was left of the data before, as far as groups are whole.
    fn decode(&mut self, data: &[u8]) -> Result<Bytes, Failure> {
        self.begun.extend_from_slice(data);
        let whole = self.begun.len() / GROUP * GROUP;
        let text = self.begun.split_to(whole);
        let mut decoded = BytesMut::with_capacity(whole / GROUP * 3);
        // Padding may stand wherever the sender took a breath.
        for part in text.chunk_by(|one, next| *one != b'=' || *next == b'=') {
            let part = BASE64_STANDARD.decode(part);
            decoded.put_slice(&part.map_err(|error| {
                let text = format!("is not base64, as its type says: {error}");
                Failure::of_header("body", &text)
            })?);
        }
        Ok(decoded.freeze())
    }

    fn step(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Failure>> {
        loop {
            let is_owed =
                self.is_single || !self.begun.is_empty() || !self.framing.is_between_messages();
            let Some(data) = ready!(self.pace.poll_data(&mut self.body, is_owed, cx))? else {
                if !self.begun.is_empty() {
                    let text = "ends inside of a group of base64";
                    return Poll::Ready(Err(Failure::of_header("body", text)));
                }
                if self.is_single && self.framing.begun() == 0 {
                    let text = "the method takes one message, and the request has none";
                    return Poll::Ready(Err(Refusal::Unimplemented.status(text).into()));
                }
                return Poll::Ready(Ok(None));
            };
            let data = if self.is_text {
                self.decode(&data)?
            } else {
                data
            };
            // Its size is for whoever reads it to bound.
            drop(self.framing.advance(&data, usize::MAX));
            if self.is_single && self.framing.begun() > 1 {
                let text = "the method takes one message, and the request has more";
                let status = Refusal::Unimplemented.status(text);
                return Poll::Ready(Err(status.into()));
            }
            if !data.is_empty() {
                return Poll::Ready(Ok(Some(data)));
            }
        }
    }
}

impl http_body::Body for Decoded {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.fault.is_none() {
            return Poll::Pending;
        }
        match ready!(self.step(cx)) {
            Ok(data) => Poll::Ready(data.map(|data| Ok(Frame::data(data)))),
            Err(failure) => {
                if let Some(fault) = self.fault.take() {
                    // Nobody waits any more: then nobody has to be told.
                    drop(fault.send(failure));
                }
                Poll::Pending
            }
        }
    }
}

/// The frames of an answer.
struct Encoded {
    /// None once the call has ended.
    body: Option<Body>,
    faults: Faults,
    is_text: bool,
}

impl http_body::Body for Encoded {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        let Some(body) = &mut this.body else {
            return Poll::Ready(None);
        };
        let frame = if let Poll::Ready(failure) = this.faults.poll_next(cx) {
            this.body = None;
            Some(Ok(Frame::trailers(status::trailers(&failure.status))))
        } else {
            ready!(Pin::new(body).poll_frame(cx))
        };
        let Some(frame) = frame else {
            return Poll::Ready(None);
        };
        let data = match frame?.into_data() {
            Ok(data) => data,
            Err(frame) => match frame.into_trailers() {
                Ok(trailers) => trailers_frame(&trailers),
                Err(_) => Bytes::new(),
            },
        };
        let data = if self.is_text {
            BASE64_STANDARD.encode(data).into()
        } else {
            data
        };
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }
}

fn trailers_frame(trailers: &HeaderMap) -> Bytes {
    let mut lines = Vec::new();
    for (name, value) in trailers {
        lines.extend_from_slice(name.as_str().as_bytes());
        lines.extend_from_slice(b": ");
        lines.extend_from_slice(value.as_bytes());
        lines.extend_from_slice(b"\r\n");
    }
    let mut frame = BytesMut::with_capacity(5 + lines.len());
    frame.put_u8(TRAILERS);
    // Headers are bounded far below.
    frame.put_u32(u32::try_from(lines.len()).unwrap_or(u32::MAX));
    frame.put_slice(&lines);
    frame.freeze()
}

#[cfg(test)]
mod tests;
