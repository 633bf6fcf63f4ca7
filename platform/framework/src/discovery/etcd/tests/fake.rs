//! An etcd in this process: keys, leases and watches as far as they are asked for here, and every
//! fault a test wants of them. Requests reach it without a network, so that a paused clock counts
//! nothing but what is waited for.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    convert::Infallible,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use etcd_client::proto::{
    PbEvent, PbKeyValue, PbKvServer, PbLeaseServer, PbPutRequest, PbResponseHeader, PbTargetUnion,
    PbTxnOpRequest, PbTxnRequest, PbTxnResponse, PbWatchResponse, PbWatchServer,
};
use futures_util::Stream;
use http::Request;
use tokio::{
    sync::mpsc,
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, body::Body, service::Routes};
use tower::ServiceExt as _;

use super::TIMEOUT;
use crate::discovery::etcd::Etcd;

mod services;

/// Messages one watch may be behind; a test that tells more than that is wrong.
const MESSAGES_MAX: usize = 4_096;

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Range,
    Txn,
    Grant,
    Revoke,
    /// One message of a stream.
    KeepAlive,
    /// The whole stream, as long as it is open.
    KeepAliveStream,
    /// The whole stream, as long as it is open.
    WatchStream,
    Progress,
}

/// A key with its value and lease; without, where it goes.
type Write = (Vec<u8>, Option<(Vec<u8>, i64)>);

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// An etcd; clones are the same one.
#[derive(Debug, Clone)]
pub(super) struct Fake {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    cluster: u64,
    revision: i64,
    compacted: i64,
    keys: BTreeMap<Vec<u8>, PbKeyValue>,
    history: Vec<PbEvent>,
    /// Each lease's time to live in seconds, and when it ends.
    leases: BTreeMap<i64, (i64, Instant)>,
    watches: Vec<Watch>,
    /// Cancelled when this one is gone, and another takes its place.
    life: CancellationToken,
    asked: HashMap<Kind, usize>,
    under_way: HashMap<Kind, usize>,
    under_way_most: HashMap<Kind, usize>,
    faults: Faults,
}

/// What is wrong with it.
#[derive(Debug, Default)]
pub(super) struct Faults {
    /// Before anything is done and answered.
    pub(super) delay: Duration,
    /// Watches say nothing, whatever happens and whatever they are asked.
    pub(super) silent: bool,
    /// What is done, and never answered.
    pub(super) unanswered: HashSet<Kind>,
    /// Nobody may write.
    pub(super) read_only: bool,
    /// Two more changes come, and all is compacted, just before the next watch begins.
    pub(super) compacts_before_watch: bool,
    /// Keepalives are answered as if no lease was there; so many more times.
    pub(super) leases_denied: usize,
}

#[derive(Debug)]
struct Watch {
    /// Key, end of the range, and whether puts are told.
    ranges: Vec<(Vec<u8>, Vec<u8>, bool)>,
    messages: mpsc::Sender<PbWatchResponse>,
}

/// Counts one request as long as it is under way.
struct UnderWay {
    fake: Fake,
    kind: Kind,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if let Some(count) = self.fake.state().under_way.get_mut(&self.kind) {
            *count -= 1;
        }
    }
}

