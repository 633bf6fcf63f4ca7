//! The client under test: makes the calls the runner asks for and tells what came of them.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use http::HeaderMap;
use http_body::{Body, Frame};
use pin_project_lite::pin_project;
use prost::Message;
use prost_types::Any;
use tokio::{sync::mpsc, time};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status, Streaming, codec::CompressionEncoding, metadata::MetadataMap};
use tower::Service;

use gantry::client::Channel;

use crate::{
    headers,
    proto::{
        ClientCompatRequest, ClientResponseResult, ConformancePayload,
        client_compat_request::cancel::CancelTiming,
        conformance_service_client::ConformanceServiceClient,
    },
};

const FULL_DUPLEX: i32 = 5;
const GZIP: i32 = 2;

type Client = ConformanceServiceClient<Recording>;

/// Makes one call.
///
/// # Errors
///
/// If the call cannot be made as asked; what the server answers is never an error here.
pub async fn invoke(
    channel: Channel,
    asked: &ClientCompatRequest,
) -> Result<ClientResponseResult, String> {
    let seen = Arc::new(Mutex::new(Seen::default()));
    let recording = Recording {
        channel,
        seen: Arc::clone(&seen),
    };
    let mut client = Client::new(recording).accept_compressed(CompressionEncoding::Gzip);
    if asked.compression == GZIP {
        client = client.send_compressed(CompressionEncoding::Gzip);
    }
    if asked.message_receive_limit > 0 {
        client = client.max_decoding_message_size(asked.message_receive_limit as usize);
    }
    let timing = Timing::of(asked);
    let outcome = match asked.method() {
        "Unary" => {
            let call = client.unary(request(asked, one(asked)?));
            single(timing, call, |answer| {
                Some(answer.payload.unwrap_or_default())
            })
            .await
        }
        "IdempotentUnary" => {
            let call = client.idempotent_unary(request(asked, one(asked)?));
            single(timing, call, |answer| {
                Some(answer.payload.unwrap_or_default())
            })
            .await
        }
        "Unimplemented" => {
            let call = client.unimplemented(request(asked, one(asked)?));
            single(timing, call, |_| None).await
        }
        "ServerStream" => server_stream(client, asked, timing).await?,
        "ClientStream" => client_stream(client, asked, timing).await?,
        "BidiStream" => bidi_stream(client, asked, timing).await?,
        other => return Err(format!("no method {other}")),
    };
    let seen = std::mem::take(&mut *seen.lock().unwrap_or_else(PoisonError::into_inner));
    Ok(ClientResponseResult {
        response_headers: headers::from_http(&seen.headers),
        response_trailers: headers::from_http(&seen.trailers),
        payloads: outcome.payloads,
        error: outcome.error.as_ref().map(headers::from_status),
        num_unsent_requests: 0,
    })
}

#[derive(Debug, Default)]
struct Outcome {
    payloads: Vec<ConformancePayload>,
    error: Option<Status>,
}

/// When the call is given up.
#[derive(Debug, Clone, Copy)]
enum Timing {
    Never,
    BeforeClose,
    AfterClose(Duration),
    AfterAnswers(usize),
}

impl Timing {
    fn of(asked: &ClientCompatRequest) -> Self {
        let Some(cancel) = &asked.cancel else {
            return Self::Never;
        };
        match cancel.cancel_timing {
            Some(CancelTiming::BeforeCloseSend(())) => Self::BeforeClose,
            Some(CancelTiming::AfterCloseSendMs(millis)) => {
                Self::AfterClose(Duration::from_millis(millis.into()))
            }
            Some(CancelTiming::AfterNumResponses(count)) => Self::AfterAnswers(count as usize),
            None => Self::AfterClose(Duration::ZERO),
        }
    }

    /// Ends when a call whose requests are all sent is to be given up.
    async fn after_close(self) {
        match self {
            Self::AfterClose(pause) => time::sleep(pause).await,
            _ => std::future::pending().await,
        }
    }
}

fn given_up() -> Status {
    Status::cancelled("given up as asked")
}

fn one<M: Message + Default>(asked: &ClientCompatRequest) -> Result<M, String> {
    match asked.request_messages.as_slice() {
        [message] => unpack(message),
        other => Err(format!("{} messages for one request", other.len())),
    }
}

fn all<M: Message + Default>(asked: &ClientCompatRequest) -> Result<Vec<M>, String> {
    asked.request_messages.iter().map(unpack).collect()
}

