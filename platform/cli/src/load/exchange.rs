//! One call of any kind, as bytes: requests are framed beforehand, and of answers only the frames
//! are looked at, so that the load costs as little as it can next to a server on one machine.

use std::{future::Future, net::SocketAddr, pin::Pin, rc::Rc, time::Duration};

use bytes::{Buf as _, Bytes, BytesMut};
use gantry::{
    client::{Channel, PickedEndpoint},
    contract::Idempotency,
};
use http::{HeaderMap, Method, Request, Uri, Version};
use http_body::Frame;
use http_body_util::Full;
use tokio::time::Instant;
use tonic::{Code, Status, body::Body};
use tower_service::Service as _;

use super::wish::Wish;

/// A message that is looked into, at most: what a server takes of one.
const LOOKED_MAX: usize = 4 << 20;

/// Messages, and the bytes of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Volume {
    pub(crate) messages: u64,
    /// Without the five bytes before each message.
    pub(crate) bytes: u64,
}

impl Volume {
    pub(crate) fn add(&mut self, other: Self) {
        self.messages += other.messages;
        self.bytes += other.bytes;
    }
}

/// How a call ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Code,
    /// Why, where it did not go well.
    pub(crate) message: String,
    /// Who took it, as far as is known.
    pub(crate) endpoint: Option<SocketAddr>,
    /// When its first message had begun to come.
    pub(crate) first_message: Option<Instant>,
    pub(crate) sent: Volume,
    pub(crate) received: Volume,
    /// What was asked for of the answer, by name.
    pub(crate) kept: Vec<(String, String)>,
    /// Of a call of several steps, each that was made.
    pub(crate) steps: Vec<StepEnded>,
}

/// How a step of a call ended.
#[derive(Debug)]
pub(crate) struct StepEnded {
    pub(crate) code: Code,
    /// From when it was sent to its end.
    pub(crate) time: Duration,
    pub(crate) sent: Volume,
    pub(crate) received: Volume,
}

impl Ended {
    /// A call that could not be made.
    pub(crate) fn unsent(message: String) -> Self {
        Self {
            code: Code::Internal,
            message,
            endpoint: None,
            first_message: None,
            sent: Volume::default(),
            received: Volume::default(),
            kept: Vec::new(),
            steps: Vec::new(),
        }
    }
}

/// A call ready to be sent.
#[derive(Debug)]
pub(crate) struct Exchange {
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
    /// All requests, framed.
    pub(crate) requests: Bytes,
    pub(crate) volume: Volume,
    /// Whether exactly one message is the answer.
    pub(crate) one_answer: bool,
    /// What a second try would do.
    pub(crate) idempotency: Idempotency,
    /// What is wanted of the answer.
    pub(crate) wish: Option<Rc<Wish>>,
}

impl Exchange {
    /// Makes the call, and waits for its end. Its deadline is in its headers, and kept by the
    /// channel. Dropping the future cuts the call.
    pub(crate) fn run(self, mut channel: Channel) -> impl Future<Output = Ended> + use<> {
        let picked = PickedEndpoint::default();
        let mut request = Request::new(Body::new(Full::new(self.requests)));
        *request.method_mut() = Method::POST;
        *request.version_mut() = Version::HTTP_2;
        *request.uri_mut() = self.uri;
        *request.headers_mut() = self.headers;
        request.extensions_mut().insert(picked.clone());
        channel.assume(self.idempotency);
        async move {
            let mut answer = Answer::new(self.wish, self.one_answer);
            let status = match channel.call(request).await {
                Ok(response) => answer.read(response).await,
                Err(status) => status,
            };
            let messages = answer.volume.messages;
            let status = if self.one_answer && status.code() == Code::Ok && messages != 1 {
                Status::internal(format!("{messages} answers to a call that has one"))
            } else {
                answer.judged(status)
            };
            Ended {
                code: status.code(),
                message: status.message().to_owned(),
                endpoint: picked.addr(),
                first_message: answer.first,
                sent: self.volume,
                received: answer.volume,
                kept: answer.kept,
                steps: Vec::new(),
            }
        }
    }
}

/// What has come of an answer.
#[derive(Debug, Default)]
struct Answer {
    first: Option<Instant>,
    volume: Volume,
    frames: Frames,
    wish: Option<Rc<Wish>>,
    /// Whether the first message that is as wished ends the call.
    stops: bool,
    /// Why no message was as wished yet.
    otherwise: Option<String>,
    kept: Vec<(String, String)>,
}

