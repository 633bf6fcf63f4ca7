//! A stream of messages to take, and what becomes of each.
//!
//! Messages are put in line in the order of the stream; while a write is under way the next ones
//! gather, so that one write confirms them all. The stream reads on only while somebody takes the
//! answers, and no more than [`WINDOW`] ahead of them.

use futures_util::{StreamExt as _, stream, stream::FuturesUnordered};
use gantry_api::broker::v1::{PublishOutcome, PublishRequest, PublishResponse};
use tokio::sync::oneshot;
use tonic::{Status, Streaming};

use super::{Answers, Face, checks, refusal::stopped};
use crate::{ask::Stopped, broker::engine::Outcome};

/// Messages of one stream that are not confirmed.
const WINDOW: usize = 1_024;

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
        let asker = &self.face.0.asker;
        let begun = asker.begin(move |state| state.publish(message)).await;
        let outcome = begun.map_err(|Stopped| stopped())?;
        self.pending.push(Box::pin(confirmed(tag, outcome)));
        Ok(None)
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
            let reason = format!("a queue of {group} is full");
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
