//! Requests as cases write them, and their answers.

use etcd_client::proto::{
    PbCompactionRequest, PbCompactionResponse, PbDeleteRequest, PbDeleteResponse,
    PbLeaseGrantRequest, PbLeaseGrantResponse, PbLeaseKeepAliveRequest, PbLeaseKeepAliveResponse,
    PbLeaseLeasesRequest, PbLeaseLeasesResponse, PbLeaseRevokeRequest, PbLeaseRevokeResponse,
    PbLeaseTimeToLiveRequest, PbLeaseTimeToLiveResponse, PbMemberListRequest, PbMemberListResponse,
    PbPutRequest, PbPutResponse, PbRangeRequest, PbRangeResponse, PbStatusRequest,
    PbStatusResponse, PbTxnRequest, PbTxnResponse,
};
use prost::Message;

use super::{
    answer::{Answer, refused},
    txn::txn,
    watches::Streams,
    wire::Wire,
    words::Words,
};

/// One case on one server.
pub(super) struct Session {
    wire: Wire,
    /// The revision at which the case began.
    base: i64,
    streams: Streams,
}

impl Session {
    /// Empties the server, and begins a case.
    pub(super) async fn begin(wire: &Wire) -> Self {
        let all = PbDeleteRequest {
            key: vec![0],
            range_end: vec![0],
            prev_kv: false,
        };
        let leases: PbLeaseLeasesResponse = wire
            .ask("Lease/LeaseLeases", PbLeaseLeasesRequest::default())
            .await
            .expect("leases");
        for lease in leases.leases {
            let revoke = PbLeaseRevokeRequest { id: lease.id };
            // It may have ended by itself.
            let _: Result<PbLeaseRevokeResponse, _> = wire.ask("Lease/LeaseRevoke", revoke).await;
        }
        let deleted: PbDeleteResponse = wire.ask("KV/DeleteRange", all).await.expect("deleted");
        Self {
            wire: wire.clone(),
            base: deleted.header.map_or(0, |header| header.revision),
            streams: Streams::default(),
        }
    }

    /// Makes a request; says what was answered.
    pub(super) async fn run(&mut self, request: &[String]) -> Vec<String> {
        let (line, nested) = request.split_first().expect("a request has a line");
        let base = self.base;
        let line = line.as_str();
        match line.split_whitespace().next().expect("a word") {
            "range" => {
                self.ask::<_, PbRangeResponse>("KV/Range", range(line, base))
                    .await
            }
            "put" => {
                self.ask::<_, PbPutResponse>("KV/Put", put(line, base))
                    .await
            }
            "delete" => {
                self.ask::<_, PbDeleteResponse>("KV/DeleteRange", delete(line, base))
                    .await
            }
            "txn" => {
                let request: PbTxnRequest = txn(nested, base);
                self.ask::<_, PbTxnResponse>("KV/Txn", request).await
            }
            "compact" => {
                let mut words = words(line, 2, base);
                let request = PbCompactionRequest {
                    revision: words.number(),
                    physical: words.flag("physical"),
                };
                words.end();
                self.ask::<_, PbCompactionResponse>("KV/Compact", request)
                    .await
            }
            "status" => {
                let request = PbStatusRequest {};
                self.ask::<_, PbStatusResponse>("Maintenance/Status", request)
                    .await
            }
            "members" => {
                let request = PbMemberListRequest::default();
                self.ask::<_, PbMemberListResponse>("Cluster/MemberList", request)
                    .await
            }
            "grant" | "revoke" | "keepalive" | "ttl" | "leases" => self.lease(line).await,
            _ => self.watch(line).await,
        }
    }

    async fn lease(&mut self, line: &str) -> Vec<String> {
        let (word, _) = line.split_once(' ').unwrap_or((line, ""));
        let mut words = words(line, 3, self.base);
        match word {
            "grant" => {
                let id = words.number();
                let request = PbLeaseGrantRequest {
                    id,
                    ttl: words.number(),
                };
                self.ask::<_, PbLeaseGrantResponse>("Lease/LeaseGrant", request)
                    .await
            }
            "revoke" => {
                let request = PbLeaseRevokeRequest { id: words.number() };
                self.ask::<_, PbLeaseRevokeResponse>("Lease/LeaseRevoke", request)
                    .await
            }
            "ttl" => {
                let id = words.number();
                let request = PbLeaseTimeToLiveRequest {
                    id,
                    keys: line.ends_with(" keys"),
                };
                self.ask::<_, PbLeaseTimeToLiveResponse>("Lease/LeaseTimeToLive", request)
                    .await
            }
            "leases" => {
                let request = PbLeaseLeasesRequest::default();
                self.ask::<_, PbLeaseLeasesResponse>("Lease/LeaseLeases", request)
                    .await
            }
            _ => {
                let request = PbLeaseKeepAliveRequest { id: words.number() };
                self.keep_alive(request).await
            }
        }
    }

