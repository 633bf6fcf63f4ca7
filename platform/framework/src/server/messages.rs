//! Measures messages as they pass, either way.
//!
//! A gRPC message says its length in five bytes before it. A length beyond the bound ends the
//! stream there, with `RESOURCE_EXHAUSTED`, before anything was reserved for the message. What a
//! compressed message grows to is bounded where it is decompressed, by the generated code.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tonic::Status;

use crate::status::Refusal;

/// One byte of flags, four of length.
const PREFIX: usize = 5;

pin_project! {
    /// A body that fails at the first message that is too large, once those before it have
    /// passed.
    #[derive(Debug, Default)]
    pub struct Measured<B> {
        #[pin]
        body: B,
        message_max: usize,
        scan: Scan,
        refused: Option<Status>,
    }
}

impl<B> Measured<B> {
    /// Measures `body` against `message_max`, in bytes per message.
    pub(super) fn new(body: B, message_max: usize) -> Self {
        Self {
            body,
            message_max,
            scan: Scan::default(),
            refused: None,
        }
    }
}

impl<B> Body for Measured<B>
where
    B: Body<Data = Bytes, Error = Status>,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.project();
        if let Some(status) = this.refused.take() {
            return Poll::Ready(Some(Err(status)));
        }
        let Some(mut frame) = ready!(this.body.poll_frame(cx)?) else {
            return Poll::Ready(None);
        };
        let Some(data) = frame.data_mut() else {
            return Poll::Ready(Some(Ok(frame)));
        };
        let Err(large) = this.scan.advance(data, *this.message_max) else {
            return Poll::Ready(Some(Ok(frame)));
        };
        let status = Refusal::MessageTooLarge.status(format!(
            "a message of {} bytes is larger than the {} bytes allowed",
            large.length, this.message_max
        ));
        if large.begins == 0 {
            return Poll::Ready(Some(Err(status)));
        }
        data.truncate(large.begins);
        *this.refused = Some(status);
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.refused.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Where a stream stands between its prefixes.
#[derive(Debug, Default)]
struct Scan {
    /// Bytes of the current message still to come.
    message: usize,
    prefix: [u8; PREFIX],
    /// Bytes of the next prefix that have come.
    prefix_read: usize,
}

/// A message beyond the bound.
#[derive(Debug, PartialEq, Eq)]
struct TooLarge {
    length: usize,
    /// Where in the data its prefix begins; zero also if it began in earlier data.
    begins: usize,
}

impl Scan {
    fn advance(&mut self, data: &[u8], message_max: usize) -> Result<(), TooLarge> {
        let mut at = 0;
        while at < data.len() {
            let rest = &data[at..];
            if self.message > 0 {
                let passed = self.message.min(rest.len());
                self.message -= passed;
                at += passed;
                continue;
            }
            let begins = at;
            let carried = self.prefix_read > 0;
            let read = (PREFIX - self.prefix_read).min(rest.len());
            self.prefix[self.prefix_read..self.prefix_read + read].copy_from_slice(&rest[..read]);
            self.prefix_read += read;
            at += read;
            if self.prefix_read == PREFIX {
                let [_, length @ ..] = self.prefix;
                let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
                if length > message_max {
                    let begins = if carried { 0 } else { begins };
                    return Err(TooLarge { length, begins });
                }
                self.message = length;
                self.prefix_read = 0;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(length: u32) -> Vec<u8> {
        let mut bytes = vec![0];
        bytes.extend(length.to_be_bytes());
        bytes.resize(PREFIX + length as usize, 7);
        bytes
    }

    /// Goal: every message is measured, however the stream is cut into pieces.
    /// Method: messages around the bound, in pieces of every size.
    #[test]
    fn messages_are_measured_across_pieces() {
        let fitting = [message(0), message(10), message(3)].concat();
        let beyond = [message(10), message(11)].concat();
        for size in 1..=beyond.len() {
            let mut scan = Scan::default();
            assert!(
                fitting
                    .chunks(size)
                    .all(|piece| scan.advance(piece, 10).is_ok())
            );

            let mut scan = Scan::default();
            let found = beyond
                .chunks(size)
                .find_map(|piece| scan.advance(piece, 10).err());
            assert_eq!(
                Some(11),
                found.map(|large| large.length),
                "pieces of {size}"
            );
        }
    }

    /// Goal: what came before a message that is too large may pass.
    /// Method: both in one piece.
    #[test]
    fn a_large_message_is_told_from_those_before_it() {
        let stream = [message(4), message(50)].concat();
        let found = Scan::default().advance(&stream, 10);
        let expected = TooLarge {
            length: 50,
            begins: PREFIX + 4,
        };
        assert_eq!(Err(expected), found);
    }
}