fn unpack<M: Message + Default>(message: &Any) -> Result<M, String> {
    M::decode(message.value.as_slice()).map_err(|error| format!("{}: {error}", message.type_url))
}

fn request<M>(asked: &ClientCompatRequest, message: M) -> Request<M> {
    let mut request = Request::new(message);
    *request.metadata_mut() = MetadataMap::from_headers(headers::to_http(&asked.request_headers));
    if let Some(millis) = asked.timeout_ms {
        request.set_timeout(Duration::from_millis(millis.into()));
    }
    request
}

/// A call that answers once.
async fn single<A>(
    timing: Timing,
    call: impl Future<Output = Result<tonic::Response<A>, Status>>,
    payload: impl FnOnce(A) -> Option<ConformancePayload>,
) -> Outcome {
    let answer = tokio::select! {
        answer = call => answer,
        () = timing.after_close() => Err(given_up()),
    };
    match answer {
        Ok(answer) => Outcome {
            payloads: payload(answer.into_inner()).into_iter().collect(),
            error: None,
        },
        Err(error) => Outcome {
            payloads: Vec::new(),
            error: Some(error),
        },
    }
}

async fn server_stream(
    mut client: Client,
    asked: &ClientCompatRequest,
    timing: Timing,
) -> Result<Outcome, String> {
    let request = request(asked, one(asked)?);
    let mut outcome = Outcome::default();
    let reading = async {
        let answers = client.server_stream(request).await?.into_inner();
        read(answers, timing, &mut outcome, |answer| {
            Some(answer.payload.unwrap_or_default())
        })
        .await
    };
    let ended = tokio::select! {
        ended = reading => ended,
        () = timing.after_close() => Err(given_up()),
    };
    outcome.error = ended.err();
    Ok(outcome)
}

async fn client_stream(
    mut client: Client,
    asked: &ClientCompatRequest,
    timing: Timing,
) -> Result<Outcome, String> {
    let messages = all(asked)?;
    let (sender, receiver) = mpsc::channel(1);
    let call = client.client_stream(request(asked, ReceiverStream::new(receiver)));
    let pause = Duration::from_millis(asked.request_delay_ms.into());
    let sending = async {
        for message in messages {
            time::sleep(pause).await;
            if sender.send(message).await.is_err() {
                break;
            }
        }
        give_up(timing, sender).await
    };
    Ok(single_while(call, sending, |answer| {
        Some(answer.payload.unwrap_or_default())
    })
    .await)
}

/// Ends the request stream, or leaves it open, and returns when the call is to be given up.
async fn give_up<M>(timing: Timing, sender: mpsc::Sender<M>) -> Status {
    if matches!(timing, Timing::BeforeClose) {
        // Until what was sent has left, so that the server sees the messages and no end.
        let all = sender.max_capacity();
        drop(sender.reserve_many(all).await);
        time::sleep(Duration::from_millis(50)).await;
    } else {
        drop(sender);
        timing.after_close().await;
    }
    given_up()
}

async fn single_while<A>(
    call: impl Future<Output = Result<tonic::Response<A>, Status>>,
    sending: impl Future<Output = Status>,
    payload: impl FnOnce(A) -> Option<ConformancePayload>,
) -> Outcome {
    let call = async {
        tokio::select! {
            answer = call => answer,
            given_up = sending => Err(given_up),
        }
    };
    single(Timing::Never, call, payload).await
}

async fn bidi_stream(
    mut client: Client,
    asked: &ClientCompatRequest,
    timing: Timing,
) -> Result<Outcome, String> {
    let messages = all(asked)?;
    let pause = Duration::from_millis(asked.request_delay_ms.into());
    let full_duplex = asked.stream_type == FULL_DUPLEX;
    let (sender, receiver) = mpsc::channel(1);
    let call = client.bidi_stream(request(asked, ReceiverStream::new(receiver)));
    let mut outcome = Outcome::default();
    let ended = if full_duplex {
        let talking = async {
            let mut sender = Some(sender);
            let mut answers = Opening::new(call);
            for message in messages {
                time::sleep(pause).await;
                let open = sender.as_ref().expect("kept until all is sent");
                if open.send(message).await.is_err() {
                    break;
                }
                let Some(answer) = answers.message().await? else {
                    break;
                };
                outcome.payloads.push(answer.payload.unwrap_or_default());
                if matches!(timing, Timing::AfterAnswers(count) if count == outcome.payloads.len())
                {
                    return Err(given_up());
                }
            }
            let sender = sender.take().expect("taken once");
            let answers = answers.opened().await?;
            tokio::select! {
                ended = read(answers, timing, &mut outcome, |answer| Some(answer.payload.unwrap_or_default())) => ended,
                given_up = give_up(timing, sender) => Err(given_up),
            }
        };
        talking.await
    } else {
        let sending = async {
            for message in messages {
                time::sleep(pause).await;
                if sender.send(message).await.is_err() {
                    break;
                }
            }
            give_up(timing, sender).await
        };
        let reading = async {
            let answers = call.await?.into_inner();
            read(answers, timing, &mut outcome, |answer| {
                Some(answer.payload.unwrap_or_default())
            })
            .await
        };
        tokio::select! {
            ended = reading => ended,
            given_up = sending => Err(given_up),
        }
    };
    outcome.error = ended.err();
    Ok(outcome)
}

