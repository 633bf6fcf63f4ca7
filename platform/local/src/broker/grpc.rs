//! The gRPC face: checks a request, turns it into the engine's words, asks the owner, and turns the
//! answer back.

mod checks;
mod consume;
mod convert;
mod publish;
mod refusal;

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use futures_util::{Stream, stream};
use gantry::server::{DescriptorError, Router};
use gantry_api::broker::v1::{
    self, ConsumeRequest, ConsumeResponse, DeclareGroupRequest, DeclareGroupResponse,
    ListDeadLettersRequest, ListDeadLettersResponse, ListGroupsRequest, ListGroupsResponse,
    PublishRequest, PublishResponse, RemoveGroupRequest, RemoveGroupResponse,
    SettleDeadLetterRequest, SettleDeadLetterResponse, TailRequest, TailResponse,
    broker_service_server::{BrokerService, BrokerServiceServer},
    settle_dead_letter_request,
};
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status, Streaming};

use super::{
    engine::{ConsumerId, Engine},
    owner::{Asker, Departures, State},
    tail::Reader,
};
use crate::ask::Stopped;
use refusal::stopped;

/// A stream of answers.
type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Bytes of dead letters in one answer, roughly; what is beyond is for the next page.
const PAGE_BYTES: usize = 2 * 1024 * 1024;

/// What the methods share.
#[derive(Debug)]
struct Shared {
    asker: Asker,
    departures: Departures,
    message_max: usize,
    last_consumer: AtomicU64,
    /// For bytes of messages in line.
    line: Arc<Semaphore>,
}

/// The service over the owner.
#[derive(Debug, Clone)]
struct Face(Arc<Shared>);

impl Face {
    /// Asks the owner; a stopped one is a status.
    async fn ask<T, F>(&self, work: F) -> Result<T, Status>
    where
        T: Send + 'static,
        F: FnOnce(&mut State) -> T + Send + 'static,
    {
        let answer = self.0.asker.ask(work).await;
        answer.map_err(|Stopped| stopped())
    }

    fn consumer_id(&self) -> ConsumerId {
        self.0.last_consumer.fetch_add(1, Ordering::Relaxed)
    }
}

/// The service; a message has `message_max` bytes at most.
pub(super) fn router(
    asker: Asker,
    departures: Departures,
    message_max: usize,
) -> Result<Router, DescriptorError> {
    let face = Face(Arc::new(Shared {
        asker,
        departures,
        message_max,
        last_consumer: AtomicU64::new(1),
        line: Arc::new(Semaphore::new(publish::LINE_BYTES_MAX)),
    }));
    Router::new().add_plain(BrokerServiceServer::new(face), v1::DESCRIPTORS)
}

#[tonic::async_trait]
impl BrokerService for Face {
    async fn declare_group(
        &self,
        request: Request<DeclareGroupRequest>,
    ) -> Result<Response<DeclareGroupResponse>, Status> {
        let request = request.into_inner();
        checks::declare(&request)?;
        let narrow = request.narrow;
        let (name, declared) = convert::declaration(request)?;
        let declare = if narrow {
            Engine::narrow
        } else {
            Engine::declare
        };
        let declared = self
            .ask(move |state| declare(&mut state.engine, &name, declared))
            .await?;
        declared.map_err(refusal::of)?;
        Ok(Response::new(DeclareGroupResponse {}))
    }

    type PublishStream = Answers<PublishResponse>;

    async fn publish(
        &self,
        request: Request<Streaming<PublishRequest>>,
    ) -> Result<Response<Self::PublishStream>, Status> {
        let answers = publish::answers(request.into_inner(), self.clone());
        Ok(Response::new(answers))
    }

    type ConsumeStream = Answers<ConsumeResponse>;

    async fn consume(
        &self,
        request: Request<Streaming<ConsumeRequest>>,
    ) -> Result<Response<Self::ConsumeStream>, Status> {
        let answers = consume::answers(request.into_inner(), self).await?;
        Ok(Response::new(answers))
    }

    async fn list_groups(
        &self,
        request: Request<ListGroupsRequest>,
    ) -> Result<Response<ListGroupsResponse>, Status> {
        let name = Some(request.into_inner().group).filter(|name| !name.is_empty());
        let listed = self
            .ask(move |state| state.engine.groups(name.as_deref()))
            .await?;
        Ok(Response::new(ListGroupsResponse {
            groups: listed.into_iter().map(convert::group).collect(),
        }))
    }

    async fn remove_group(
        &self,
        request: Request<RemoveGroupRequest>,
    ) -> Result<Response<RemoveGroupResponse>, Status> {
        let name = request.into_inner().group;
        self.ask(move |state| state.engine.remove(&name)).await?;
        Ok(Response::new(RemoveGroupResponse {}))
    }

    async fn list_dead_letters(
        &self,
        request: Request<ListDeadLettersRequest>,
    ) -> Result<Response<ListDeadLettersResponse>, Status> {
        let request = request.into_inner();
        let count_max = checks::page(request.count_max)?;
        let page = self
            .ask(move |state| {
                let all = state.engine.dead_letters(&request.group, request.after)?;
                let mut bytes = 0;
                let page = all.take(count_max).take_while(|(_, dead)| {
                    let first = bytes == 0;
                    bytes += dead.message.size();
                    first || bytes <= PAGE_BYTES
                });
                let page = page.map(|(place, dead)| (place, dead.clone()));
                Ok(page.collect::<Vec<_>>())
            })
            .await?;
        let page = page.map_err(refusal::of)?.into_iter();
        let page = page.map(|(place, dead)| convert::dead_letter(place, &dead));
        Ok(Response::new(ListDeadLettersResponse {
            dead_letters: page.collect(),
        }))
    }

    async fn settle_dead_letter(
        &self,
        request: Request<SettleDeadLetterRequest>,
    ) -> Result<Response<SettleDeadLetterResponse>, Status> {
        let SettleDeadLetterRequest { group, place, how } = request.into_inner();
        let headers = match how {
            Some(settle_dead_letter_request::How::Redrive(redrive)) => {
                Some(checks::headers_of_letter(redrive.headers)?)
            }
            Some(settle_dead_letter_request::How::Drop(_)) => None,
            None => return Err(refusal::invalid("how: expected redrive or drop")),
        };
        let settled = self
            .ask(move |state| state.engine.settle_dead(&group, place, headers))
            .await?;
        settled.map_err(refusal::of)?;
        Ok(Response::new(SettleDeadLetterResponse {}))
    }

    type TailStream = Answers<TailResponse>;

    async fn tail(
        &self,
        request: Request<TailRequest>,
    ) -> Result<Response<Self::TailStream>, Status> {
        let topics = request.into_inner().topics;
        checks::topics(&topics)?;
        let (reader, shown) = Reader::new(topics.into_iter().collect());
        if !self.ask(move |state| state.read_along(reader)).await? {
            return Err(refusal::exhausted("as many read along as may"));
        }
        let answers = stream::unfold(Some(shown), async |shown| {
            let mut shown = shown?;
            match shown.recv().await {
                Some(one) => Some((Ok(convert::shown(&one)), Some(shown))),
                None => Some((Err(stopped()), None)),
            }
        });
        Ok(Response::new(Box::pin(answers)))
    }
}
