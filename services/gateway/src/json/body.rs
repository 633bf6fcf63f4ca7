//! The bodies of requests, within bounds.

use std::{
    convert::Infallible,
    future::{self, poll_fn},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use gantry::{BoxError, status};
use http::{HeaderMap, header};
use prost::Message as _;
use prost_reflect::MessageDescriptor;
use tokio::{sync::oneshot, time};

use super::{
    failure::Failure,
    held::{Allowance, Share},
    node::Node,
    pace::Pace,
    read::{self, At},
};
use crate::call;

/// A request's body, whoever sent it.
pub type Incoming = http_body_util::combinators::UnsyncBoxBody<Bytes, BoxError>;

/// All of a body, with what it holds.
///
/// # Errors
///
/// 413 if it is too large, 503 if there is no room, 408 if it comes too slowly, 400 if it breaks off.
pub async fn whole(
    headers: &HeaderMap,
    mut body: Incoming,
    allowance: Allowance,
) -> Result<(Bytes, Share), Failure> {
    let Allowance {
        mut share,
        mut pace,
        time_max,
    } = allowance;
    let announced = headers.get(header::CONTENT_LENGTH);
    let announced = announced.and_then(|it| it.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|it| it > share.alone_max()) {
        return Err(Failure::too_large("the body", share.alone_max()));
    }
    let read = async {
        let mut first = Bytes::new();
        let mut all = BytesMut::new();
        while let Some(data) = poll_fn(|cx| pace.poll_data(&mut body, true, cx)).await? {
            share.grow(data.len(), "the body")?;
            // Nearly every body comes in one piece.
            if first.is_empty() && all.is_empty() {
                first = data;
            } else {
                all.extend_from_slice(&std::mem::take(&mut first));
                all.extend_from_slice(&data);
            }
        }
        Ok(if all.is_empty() { first } else { all.freeze() })
    };
    let read = time::timeout(time_max, read).await;
    let all = read.unwrap_or_else(|_| {
        let text =
            format!("the body did not end within {time_max:?}, which http.timeout leaves it");
        Err(Failure::too_slow(text))
    })?;
    Ok((all, share))
}

/// What is wrong with the requests of a call, told while it runs to whoever waits for its answer:
/// their stream stands still then, as it must not end as if it were whole.
#[derive(Debug)]
pub(crate) struct Faults<F = Failure>(Option<oneshot::Receiver<F>>);

impl<F> Faults<F> {
    /// Where to tell them, and where they are heard.
    pub(crate) fn channel() -> (oneshot::Sender<F>, Self) {
        let (fault, told) = oneshot::channel();
        (fault, Self(Some(told)))
    }

    /// The first there is; never comes where all is well. Cancel-safe.
    pub(crate) async fn next(&mut self) -> F {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<F> {
        if let Some(told) = &mut self.0 {
            let told = ready!(Pin::new(told).poll(cx));
            self.0 = None;
            if let Ok(fault) = told {
                return Poll::Ready(fault);
            }
        }
        Poll::Pending
    }
}

/// The requests of a call.
pub(crate) struct Requests {
    pub(crate) messages: call::Messages,
    pub(crate) faults: Faults,
    /// Closed once the only message is whole; none of a stream.
    pub(crate) begun: Option<oneshot::Receiver<Infallible>>,
}

impl Requests {
    /// The one that `read` gives, with what it holds, which is not begun before the call is let in.
    pub(crate) fn single(
        read: impl Future<Output = Result<(Bytes, Option<Share>), Failure>> + Send + 'static,
    ) -> Self {
        let (fault, faults) = Faults::channel();
        let (beginning, begun) = oneshot::channel();
        let message = async move {
            let _beginning = beginning;
            match read.await {
                Ok((message, share)) => {
                    (message, share.map(|share| Box::new(share) as call::Holding))
                }
                Err(failure) => {
                    // Nobody waits any more: then nobody has to be told.
                    drop(fault.send(failure));
                    future::pending().await
                }
            }
        };
        Self {
            messages: call::Messages::single(message),
            faults,
            begun: Some(begun),
        }
    }

    /// A message in each line of `body`, of type `descriptor`.
    pub(crate) fn lines(
        body: Incoming,
        allowance: Allowance,
        descriptor: MessageDescriptor,
    ) -> Self {
        let (lines, faults) = Lines::new(body, allowance, descriptor);
        Self {
            messages: call::Messages::stream(lines),
            faults,
            begun: None,
        }
    }
}

/// The messages of a body that has one in each line.
struct Lines {
    body: Incoming,
    share: Share,
    pace: Pace,
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
    fn new(body: Incoming, allowance: Allowance, descriptor: MessageDescriptor) -> (Self, Faults) {
        let (fault, faults) = Faults::channel();
        let lines = Self {
            body,
            share: allowance.share,
            pace: allowance.pace,
            descriptor,
            begun: BytesMut::new(),
            searched: 0,
            number: 0,
            ended: false,
            fault: Some(fault),
        };
        (lines, faults)
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
            let is_owed = !self.begun.is_empty();
            match ready!(self.pace.poll_data(&mut self.body, is_owed, cx))? {
                None => self.ended = true,
                Some(data) => {
                    self.share.grow(data.len(), "a line")?;
                    self.begun.extend_from_slice(&data);
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

#[cfg(test)]
pub(crate) mod tests;