/// A stream whose call may not have been answered yet.
struct Opening<F, A> {
    call: Option<Pin<Box<F>>>,
    answers: Option<Streaming<A>>,
}

impl<F, A> Opening<F, A>
where
    F: Future<Output = Result<tonic::Response<Streaming<A>>, Status>>,
{
    fn new(call: F) -> Self {
        Self {
            call: Some(Box::pin(call)),
            answers: None,
        }
    }

    async fn open(&mut self) -> Result<(), Status> {
        if let Some(call) = self.call.take() {
            self.answers = Some(call.await?.into_inner());
        }
        Ok(())
    }

    async fn message(&mut self) -> Result<Option<A>, Status> {
        self.open().await?;
        match &mut self.answers {
            Some(answers) => answers.message().await,
            None => Ok(None),
        }
    }

    async fn opened(mut self) -> Result<Streaming<A>, Status> {
        self.open().await?;
        self.answers.ok_or_else(given_up)
    }
}

/// Reads answers until the stream ends, or until so many have come.
async fn read<A>(
    mut answers: Streaming<A>,
    timing: Timing,
    outcome: &mut Outcome,
    payload: impl Fn(A) -> Option<ConformancePayload>,
) -> Result<(), Status> {
    while let Some(answer) = answers.message().await? {
        outcome.payloads.extend(payload(answer));
        if matches!(timing, Timing::AfterAnswers(count) if count == outcome.payloads.len()) {
            return Err(given_up());
        }
    }
    Ok(())
}

/// Headers and trailers as they came; tonic's clients merge the two for single answers.
#[derive(Debug, Default)]
struct Seen {
    headers: HeaderMap,
    trailers: HeaderMap,
}

/// The channel under test, with headers and trailers recorded.
#[derive(Debug, Clone)]
struct Recording {
    channel: Channel,
    seen: Arc<Mutex<Seen>>,
}

type ChannelResponse = <Channel as Service<http::Request<tonic::body::Body>>>::Response;
type ChannelError = <Channel as Service<http::Request<tonic::body::Body>>>::Error;
type ChannelFuture = <Channel as Service<http::Request<tonic::body::Body>>>::Future;

impl Service<http::Request<tonic::body::Body>> for Recording {
    type Response = http::Response<RecordedBody<<ChannelResponse as Answer>::Body>>;
    type Error = ChannelError;
    type Future = RecordedCall<ChannelFuture>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ChannelError>> {
        self.channel.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        RecordedCall {
            call: self.channel.call(request),
            seen: Arc::clone(&self.seen),
        }
    }
}

/// Names the body of a response type.
trait Answer {
    type Body;
}

impl<B> Answer for http::Response<B> {
    type Body = B;
}

pin_project! {
    struct RecordedCall<F> {
        #[pin]
        call: F,
        seen: Arc<Mutex<Seen>>,
    }
}

impl<F, B, E> Future for RecordedCall<F>
where
    F: Future<Output = Result<http::Response<B>, E>>,
{
    type Output = Result<http::Response<RecordedBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let response = ready!(this.call.poll(cx))?;
        let seen = Arc::clone(this.seen);
        seen.lock().unwrap_or_else(PoisonError::into_inner).headers = response.headers().clone();
        Poll::Ready(Ok(response.map(|body| RecordedBody { body, seen })))
    }
}

pin_project! {
    struct RecordedBody<B> {
        #[pin]
        body: B,
        seen: Arc<Mutex<Seen>>,
    }
}

impl<B: Body> Body for RecordedBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = self.project();
        let frame = ready!(this.body.poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(trailers) = frame.trailers_ref()
        {
            this.seen
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .trailers = trailers.clone();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}
