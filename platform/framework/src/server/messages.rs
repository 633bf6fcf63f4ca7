//! Measures messages as they pass, either way.
//!
//! A gRPC message says its length in five bytes before it. A length beyond the bound ends the
//! stream there, with `RESOURCE_EXHAUSTED`, before anything was reserved for the message. What a
//! compressed message grows to is bounded where it is decompressed, by the generated code.
//!
//! What has come of large messages is held until they are whole, and bounded for all calls
//! together, by what has come and not by what was announced: announcing costs a peer nothing.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tonic::Status;

use crate::{status::Refusal, transport::framing::Framing};

/// Messages up to this size are not counted: they come in one piece.
const UNCOUNTED: usize = 16 * 1_024;

/// When a message that found no room is worth another try.
const NO_ROOM_PAUSE: Duration = Duration::from_secs(1);

/// Bytes held for unfinished messages, of all calls.
#[derive(Debug, Default)]
pub(super) struct Held {
    bytes: AtomicUsize,
}

/// One message's share of them, until dropped.
#[derive(Debug)]
struct Share {
    held: Arc<Held>,
    bytes: usize,
}

impl Share {
    /// Grows to `bytes`; false if all shares together would be more than `most`. One that is
    /// alone may always grow: a single message has a bound of its own.
    fn grow(&mut self, bytes: usize, most: usize) -> bool {
        let more = bytes.saturating_sub(self.bytes);
        let all = &self.held.bytes;
        let before = all.fetch_add(more, Ordering::Relaxed);
        self.bytes += more;
        before + more <= most || before + more == self.bytes
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.held.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// How much of large messages may be held.
#[derive(Debug)]
struct Budget {
    held: Arc<Held>,
    bytes_max: usize,
    share: Option<Share>,
}

impl Budget {
    /// Follows a message; fails where there is no room for what has come of it.
    fn follow(&mut self, framing: &Framing, whole: bool) -> Result<(), Status> {
        if whole {
            self.share = None;
        }
        let Some((length, come)) = framing.unfinished() else {
            return Ok(());
        };
        if length <= UNCOUNTED {
            return Ok(());
        }
        let share = self.share.get_or_insert_with(|| Share {
            held: Arc::clone(&self.held),
            bytes: 0,
        });
        if share.grow(come, self.bytes_max) {
            return Ok(());
        }
        self.share = None;
        Err(Refusal::ReceiveBytes
            .status_with_pause("too many large messages arrive at once", NO_ROOM_PAUSE))
    }
}

pin_project! {
    /// A body that fails at the first message that is too large, once those before it have
    /// passed.
    #[derive(Debug, Default)]
    pub struct Measured<B> {
        #[pin]
        body: B,
        message_max: usize,
        framing: Framing,
        refused: Option<Status>,
        budget: Option<Budget>,
    }
}

impl<B> Measured<B> {
    /// Measures `body` against `message_max`, in bytes per message.
    pub(super) fn new(body: B, message_max: usize) -> Self {
        Self {
            body,
            message_max,
            framing: Framing::default(),
            refused: None,
            budget: None,
        }
    }

    /// As [`Measured::new`]; what has come of large messages counts among `held`, `bytes_max` at
    /// most.
    pub(super) fn held(body: B, message_max: usize, held: &Arc<Held>, bytes_max: usize) -> Self {
        Self {
            budget: Some(Budget {
                held: Arc::clone(held),
                bytes_max,
                share: None,
            }),
            ..Self::new(body, message_max)
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
        // A message that ends within this piece is held no longer: its reader has it.
        let unfinished = this.framing.unfinished();
        let whole = unfinished.is_none_or(|(length, come)| length - come <= data.len());
        let Err(large) = this.framing.advance(data, *this.message_max) else {
            let room = this
                .budget
                .as_mut()
                .map_or(Ok(()), |budget| budget.follow(this.framing, whole));
            return Poll::Ready(Some(room.map(|()| frame)));
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