    async fn keep_alive(&self, request: PbLeaseKeepAliveRequest) -> Vec<String> {
        let opened = self.wire.open("Lease/LeaseKeepAlive", request).await;
        let mut stream = match opened {
            Ok(stream) => stream,
            Err(status) => return vec![refused(&status)],
        };
        let answered: Option<Result<PbLeaseKeepAliveResponse, _>> = stream.next().await;
        match answered {
            Some(answered) => self.lines(answered),
            None => vec!["nothing".to_owned()],
        }
    }

    async fn watch(&mut self, line: &str) -> Vec<String> {
        let base = self.base;
        let (word, _) = line.split_once(' ').unwrap_or((line, ""));
        if word == "watch" {
            return self.streams.watch(&self.wire, line, base).await;
        }
        let mut words = words(line, 3, base);
        let stream = self.streams.get(words.next());
        match word {
            "cancel" => {
                stream.cancel(words.number()).await;
                stream.next(base).await
            }
            // Without waiting for an answer: there may be none.
            "uncreate" => {
                stream.cancel(words.number()).await;
                Vec::new()
            }
            "progress" => {
                stream.ask_progress().await;
                stream.next(base).await
            }
            "next" => stream.next(base).await,
            "events" => {
                let count = usize::try_from(words.number()).expect("a number of events");
                stream.events(count, base).await
            }
            _ => panic!("not understood: {line}"),
        }
    }

    async fn ask<A, B>(&self, method: &str, request: A) -> Vec<String>
    where
        A: Message + 'static,
        B: Message + Answer + Default + 'static,
    {
        self.lines(self.wire.ask::<A, B>(method, request).await)
    }

    fn lines(&self, answered: Result<impl Answer, tonic::Status>) -> Vec<String> {
        match answered {
            Ok(answer) => answer.lines(self.base),
            Err(status) => vec![refused(&status)],
        }
    }
}

/// The words of a line after the first, which says what is asked.
fn words(line: &str, count: usize, base: i64) -> Words<'_> {
    let mut words = Words::new(line, count, base);
    words.next();
    words
}

pub(super) fn range(line: &str, base: i64) -> PbRangeRequest {
    let mut words = words(line, 2, base);
    let (key, range_end) = words.keys();
    let place = |names: &[&str], name: Option<&str>| {
        let Some(name) = name else { return 0 };
        let place = names.iter().position(|it| *it == name);
        place.map_or_else(
            || name.parse().expect("a number"),
            |it| i32::try_from(it).expect("a small number"),
        )
    };
    let request = PbRangeRequest {
        key,
        range_end,
        limit: words.named("limit"),
        revision: words.named("revision"),
        sort_order: place(&["none", "ascend", "descend"], words.option("order")),
        sort_target: place(
            &["key", "version", "create", "mod", "value"],
            words.option("by"),
        ),
        serializable: words.flag("serializable"),
        keys_only: words.flag("keys_only"),
        count_only: words.flag("count_only"),
        min_mod_revision: words.named("min_mod"),
        max_mod_revision: words.named("max_mod"),
        min_create_revision: words.named("min_create"),
        max_create_revision: words.named("max_create"),
    };
    words.end();
    request
}

pub(super) fn put(line: &str, base: i64) -> PbPutRequest {
    let mut words = words(line, 3, base);
    let request = PbPutRequest {
        key: words.bytes(),
        value: words.bytes(),
        lease: words.named("lease"),
        prev_kv: words.flag("prev_kv"),
        ignore_value: words.flag("ignore_value"),
        ignore_lease: words.flag("ignore_lease"),
    };
    words.end();
    request
}

pub(super) fn delete(line: &str, base: i64) -> PbDeleteRequest {
    let mut words = words(line, 2, base);
    let (key, range_end) = words.keys();
    let request = PbDeleteRequest {
        key,
        range_end,
        prev_kv: words.flag("prev_kv"),
    };
    words.end();
    request
}
