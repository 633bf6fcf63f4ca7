//! The bodies of requests, within bounds.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use gantry::{BoxError, status};
use http::{HeaderMap, header};
use http_body_util::BodyExt as _;
use prost::Message as _;
use prost_reflect::MessageDescriptor;
use tokio::sync::oneshot;
use tonic::{Code, Status};

use super::{
    failure::Failure,
    node::Node,
    read::{self, At},
};

/// Bodies up to this size always find room: large ones that never end must not keep them out.
const ROOM_ALWAYS: usize = 16 * 1_024;

/// When a body that found no room is worth another try.
const NO_ROOM_PAUSE: Duration = Duration::from_secs(1);

/// A request's body, whoever sent it.
pub type Incoming = http_body_util::combinators::UnsyncBoxBody<Bytes, BoxError>;

/// Bytes that are held of all bodies.
#[derive(Debug, Clone, Default)]
pub struct Held {
    bytes: Arc<AtomicUsize>,
}

/// The share of one body in them, until dropped.
#[derive(Debug)]
pub struct Share {
    held: Held,
    bytes: usize,
    /// For this body.
    alone_max: usize,
    /// For all.
    all_max: usize,
}

impl Held {
    /// Nothing yet, of a body that may have `alone_max` bytes where all may have `all_max`.
    #[must_use]
    pub fn share(&self, alone_max: usize, all_max: usize) -> Share {
        Share {
            held: self.clone(),
            bytes: 0,
            alone_max,
            all_max,
        }
    }
}

impl Share {
    /// Holds `more` bytes of `what`.
    fn grow(&mut self, more: usize, what: &str) -> Result<(), Failure> {
        if self.bytes + more > self.alone_max {
            return Err(Failure::too_large(what, self.alone_max));
        }
        let before = self.held.bytes.fetch_add(more, Ordering::Relaxed);
        self.bytes += more;
        let is_alone = before + more == self.bytes;
        if before + more > self.all_max && !is_alone && self.bytes > ROOM_ALWAYS {
            let text = "no room for the bodies of more requests, the bound http.body_bytes_max";
            return Err(status::busy(text, NO_ROOM_PAUSE).into());
        }
        Ok(())
    }

    fn release(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        self.held.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.release();
    }
}

/// All of a body, with what it holds.
///
/// # Errors
///
/// 413 if it is too large, 503 if there is no room, 400 if it breaks off.
pub async fn whole(
    headers: &HeaderMap,
    mut body: Incoming,
    mut share: Share,
) -> Result<(Bytes, Share), Failure> {
    let announced = headers.get(header::CONTENT_LENGTH);
    let announced = announced.and_then(|it| it.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|it| it > share.alone_max) {
        return Err(Failure::too_large("the body", share.alone_max));
    }
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|error| broken_off(&error))?.into_data() else {
            continue;
        };
        share.grow(data.len(), "the body")?;
        // Nearly every body comes in one piece.
        if first.is_empty() && all.is_empty() {
            first = data;
        } else {
            all.extend_from_slice(&std::mem::take(&mut first));
            all.extend_from_slice(&data);
        }
    }
    let all = if all.is_empty() { first } else { all.freeze() };
    Ok((all, share))
}

fn broken_off(error: &BoxError) -> Failure {
    let text = format!("the body breaks off: {}", status::chain(&**error));
    Status::new(Code::InvalidArgument, text).into()
}

/// The messages of a body that has one in each line. What is wrong goes to whoever waits for the
/// call's answer, and the stream stands still there: it must not end as if it were whole.
pub(crate) struct Lines {
    body: Incoming,
    share: Share,
    descriptor: MessageDescriptor,
    begun: BytesMut,
    /// The first bytes that have been looked through for the end of a line.
    searched: usize,
    number: usize,
    ended: bool,
    fault: Option<oneshot::Sender<Failure>>,
}

impl Lines {
    /// Reads messages of type `descriptor`, and tells what is wrong.
    #[must_use]
    pub(crate) fn new(
        body: Incoming,
        share: Share,
        descriptor: MessageDescriptor,
    ) -> (Self, oneshot::Receiver<Failure>) {
        let (fault, faulty) = oneshot::channel();
        let lines = Self {
            body,
            share,
            descriptor,
            begun: BytesMut::new(),
            searched: 0,
            number: 0,
            ended: false,
            fault: Some(fault),
        };
        (lines, faulty)
    }

    /// The next line that is whole; the last one may lack its end.
    fn line(&mut self) -> Option<BytesMut> {
        let rest = &self.begun[self.searched..];
        let Some(at) = rest.iter().position(|byte| *byte == b'\n') else {
            self.searched = self.begun.len();
            return (self.ended && !self.begun.is_empty()).then(|| {
                self.searched = 0;
                self.begun.split()
            });
        };
        let line = self.begun.split_to(self.searched + at + 1);
        self.searched = 0;
        Some(line)
    }

    /// The message of a line; none for an empty one.
    fn message(&mut self, line: &[u8]) -> Result<Option<Bytes>, Failure> {
        self.number += 1;
        let line = line.trim_ascii();
        if line.is_empty() {
            return Ok(None);
        }
        let number = self.number;
        let at_line = |field: &str, text: String| {
            let field = if field.is_empty() {
                "line".to_owned()
            } else {
                field.to_owned()
            };
            Failure::from(status::invalid_argument([(
                field,
                format!("line {number}: {text}"),
            )]))
        };
        let node = Node::read(line).map_err(|text| at_line("", text))?;
        let message = read::message(&self.descriptor, node, At::WHOLE)
            .map_err(|fault| at_line(&fault.field, fault.text))?;
        Ok(Some(message.encode_to_vec().into()))
    }

    fn step(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Failure>> {
        loop {
            while let Some(line) = self.line() {
                let message = self.message(&line)?;
                // What is left is all that is held.
                self.share.release();
                self.share.grow(self.begun.len(), "a line")?;
                if let Some(message) = message {
                    return Poll::Ready(Ok(Some(message)));
                }
            }
            if self.ended {
                return Poll::Ready(Ok(None));
            }
            let body = Pin::new(&mut self.body);
            match ready!(http_body::Body::poll_frame(body, cx)) {
                None => self.ended = true,
                Some(Err(error)) => return Poll::Ready(Err(broken_off(&error))),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.share.grow(data.len(), "a line")?;
                        self.begun.extend_from_slice(&data);
                    }
                }
            }
        }
    }
}

impl Stream for Lines {
    type Item = Bytes;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if self.fault.is_none() {
            return Poll::Pending;
        }
        match ready!(self.step(cx)) {
            Ok(message) => Poll::Ready(message),
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
