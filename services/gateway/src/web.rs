//! gRPC-Web: gRPC for browsers, which see no trailers. Bytes of messages stay untouched; what ends
//! the call comes as one more frame. As text, everything is base64.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::{BufMut as _, Bytes, BytesMut};
use gantry::{BoxError, server::Calls, status};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::Frame;
use tonic::{Status, body::Body};

use crate::{headers, json::Incoming};

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

/// Answers a request of `kind`.
pub(crate) async fn answer(kind: Kind, request: Request<Incoming>) -> Response<Body> {
    let (head, body) = request.into_parts();
    if head.method != Method::POST {
        let mut response = empty(StatusCode::METHOD_NOT_ALLOWED);
        let allow = HeaderValue::from_static("POST");
        response.headers_mut().insert(header::ALLOW, allow);
        return response;
    }
    let Some(calls) = head.extensions.get::<Calls>() else {
        return empty(StatusCode::INTERNAL_SERVER_ERROR);
    };
    let mut call = Request::new(Body::new(Decoded {
        body,
        begun: BytesMut::new(),
        is_text: kind.is_text,
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

    let (mut head, body) = calls.call(call).await.into_parts();
    head.headers.insert(header::CONTENT_TYPE, kind.content_type);
    head.headers.remove(header::CONTENT_LENGTH);
    let body = Encoded {
        body,
        is_text: kind.is_text,
    };
    Response::from_parts(head, Body::new(body))
}

fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// The frames of a request.
struct Decoded {
    body: Incoming,
    /// Characters that are no whole group yet.
    begun: BytesMut,
    is_text: bool,
}

impl Decoded {
    /// The bytes of `data`, and what was left of the data before, as far as groups are whole.
    fn decode(&mut self, data: &[u8]) -> Result<Bytes, Status> {
        self.begun.extend_from_slice(data);
        let whole = self.begun.len() / GROUP * GROUP;
        let text = self.begun.split_to(whole);
        let mut decoded = BytesMut::with_capacity(whole / GROUP * 3);
        // Padding may stand wherever the sender took a breath.
        for part in text.chunk_by(|one, next| *one != b'=' || *next == b'=') {
            let part = BASE64_STANDARD.decode(part);
            decoded.put_slice(&part.map_err(|error| {
                status::broken(format!("the body is not base64, as its type says: {error}"))
            })?);
        }
        Ok(decoded.freeze())
    }
}

impl http_body::Body for Decoded {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        loop {
            let frame = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                None if self.begun.is_empty() => return Poll::Ready(None),
                None => {
                    self.begun.clear();
                    let error = status::broken("the body ends inside of a group of base64");
                    return Poll::Ready(Some(Err(error.into())));
                }
                Some(frame) => frame?,
            };
            // There is no place for trailers in a request.
            let Ok(data) = frame.into_data() else {
                continue;
            };
            let data = if self.is_text {
                self.decode(&data)?
            } else {
                data
            };
            if !data.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
        }
    }
}

/// The frames of an answer.
struct Encoded {
    body: Body,
    is_text: bool,
}

impl http_body::Body for Encoded {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Some(frame) = ready!(Pin::new(&mut self.body).poll_frame(cx)) else {
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
        self.body.is_end_stream()
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