impl Answer {
    fn new(wish: Option<Rc<Wish>>, one_answer: bool) -> Self {
        let stops = !one_answer && wish.as_ref().is_some_and(|wish| wish.expects());
        let otherwise = wish.as_ref().map(|_| "there was no answer".to_owned());
        Self {
            frames: Frames::new(wish.is_some()),
            wish,
            stops,
            otherwise,
            ..Self::default()
        }
    }

    /// The status of a call whose answer was all well, but for what is wished of it.
    fn judged(&mut self, status: Status) -> Status {
        match self.otherwise.take() {
            Some(why) if status.code() == Code::Ok => Status::internal(why),
            _ => status,
        }
    }

    /// Looks into the messages that have come; true once there is nothing more to wait for.
    fn look(&mut self) -> bool {
        let Some(wish) = &self.wish else {
            return false;
        };
        for message in self.frames.whole.drain(..) {
            match wish.look(&message) {
                Ok(kept) => {
                    self.kept = kept;
                    self.otherwise = None;
                }
                // A stream may go on to what is wished, and away from it where it is read to its end.
                Err(why) => self.otherwise = Some(why),
            }
            if self.stops && self.otherwise.is_none() {
                return true;
            }
        }
        false
    }

    /// Counts messages to the end of the answer, and returns its status.
    async fn read<B>(&mut self, response: http::Response<B>) -> Status
    where
        B: http_body::Body<Data = Bytes, Error = Status> + Unpin,
    {
        let (head, mut body) = response.into_parts();
        if body.is_end_stream() {
            return status_in(&head.headers);
        }
        loop {
            let frame = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await;
            match frame.map(|frame| frame.map(Frame::into_data)) {
                Some(Ok(Ok(data))) => {
                    if self.first.is_none() {
                        self.first = Some(Instant::now());
                    }
                    self.frames.read(data, &mut self.volume);
                    if self.look() {
                        return Status::ok("");
                    }
                }
                Some(Ok(Err(frame))) => {
                    return status_in(&frame.into_trailers().unwrap_or_default());
                }
                Some(Err(status)) => return status,
                None => return Status::unknown("the answer ended without trailers"),
            }
        }
    }
}

fn status_in(headers: &HeaderMap) -> Status {
    let status = Status::from_header_map(headers);
    status.unwrap_or_else(|| Status::unknown("the answer has no grpc-status"))
}

/// Follows the frames of messages through the pieces they come in.
#[derive(Debug, Default)]
struct Frames {
    /// What has come of the next message's five bytes, a flag and a length.
    head: [u8; 5],
    head_length: usize,
    /// Bytes of the current message still to come.
    left: usize,
    /// Whether messages are looked into.
    looked: bool,
    /// What has come of the current one then.
    message: BytesMut,
    /// Those that came whole, and were not looked into yet.
    whole: Vec<Bytes>,
}

impl Frames {
    fn new(looked: bool) -> Self {
        Self {
            looked,
            ..Self::default()
        }
    }

    fn read(&mut self, mut data: Bytes, volume: &mut Volume) {
        while data.has_remaining() {
            if self.left > 0 {
                let taken = self.left.min(data.len());
                let piece = data.split_to(taken);
                self.left -= taken;
                // Of one that is too large the beginning is kept, which is no message.
                if self.looked && self.message.len() <= LOOKED_MAX {
                    self.message.extend_from_slice(&piece);
                }
                self.end_message();
                continue;
            }
            self.head[self.head_length] = data.get_u8();
            self.head_length += 1;
            if self.head_length == self.head.len() {
                self.head_length = 0;
                let [_, length @ ..] = self.head;
                let length = u32::from_be_bytes(length);
                volume.messages += 1;
                volume.bytes += u64::from(length);
                self.left = usize::try_from(length).unwrap_or(usize::MAX);
                self.end_message();
            }
        }
    }

    /// Puts a message aside that has come whole.
    fn end_message(&mut self) {
        if self.looked && self.left == 0 {
            self.whole.push(self.message.split().freeze());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: messages are counted in whatever pieces they come.
    /// Method: three messages, one of them empty, cut at every size.
    #[test]
    fn messages_are_counted_in_any_pieces() {
        let wire = b"\0\0\0\0\x03abc\0\0\0\0\0\0\0\0\0\x02de";
        for size in 1..=wire.len() {
            let mut frames = Frames::default();
            let mut volume = Volume::default();
            for piece in wire.chunks(size) {
                frames.read(Bytes::copy_from_slice(piece), &mut volume);
            }
            let expected = Volume {
                messages: 3,
                bytes: 5,
            };
            assert_eq!(expected, volume, "pieces of {size}");
        }
    }
}
