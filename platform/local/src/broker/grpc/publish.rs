//! A stream of messages to take, and what becomes of each.
//!
//! Messages are put in line in the order of the stream; while a write is under way the next ones
//! gather, so that one write confirms them all. The stream reads on only while somebody takes the
//! answers, and no more than [`WINDOW`] ahead of them.

use std::sync::Arc;

use futures_util::{StreamExt as _, stream, stream::FuturesUnordered};
use gantry_api::broker::v1::{PublishOutcome, PublishRequest, PublishResponse};
use tokio::sync::oneshot;
use tonic::{Status, Streaming};

use super::{Answers, Face, checks, refusal::stopped};
use crate::{
    ask::Stopped,
    broker::engine::{Message, Outcome},
};

/// Messages of one stream that are not confirmed.
const WINDOW: usize = 1_024;

/// Bytes of messages of all streams that are in line for the owner. Who publishes more waits: its stream
/// is not read meanwhile.
pub(super) const LINE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Takes what `requests` publish.
pub(super) fn answers(requests: Streaming<PublishRequest>, face: Face) -> Answers<PublishResponse> {
    let publishing = Publishing {
        requests: Some(requests),
        face,
        pending: FuturesUnordered::new(),
    };
    Box::pin(stream::try_unfold(publishing, async |mut publishing| {
        let answer = publishing.next().await?;
        Ok(answer.map(|answer| (answer, publishing)))
    }))
}

type Pending = Box<dyn Future<Output = Result<PublishResponse, Status>> + Send>;

/// One stream.
struct Publishing {
    /// None once the publisher has said its last.
    requests: Option<Streaming<PublishRequest>>,
    face: Face,
    pending: FuturesUnordered<std::pin::Pin<Pending>>,
}

impl Publishing {
    /// The next answer; none once all are given and no message comes any more.
    async fn next(&mut self) -> Result<Option<PublishResponse>, Status> {
        loop {
            let reads = self.requests.is_some() && self.pending.len() < WINDOW;
            if !reads && self.pending.is_empty() {
                return Ok(None);
            }
            let request = async {
                match &mut self.requests {
                    Some(requests) if reads => requests.message().await,
                    _ => std::future::pending().await,
                }
            };
            // Both arms are cancel-safe: a request is either read or still in the stream.
            let request = tokio::select! {
                Some(answer) = self.pending.next() => return answer.map(Some),
                request = request => request?,
            };
            match request {
                Some(request) => {
                    if let Some(refused) = self.begin(request).await? {
                        return Ok(Some(refused));
                    }
                }
                None => self.requests = None,
            }
        }
    }

    /// Puts a message in line; answers at once where it is none.
    async fn begin(&mut self, request: PublishRequest) -> Result<Option<PublishResponse>, Status> {
        let tag = request.tag;
        let message = match checks::message(request.message, self.face.0.message_max) {
            Ok(message) => message,
            Err(reason) => {
                return Ok(Some(answer(tag, PublishOutcome::Refused, reason)));
            }
        };
        let outcome = self.face.publish(message).await?;
        self.pending.push(Box::pin(confirmed(tag, outcome)));
        Ok(None)
    }
}

impl Face {
    /// Puts a message in line, once there is room for its bytes; what is received is what became of it.
    ///
    /// Those in line are bounded by number alone otherwise, and a few hundred large ones are much memory.
    async fn publish(&self, message: Message) -> Result<oneshot::Receiver<Outcome>, Status> {
        let line = &self.0.line;
        // One that is larger than all there may be goes alone.
        let bytes = message.size().clamp(1, LINE_BYTES_MAX);
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let room = Arc::clone(line).acquire_many_owned(bytes).await;
        let room = room.map_err(|_| stopped())?;
        let begun = self.0.asker.begin(move |state| {
            let outcome = state.publish(message);
            // From here on it counts as one of those that are kept.
            drop(room);
            outcome
        });
        begun.await.map_err(|Stopped| stopped())
    }
}

async fn confirmed(
    tag: u64,
    outcome: oneshot::Receiver<Outcome>,
) -> Result<PublishResponse, Status> {
    let outcome = outcome.await.map_err(|_| stopped())?;
    let (outcome, reason) = match outcome {
        Outcome::Confirmed => (PublishOutcome::Confirmed, String::new()),
        Outcome::Unroutable => (PublishOutcome::Unroutable, String::new()),
        Outcome::QueueFull(group) => {
            let reason = format!("{group} has no room for it");
            (PublishOutcome::QueueFull, reason)
        }
        Outcome::NoRoom => (PublishOutcome::NoRoom, "the broker is full".to_owned()),
    };
    Ok(answer(tag, outcome, reason))
}

fn answer(tag: u64, outcome: PublishOutcome, reason: String) -> PublishResponse {
    PublishResponse {
        tag,
        outcome: outcome.into(),
        reason,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use futures_util::FutureExt as _;
    use tokio::sync::Semaphore;

    use super::{super::Shared, *};
    use crate::broker::{
        engine::{Bounds, Engine},
        owner::{Owner, State},
        time::Clock,
    };

    const MESSAGE: usize = 1024 * 1024;

    fn message() -> Message {
        Message {
            body: vec![0; MESSAGE].into(),
            ..Message::default()
        }
    }

    /// Goal: messages in line for an owner that stands still are bounded in bytes, whoever publishes them;
    /// who publishes one more waits, and goes on when the owner does.
    /// Method: an owner that does not run, and large messages until one waits; then it runs.
    #[tokio::test(start_paused = true)]
    async fn messages_in_line_are_bounded_in_bytes() {
        let engine = Engine::new(Bounds {
            groups: 1,
            messages: 1_000,
            bytes: usize::MAX,
            consumers: 1,
        });
        let (owner, asker, departures) = Owner::new(State::new(engine, None, Clock::new(), 1));
        let face = Face(Arc::new(Shared {
            asker,
            departures,
            message_max: MESSAGE,
            last_consumer: AtomicU64::new(1),
            line: Arc::new(Semaphore::new(LINE_BYTES_MAX)),
        }));
        let mut in_line = Vec::new();
        while in_line.len() < 100
            && let Some(outcome) = face.publish(message()).now_or_never()
        {
            in_line.push(outcome.unwrap());
        }
        assert_eq!(LINE_BYTES_MAX / MESSAGE, in_line.len());
        let small = Message::default();
        assert!(face.publish(small).now_or_never().is_none());
        let mut running = std::pin::pin!(owner.run());
        let going_on = async {
            let outcome = face.publish(message()).await.unwrap().await;
            assert_eq!(Ok(Outcome::Unroutable), outcome);
            // One beyond all bounds goes alone, and not never.
            let huge = Message {
                body: vec![0; LINE_BYTES_MAX + 1].into(),
                ..Message::default()
            };
            face.publish(huge).await.unwrap().await.unwrap();
        };
        tokio::select! {
            ended = running.as_mut() => panic!("it ended: {ended:?}"),
            () = going_on => {}
        }
    }
}
