//! The services of etcd that the framework calls.

use etcd_client::proto::{
    PbCompactionRequest, PbCompactionResponse, PbDeleteRequest, PbDeleteResponse, PbKvService,
    PbLeaseGrantRequest, PbLeaseGrantResponse, PbLeaseKeepAliveRequest, PbLeaseKeepAliveResponse,
    PbLeaseLeasesRequest, PbLeaseLeasesResponse, PbLeaseRevokeRequest, PbLeaseRevokeResponse,
    PbLeaseService, PbLeaseTimeToLiveRequest, PbLeaseTimeToLiveResponse, PbPutRequest,
    PbPutResponse, PbRangeRequest, PbRangeResponse, PbRangeStreamResponse, PbTxnRequest,
    PbTxnResponse, PbWatchRequest, PbWatchRequestUnion, PbWatchResponse, PbWatchService,
};
use futures_util::stream;
use tokio::sync::mpsc;
use tonic::{Code, Request, Response, Status, Streaming};

use super::{Answers, Fake, Kind, MESSAGES_MAX, State, UnderWay, Watch, within};

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl PbKvService for Fake {
    async fn range(&self, request: Request<PbRangeRequest>) -> Answer<PbRangeResponse> {
        let _under_way = self.begin(Kind::Range).await;
        let request = request.into_inner();
        let answer = {
            let state = self.state();
            let kvs = state.keys.values();
            let kvs: Vec<_> = kvs
                .filter(|kv| within(&kv.key, &request.key, &request.range_end))
                .collect();
            let limit = usize::try_from(request.limit).unwrap();
            PbRangeResponse {
                header: Some(state.header()),
                more: kvs.len() > limit,
                kvs: kvs.into_iter().take(limit).cloned().collect(),
                ..PbRangeResponse::default()
            }
        };
        self.end(Kind::Range).await;
        Ok(Response::new(answer))
    }

    async fn txn(&self, request: Request<PbTxnRequest>) -> Answer<PbTxnResponse> {
        let _under_way = self.begin(Kind::Txn).await;
        let answer = self.state().txn(request.into_inner());
        self.end(Kind::Txn).await;
        answer.map(Response::new)
    }

    type RangeStreamStream = stream::Empty<Result<PbRangeStreamResponse, Status>>;

    async fn range_stream(&self, _: Request<PbRangeRequest>) -> Answer<Self::RangeStreamStream> {
        unreachable!("nobody calls it")
    }

    async fn put(&self, _: Request<PbPutRequest>) -> Answer<PbPutResponse> {
        unreachable!("nobody calls it")
    }

    async fn delete_range(&self, _: Request<PbDeleteRequest>) -> Answer<PbDeleteResponse> {
        unreachable!("nobody calls it")
    }

    async fn compact(&self, _: Request<PbCompactionRequest>) -> Answer<PbCompactionResponse> {
        unreachable!("nobody calls it")
    }
}

#[tonic::async_trait]
impl PbLeaseService for Fake {
    async fn lease_grant(
        &self,
        request: Request<PbLeaseGrantRequest>,
    ) -> Answer<PbLeaseGrantResponse> {
        let _under_way = self.begin(Kind::Grant).await;
        let PbLeaseGrantRequest { id, ttl } = request.into_inner();
        self.state().grant(id, ttl)?;
        self.end(Kind::Grant).await;
        Ok(Response::new(PbLeaseGrantResponse {
            header: Some(self.state().header()),
            id,
            ttl,
            error: String::new(),
        }))
    }

    async fn lease_revoke(
        &self,
        request: Request<PbLeaseRevokeRequest>,
    ) -> Answer<PbLeaseRevokeResponse> {
        let _under_way = self.begin(Kind::Revoke).await;
        let there = self.state().revoke(request.into_inner().id);
        self.end(Kind::Revoke).await;
        if !there {
            let message = "etcdserver: requested lease not found";
            return Err(Status::new(Code::NotFound, message));
        }
        let header = Some(self.state().header());
        Ok(Response::new(PbLeaseRevokeResponse { header }))
    }