impl Fake {
    pub(super) fn new() -> Self {
        let state = State {
            cluster: 1,
            // Far from zero, as an etcd that ran for a while.
            revision: 100,
            compacted: 0,
            keys: BTreeMap::new(),
            history: Vec::new(),
            leases: BTreeMap::new(),
            watches: Vec::new(),
            life: CancellationToken::new(),
            asked: HashMap::new(),
            under_way: HashMap::new(),
            under_way_most: HashMap::new(),
            faults: Faults::default(),
        };
        Self {
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// The framework's way to it.
    pub(super) fn etcd(&self) -> Etcd {
        let services = Routes::new(PbKvServer::new(self.clone()))
            .add_service(PbLeaseServer::new(self.clone()))
            .add_service(PbWatchServer::new(self.clone()))
            .prepare()
            .map_request(|request: Request<Body>| request)
            .map_err(|never: Infallible| match never {});
        Etcd::new(services, None, TIMEOUT)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Changes what is wrong with it.
    pub(super) fn faults(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.state().faults);
    }

    /// How often something was asked.
    pub(super) fn asked(&self, kind: Kind) -> usize {
        self.state().asked.get(&kind).copied().unwrap_or(0)
    }

    /// The most requests of each kind that ever were under way at once.
    pub(super) fn under_way_most(&self) -> HashMap<Kind, usize> {
        self.state().under_way_most.clone()
    }

    pub(super) fn revision(&self) -> i64 {
        self.state().revision
    }

    /// The keys there are, each with its lease.
    pub(super) fn keys(&self) -> Vec<(String, i64)> {
        let state = self.state();
        let text = |key: &[u8]| String::from_utf8(key.to_vec()).unwrap();
        let keys = state.keys.values();
        keys.map(|kv| (text(&kv.key), kv.lease)).collect()
    }

    pub(super) fn leases(&self) -> Vec<i64> {
        self.state().leases.keys().copied().collect()
    }

    pub(super) fn put(&self, key: &str, value: &str) {
        self.state()
            .write(vec![(key.into(), Some((value.into(), 0)))]);
    }

    pub(super) fn delete(&self, key: &str) {
        self.state().write(vec![(key.into(), None)]);
    }

    pub(super) fn revoke(&self, lease: i64) {
        self.state().revoke(lease);
    }

    /// Forgets its history, and says so to every watch.
    pub(super) fn compact(&self) {
        let mut state = self.state();
        state.compacted = state.revision;
        let cancelled = PbWatchResponse {
            canceled: true,
            compact_revision: state.compacted,
            ..state.message()
        };
        state.say(&cancelled);
    }

    /// Tells every watch of `events`, whatever really happened.
    pub(super) fn say(&self, events: Vec<PbEvent>) {
        self.say_in_fragments(vec![events]);
    }

    /// The same, in several messages that belong together.
    pub(super) fn say_in_fragments(&self, fragments: Vec<Vec<PbEvent>>) {
        let mut state = self.state();
        let last = fragments.len() - 1;
        for (number, events) in fragments.into_iter().enumerate() {
            let message = PbWatchResponse {
                events,
                fragment: number < last,
                ..state.message()
            };
            state.say(&message);
        }
    }

    /// Ends every stream, and begins anew with nothing.
    pub(super) fn restart_empty(&self) {
        let mut state = self.state();
        std::mem::take(&mut state.life).cancel();
        state.cluster += 1;
        state.revision = 1;
        state.compacted = 0;
        state.keys.clear();
        state.history.clear();
        state.leases.clear();
        state.watches.clear();
    }

    /// Counts a request, and lets it wait for its turn.
    async fn begin(&self, kind: Kind) -> UnderWay {
        let under_way = self.count(kind);
        let delay = self.state().faults.delay;
        time::sleep(delay).await;
        self.state().expire();
        under_way
    }

    fn count(&self, kind: Kind) -> UnderWay {
        let mut state = self.state();
        *state.asked.entry(kind).or_default() += 1;
        let count = state.under_way.entry(kind).or_default();
        *count += 1;
        let count = *count;
        let most = state.under_way_most.entry(kind).or_default();
        *most = count.max(*most);
        UnderWay {
            fake: self.clone(),
            kind,
        }
    }

    /// Keeps the answer to itself, where it is to.
    async fn end(&self, kind: Kind) {
        if self.state().faults.unanswered.contains(&kind) {
            std::future::pending::<()>().await;
        }
    }
}

/// An event as it is told of a key that was put.
pub(super) fn put_at(key: &str, value: &str, revision: i64) -> PbEvent {
    event(key.into(), Some((value.into(), 0)), revision)
}

fn event(key: Vec<u8>, value: Option<(Vec<u8>, i64)>, revision: i64) -> PbEvent {
    let put = value.is_some();
    let (value, lease) = value.unwrap_or_default();
    PbEvent {
        r#type: i32::from(!put),
        kv: Some(PbKeyValue {
            key,
            value,
            lease,
            mod_revision: revision,
            ..PbKeyValue::default()
        }),
        prev_kv: None,
    }
}

fn within(key: &[u8], from: &[u8], end: &[u8]) -> bool {
    if end.is_empty() {
        return key == from;
    }
    key >= from && (key < end || end == [0])
}

impl State {
    fn header(&self) -> PbResponseHeader {
        PbResponseHeader {
            cluster_id: self.cluster,
            revision: self.revision,
            ..PbResponseHeader::default()
        }
    }

    fn message(&self) -> PbWatchResponse {
        PbWatchResponse {
            header: Some(self.header()),
            ..PbWatchResponse::default()
        }
    }

    /// Puts and deletes, all as one revision.
    fn write(&mut self, changes: Vec<Write>) {
        self.revision += 1;
        let mut events = Vec::new();
        for (key, value) in changes {
            let event = event(key.clone(), value, self.revision);
            if event.r#type == 0 {
                self.keys.extend(event.kv.clone().map(|kv| (key, kv)));
            } else if self.keys.remove(&key).is_none() {
                continue;
            }
            events.push(event);
        }
        self.history.extend(events.iter().cloned());
        let message = self.message();
        for watch in &self.watches {
            let events: Vec<_> = events
                .iter()
                .filter(|it| watch.wants(it))
                .cloned()
                .collect();
            if !events.is_empty() && !self.faults.silent {
                watch.send(PbWatchResponse {
                    events,
                    ..message.clone()
                });
            }
        }
    }

    fn say(&mut self, message: &PbWatchResponse) {
        for watch in &self.watches {
            watch.send(message.clone());
        }
    }

    fn revoke(&mut self, lease: i64) -> bool {
        let there = self.leases.remove(&lease).is_some();
        let keys = self.keys.iter().filter(|(_, kv)| kv.lease == lease);
        let gone: Vec<_> = keys.map(|(key, _)| (key.clone(), None)).collect();
        if !gone.is_empty() {
            self.write(gone);
        }
        there
    }

    /// Ends the leases whose time is over.
    fn expire(&mut self) {
        let now = Instant::now();
        let over = self.leases.iter().filter(|(_, (_, end))| *end <= now);
        let over: Vec<_> = over.map(|(id, _)| *id).collect();
        for lease in over {
            self.revoke(lease);
        }
    }

    fn grant(&mut self, id: i64, ttl: i64) -> Result<(), Status> {
        if self.leases.contains_key(&id) {
            let message = "etcdserver: lease already exists";
            return Err(Status::new(Code::FailedPrecondition, message));
        }
        let end = Instant::now() + Duration::from_secs(ttl.cast_unsigned());
        self.leases.insert(id, (ttl, end));
        Ok(())
    }

    /// The lease's time to live from now on; 0 where there is none.
    fn renew(&mut self, id: i64) -> i64 {
        if self.faults.leases_denied > 0 {
            self.faults.leases_denied -= 1;
            return 0;
        }
        match self.leases.get_mut(&id) {
            Some((ttl, end)) => {
                *end = Instant::now() + Duration::from_secs(ttl.cast_unsigned());
                *ttl
            }
            None => 0,
        }
    }

    /// What the framework asks for: compares of values and leases, and puts.
    fn txn(&mut self, request: PbTxnRequest) -> Result<PbTxnResponse, Status> {
        if self.faults.read_only {
            let message = "etcdserver: permission denied";
            return Err(Status::new(Code::PermissionDenied, message));
        }
        let succeeded = request.compare.into_iter().all(|compare| {
            let kv = self.keys.get(&compare.key);
            match compare.target_union {
                Some(PbTargetUnion::Value(value)) => kv.is_some_and(|kv| kv.value == value),
                Some(PbTargetUnion::Lease(lease)) => kv.is_some_and(|kv| kv.lease == lease),
                other => unreachable!("not asked for by anybody: {other:?}"),
            }
        });
        let operations = if succeeded {
            request.success
        } else {
            request.failure
        };
        let mut changes = Vec::new();
        for operation in operations {
            let Some(PbTxnOpRequest::RequestPut(put)) = operation.request else {
                unreachable!("not asked for by anybody: {operation:?}");
            };
            let PbPutRequest {
                key, value, lease, ..
            } = put;
            if !self.leases.contains_key(&lease) {
                let message = "etcdserver: requested lease not found";
                return Err(Status::new(Code::NotFound, message));
            }
            changes.push((key, Some((value, lease))));
        }
        if !changes.is_empty() {
            self.write(changes);
        }
        Ok(PbTxnResponse {
            header: Some(self.header()),
            succeeded,
            responses: Vec::new(),
        })
    }
}

impl Watch {
    fn wants(&self, event: &PbEvent) -> bool {
        let kv = event.kv.as_ref().unwrap();
        self.ranges
            .iter()
            .any(|(from, end, puts)| (*puts || event.r#type != 0) && within(&kv.key, from, end))
    }

    fn send(&self, message: PbWatchResponse) {
        // One that is not read any more is only gone a moment later.
        let sent = self.messages.try_send(message);
        assert!(!matches!(sent, Err(mpsc::error::TrySendError::Full(_))));
    }
}
