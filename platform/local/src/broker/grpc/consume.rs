//! A consumer's stream: messages out, what becomes of them in.
//!
//! The owner hands out no more than the consumer wants at once, so nothing here grows; a consumer
//! that does not read has no further messages.

use std::pin::Pin;

use futures_util::{StreamExt as _, stream, stream::FuturesUnordered};
use gantry_api::broker::v1::{ConsumeRequest, ConsumeResponse, Settle, consume_request};
use tokio::sync::oneshot;
use tonic::{Status, Streaming};

use super::{
    Answers, Face, checks, convert,
    refusal::{self, stopped},
};
use crate::{
    ask::Stopped,
    broker::{
        engine::Refusal,
        owner::{self, Seat},
    },
};

/// Serves the consumer that `requests` ask for; the first one says which queue.
pub(super) async fn answers(
    mut requests: Streaming<ConsumeRequest>,
    face: &Face,
) -> Result<Answers<ConsumeResponse>, Status> {
    let first = requests.message().await?.and_then(|it| it.request);
    let Some(consume_request::Request::Subscribe(subscribe)) = first else {
        return Err(refusal::invalid("the first request: expected subscribe"));
    };
    let wish = checks::wish(subscribe)?;
    let settling_max = usize::from(wish.prefetch);
    let id = face.consumer_id();
    let joined = owner::join(&face.0.asker, &face.0.departures, id, wish).await;
    let seat = joined.map_err(|Stopped| stopped())?.map_err(refusal::of)?;
    let consuming = Consuming {
        requests: Some(requests),
        face: face.clone(),
        seat,
        settling: FuturesUnordered::new(),
        settling_max,
    };
    let answers = stream::try_unfold(consuming, async |mut consuming| {
        let answer = consuming.next().await?;
        Ok(answer.map(|answer| (answer, consuming)))
    });
    Ok(Box::pin(answers))
}

type Settling = Box<dyn Future<Output = Result<u64, Status>> + Send>;

/// One stream.
struct Consuming {
    /// None once the consumer has said its last; then what it settled is answered, and that is all.
    requests: Option<Streaming<ConsumeRequest>>,
    face: Face,
    seat: Seat,
    settling: FuturesUnordered<Pin<Settling>>,
    settling_max: usize,
}

impl Consuming {
    /// The next answer; none once the consumer has left.
    async fn next(&mut self) -> Result<Option<ConsumeResponse>, Status> {
        loop {
            if self.requests.is_none() && self.settling.is_empty() {
                return Ok(None);
            }
            let reads = self.settling.len() < self.settling_max;
            let request = async {
                match &mut self.requests {
                    Some(requests) if reads => requests.message().await,
                    _ => std::future::pending().await,
                }
            };
            // Each arm is cancel-safe: a request is either read or still in the stream.
            let request = tokio::select! {
                Some(settled) = self.settling.next() => {
                    return settled.map(|tag| Some(convert::settled(tag)));
                }
                told = self.seat.next() => {
                    let told = told.ok_or_else(stopped)?;
                    return convert::told(&told).map(Some).ok_or_else(refusal::removed);
                }
                request = request => request?,
            };
            match request.map(|request| request.request) {
                None => self.requests = None,
                Some(Some(consume_request::Request::Settle(settle))) => self.settle(settle).await?,
                Some(_) => return Err(refusal::invalid("a later request: expected settle")),
            }
        }
    }

    /// Puts in line what becomes of a message.
    async fn settle(&mut self, settle: Settle) -> Result<(), Status> {
        let (tag, how) = (settle.tag, convert::how(settle.how)?);
        let id = self.seat.id;
        let asker = &self.face.0.asker;
        let begun = asker.begin(move |state| {
            let now = state.clock.now();
            state.engine.settle(id, tag, how, now)
        });
        let settled = begun.await.map_err(|Stopped| stopped())?;
        self.settling.push(Box::pin(answered(tag, settled)));
        Ok(())
    }
}

async fn answered(
    tag: u64,
    settled: oneshot::Receiver<Result<(), Refusal>>,
) -> Result<u64, Status> {
    let settled = settled.await.map_err(|_| stopped())?;
    settled.map_err(refusal::of)?;
    Ok(tag)
}