    type LeaseKeepAliveStream = Answers<PbLeaseKeepAliveResponse>;

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<PbLeaseKeepAliveRequest>>,
    ) -> Answer<Self::LeaseKeepAliveStream> {
        // etcd's headers come with the first answer, so only that takes its time.
        let stream = self.count(Kind::KeepAliveStream);
        let life = self.state().life.clone();
        let requests = (request.into_inner(), self.clone(), stream);
        let answers = stream::try_unfold(requests, move |(mut requests, fake, stream)| {
            let life = life.clone();
            async move {
                let request = life.run_until_cancelled(requests.message()).await;
                let Some(request) = request.ok_or_else(gone)?? else {
                    return Ok(None);
                };
                let answer = fake.kept_alive(request.id).await;
                Ok(Some((answer, (requests, fake, stream))))
            }
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn lease_time_to_live(
        &self,
        _: Request<PbLeaseTimeToLiveRequest>,
    ) -> Answer<PbLeaseTimeToLiveResponse> {
        unreachable!("nobody calls it")
    }

    async fn lease_leases(
        &self,
        _: Request<PbLeaseLeasesRequest>,
    ) -> Answer<PbLeaseLeasesResponse> {
        unreachable!("nobody calls it")
    }
}

#[tonic::async_trait]
impl PbWatchService for Fake {
    type WatchStream = Answers<PbWatchResponse>;

    async fn watch(
        &self,
        request: Request<Streaming<PbWatchRequest>>,
    ) -> Answer<Self::WatchStream> {
        let stream = self.begin(Kind::WatchStream).await;
        let (sender, messages) = mpsc::channel(MESSAGES_MAX);
        let life = {
            let mut state = self.state();
            state.watches.retain(|watch| !watch.messages.is_closed());
            state.watches.push(Watch {
                ranges: Vec::new(),
                messages: sender.clone(),
            });
            state.life.clone()
        };
        let watching = Watching {
            requests: request.into_inner(),
            messages,
            sender,
            fake: self.clone(),
            _stream: stream,
        };
        let answers = stream::try_unfold(watching, move |mut watching| {
            let life = life.clone();
            async move {
                let next = life.run_until_cancelled(watching.next()).await;
                let next = next.ok_or_else(gone)??;
                Ok(next.map(|message| (message, watching)))
            }
        });
        Ok(Response::new(Box::pin(answers)))
    }
}

fn gone() -> Status {
    Status::new(Code::Unavailable, "etcdserver: server stopped")
}

impl Fake {
    async fn kept_alive(&self, id: i64) -> PbLeaseKeepAliveResponse {
        let _under_way = self.begin(Kind::KeepAlive).await;
        let (ttl, header) = {
            let mut state = self.state();
            (state.renew(id), Some(state.header()))
        };
        self.end(Kind::KeepAlive).await;
        PbLeaseKeepAliveResponse { header, id, ttl }
    }
}

/// One stream of watches.
struct Watching {
    requests: Streaming<PbWatchRequest>,
    messages: mpsc::Receiver<PbWatchResponse>,
    sender: mpsc::Sender<PbWatchResponse>,
    fake: Fake,
    _stream: UnderWay,
}

impl Watching {
    /// The next message; none once the caller has gone.
    async fn next(&mut self) -> Result<Option<PbWatchResponse>, Status> {
        loop {
            tokio::select! {
                message = self.messages.recv() => return Ok(message),
                request = self.requests.message() => match request? {
                    Some(request) => self.take_in(request).await,
                    None => return Ok(None),
                },
            }
        }
    }

    async fn take_in(&self, request: PbWatchRequest) {
        match request.request_union {
            Some(PbWatchRequestUnion::CreateRequest(create)) => {
                let puts = create.filters.is_empty();
                let mut state = self.fake.state();
                if std::mem::take(&mut state.faults.compacts_before_watch) {
                    for key in ["orders/late-1", "orders/late-2"] {
                        state.write(vec![(key.into(), Some((b"late".to_vec(), 0)))]);
                    }
                    state.compacted = state.revision;
                }
                let from = create.start_revision;
                self.begin(&mut state, (create.key, create.range_end, puts), from);
            }
            Some(PbWatchRequestUnion::ProgressRequest(_)) => {
                let _under_way = self.fake.begin(Kind::Progress).await;
                let state = self.fake.state();
                let message = PbWatchResponse {
                    watch_id: -1,
                    ..state.message()
                };
                self.send(&state, message);
            }
            other => unreachable!("not asked for by anybody: {other:?}"),
        }
    }

    /// Begins a watch, with what happened since `from`.
    fn begin(&self, state: &mut State, range: (Vec<u8>, Vec<u8>, bool), from: i64) {
        let created = PbWatchResponse {
            created: true,
            ..state.message()
        };
        self.send(state, created);
        if from < state.compacted {
            let cancelled = PbWatchResponse {
                canceled: true,
                compact_revision: state.compacted,
                ..state.message()
            };
            return self.send(state, cancelled);
        }
        let watches = &mut state.watches;
        let ours = watches.iter_mut();
        let ours = ours.filter(|watch| watch.messages.same_channel(&self.sender));
        for watch in ours {
            watch.ranges.push(range.clone());
        }
        let alone = Watch {
            ranges: vec![range],
            messages: self.sender.clone(),
        };
        let missed = state.history.iter().filter(|event| {
            let revision = event.kv.as_ref().unwrap().mod_revision;
            revision >= from && alone.wants(event)
        });
        let events: Vec<_> = missed.cloned().collect();
        if !events.is_empty() {
            let message = PbWatchResponse {
                events,
                ..state.message()
            };
            self.send(state, message);
        }
    }

    fn send(&self, state: &State, message: PbWatchResponse) {
        if !state.faults.silent {
            // There is room, and the receiver is ours.
            drop(self.sender.try_send(message));
        }
    }
}
