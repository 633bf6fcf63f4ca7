//! Answers that are streams, a message in each line.

use std::{convert::Infallible, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{future::BoxFuture, stream};
use http::{Response, StatusCode};
use http_body::Frame;
use http_body_util::StreamBody;
use serde_json::json;
use tokio::{sync::oneshot, time};
use tonic::{Status, Streaming, body::Body, metadata::MetadataMap};

use super::{Failure, Faults, LINES, failure, respond, write};
use crate::{catalogue::rule::Binding, stale};

/// How long the head of an answer waits for the first message, so that what is refused is refused
/// by the status of HTTP.
const FIRST_MAX: Duration = Duration::from_secs(1);

/// A call on its way.
type Call = Pin<Box<dyn Future<Output = Result<(MetadataMap, Streaming<Bytes>), Status>> + Send>>;

/// A call whose first message, or end, is waited for.
type Begun = BoxFuture<'static, Result<(Option<Bytes>, Streaming<Bytes>), Failure>>;

/// Where an answer stands.
enum State {
    /// Before its first message.
    Beginning(Begun),
    /// With a message to be written; none at its end.
    At(Option<Bytes>, Streaming<Bytes>),
    /// Between messages.
    Going(Streaming<Bytes>),
    /// After its last line.
    Ended,
}

/// An answer line by line, and what it waits for.
struct Lines {
    state: State,
    binding: Arc<Binding>,
    faults: Faults,
}

/// Answers with what `call` gives: one message where the method gives one, else line by line. Nothing
/// is late before its only request is whole, which closes `begun`.
///
/// # Errors
///
/// What the call ended with before its first message, or what is wrong with its requests.
pub(crate) async fn answer(
    binding: &Arc<Binding>,
    call: Call,
    mut faults: Faults,
    begun: Option<oneshot::Receiver<Infallible>>,
) -> Result<Response<Body>, Failure> {
    if !binding.method.descriptor.is_server_streaming() {
        let answered = async {
            let (metadata, answers) = call.await?;
            let mut response = super::unary(binding, answers).await?;
            stale::tell(stale::age(&metadata), response.headers_mut());
            Ok(response)
        };
        // What was wrong with the requests explains how the call ended, so it is asked first.
        tokio::select! {
            biased;
            failure = faults.next() => return Err(failure),
            answered = answered => return answered,
        }
    }
    let late = async {
        if let Some(begun) = begun {
            drop(begun.await);
        }
        time::sleep(FIRST_MAX).await;
    };
    let mut beginning: Begun = Box::pin(async move {
        let (_, mut answers) = call.await?;
        let first = answers.message().await?;
        Ok((first, answers))
    });
    // Cancel-safe: what has begun goes on in the answer.
    let state = tokio::select! {
        biased;
        failure = faults.next() => return Err(failure),
        first = &mut beginning => {
            let (first, answers) = first?;
            State::At(first, answers)
        }
        () = late => State::Beginning(beginning),
    };
    let lines = Lines {
        state,
        binding: Arc::clone(binding),
        faults,
    };
    let frames = stream::unfold(lines, |mut lines| async move {
        let line = lines.next().await?;
        Some((Ok::<_, Status>(Frame::data(Bytes::from(line))), lines))
    });
    Ok(respond(
        StatusCode::OK,
        LINES,
        Body::new(StreamBody::new(frames)),
    ))
}

impl Lines {
    /// The next line; none after the last.
    async fn next(&mut self) -> Option<Vec<u8>> {
        match self.message().await {
            Ok(None) => None,
            Ok(Some(mut line)) => {
                line.push(b'\n');
                Some(line)
            }
            Err(failure) => {
                self.state = State::Ended;
                let pool = self.binding.method.descriptor.parent_pool();
                let status = failure::in_json(&failure.status, Some(pool));
                Some(format!("{}\n", json!({"error": status})).into_bytes())
            }
        }
    }

    async fn message(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        let next = match std::mem::replace(&mut self.state, State::Ended) {
            State::Beginning(begun) => begun,
            State::At(message, answers) => Box::pin(async { Ok((message, answers)) }),
            State::Going(mut answers) => {
                Box::pin(async { Ok((answers.message().await?, answers)) })
            }
            State::Ended => return Ok(None),
        };
        let (message, answers) = tokio::select! {
            biased;
            failure = self.faults.next() => return Err(failure),
            next = next => next?,
        };
        let Some(message) = message else {
            return Ok(None);
        };
        let output = self.binding.method.descriptor.output();
        let line = write::answer(&output, self.binding.answer.as_ref(), &message)?;
        self.state = State::Going(answers);
        Ok(Some(line))
    }
}
