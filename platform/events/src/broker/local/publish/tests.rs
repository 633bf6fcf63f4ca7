//! A publisher and a broker that says nothing, on a paused clock.

use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::{Stream, StreamExt as _, stream};
use gantry::journal::Journal;
use gantry_api::broker::v1::{
    ConsumeRequest, ConsumeResponse, DeclareGroupRequest, DeclareGroupResponse,
    ListDeadLettersRequest, ListDeadLettersResponse, ListGroupsRequest, ListGroupsResponse,
    PublishOutcome, RemoveGroupRequest, RemoveGroupResponse, SettleDeadLetterRequest,
    SettleDeadLetterResponse, TailRequest, TailResponse,
    broker_service_client::BrokerServiceClient,
    broker_service_server::{BrokerService, BrokerServiceServer},
};
use tonic::{Code, Request};

use super::*;
use crate::broker::Headers;

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// A broker that takes what is published on its first stream and never says so; on later ones it does.
#[derive(Debug, Clone, Default)]
struct Silent {
    streams: Arc<AtomicUsize>,
}

fn confirmed(request: Result<PublishRequest, Status>) -> Result<PublishResponse, Status> {
    request.map(|request| PublishResponse {
        tag: request.tag,
        outcome: PublishOutcome::Confirmed.into(),
        reason: String::new(),
    })
}

/// What is asked for here by nobody.
fn nothing<T>() -> Result<Response<T>, Status> {
    Err(Status::new(Code::Unimplemented, "not here"))
}

#[tonic::async_trait]
impl BrokerService for Silent {
    type PublishStream = Answers<PublishResponse>;

    async fn publish(
        &self,
        request: Request<Streaming<PublishRequest>>,
    ) -> Result<Response<Self::PublishStream>, Status> {
        let first = self.streams.fetch_add(1, Ordering::Relaxed) == 0;
        let taken = request.into_inner();
        let answers: Self::PublishStream = if first {
            // It reads on, so that the stream is open at both ends.
            Box::pin(
                taken
                    .filter_map(|_| async { None })
                    .chain(stream::pending()),
            )
        } else {
            Box::pin(taken.map(confirmed))
        };
        Ok(Response::new(answers))
    }

    type ConsumeStream = Answers<ConsumeResponse>;
    type TailStream = Answers<TailResponse>;

    async fn consume(
        &self,
        _: Request<Streaming<ConsumeRequest>>,
    ) -> Result<Response<Self::ConsumeStream>, Status> {
        nothing()
    }

    async fn tail(&self, _: Request<TailRequest>) -> Result<Response<Self::TailStream>, Status> {
        nothing()
    }

    async fn declare_group(
        &self,
        _: Request<DeclareGroupRequest>,
    ) -> Result<Response<DeclareGroupResponse>, Status> {
        nothing()
    }

    async fn list_groups(
        &self,
        _: Request<ListGroupsRequest>,
    ) -> Result<Response<ListGroupsResponse>, Status> {
        nothing()
    }

    async fn remove_group(
        &self,
        _: Request<RemoveGroupRequest>,
    ) -> Result<Response<RemoveGroupResponse>, Status> {
        nothing()
    }

    async fn list_dead_letters(
        &self,
        _: Request<ListDeadLettersRequest>,
    ) -> Result<Response<ListDeadLettersResponse>, Status> {
        nothing()
    }

    async fn settle_dead_letter(
        &self,
        _: Request<SettleDeadLetterRequest>,
    ) -> Result<Response<SettleDeadLetterResponse>, Status> {
        nothing()
    }
}

fn message() -> Message {
    Message {
        topic: "x".to_owned(),
        key: "a".to_owned(),
        headers: Headers::new(),
        body: "1".into(),
    }
}

/// Goal: a stream that is open and confirms nothing is given up once a message has waited for as long as
/// it may; the next one is published through another.
/// Method: a broker whose first stream is silent, two messages on it, one after the other, and a third.
#[tokio::test(start_paused = true)]
async fn a_silent_stream_is_given_up() {
    let wait = Duration::from_secs(30);
    let config = Live::fixed(Config {
        confirm_timeout: wait,
        ..Config::default()
    });
    let broker = Silent::default();
    let client = BrokerServiceClient::new(BrokerServiceServer::new(broker.clone()));
    let open = move |requests| -> Opening {
        let mut client = client.clone();
        Box::pin(async move { client.publish(requests).await })
    };
    let tasks = Tasks::new(Journal::new());
    let publisher = Publisher::opening(Box::new(open), config, &tasks);
    let begun = Instant::now();
    let second = async {
        sleep(wait / 2).await;
        publisher.publish(None, message(), wait).await
    };
    let (first, second) = tokio::join!(publisher.publish(None, message(), wait), second);
    assert!(matches!(first, Err(PublishError::TimedOut)), "{first:?}");
    // It need not wait as long as the first: nothing comes of the stream.
    let Err(PublishError::Disconnected(why)) = second else {
        panic!("{second:?}");
    };
    assert_eq!(SILENT, why.to_string());
    assert!(begun.elapsed() < wait + Duration::from_secs(1));
    let shown = publisher.shown();
    assert_eq!(
        (ConnectionState::Disconnected, Some(SILENT.to_owned())),
        (shown.state, shown.error)
    );
    publisher.publish(None, message(), wait).await.unwrap();
    assert_eq!(2, broker.streams.load(Ordering::Relaxed));
    let shown = publisher.shown();
    assert_eq!((ConnectionState::Connected, 2), (shown.state, shown.tries));
    tasks.stop().await;
}
