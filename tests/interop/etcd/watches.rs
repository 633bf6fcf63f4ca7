//! Streams of watches, as cases use them.

use std::collections::BTreeMap;

use etcd_client::proto::{PbEvent, PbWatchRequest, PbWatchRequestUnion, PbWatchResponse};
use prost::Message;

use super::{
    answer::{key_value, relative, revision},
    wire::{Duplex, Wire},
    words::Words,
};

/// What the crate with the generated code does not export.
#[derive(Clone, PartialEq, Message)]
struct Create {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    range_end: Vec<u8>,
    #[prost(int64, tag = "3")]
    start_revision: i64,
    #[prost(bool, tag = "4")]
    progress_notify: bool,
    #[prost(int32, repeated, tag = "5")]
    filters: Vec<i32>,
    #[prost(bool, tag = "6")]
    prev_kv: bool,
    #[prost(int64, tag = "7")]
    watch_id: i64,
    #[prost(bool, tag = "8")]
    fragment: bool,
}

/// One stream.
#[derive(Debug)]
pub(super) struct Stream(Duplex<PbWatchRequest, PbWatchResponse>);

/// All streams of a case, by the names it gives them.
#[derive(Debug, Default)]
pub(super) struct Streams(BTreeMap<String, Stream>);

impl Streams {
    pub(super) fn get(&mut self, name: &str) -> &mut Stream {
        let stream = self.0.get_mut(name);
        stream.unwrap_or_else(|| panic!("no stream {name}"))
    }

    /// `watch STREAM KEYS ...`: on a stream that is there, or on a new one.
    pub(super) async fn watch(&mut self, wire: &Wire, line: &str, base: i64) -> Vec<String> {
        let (name, request) = create(line, base);
        if let Some(stream) = self.0.get_mut(&name) {
            stream.0.send(request).await;
        } else {
            let opened = wire.open("Watch/Watch", request).await;
            let stream = opened.expect("a stream opens");
            self.0.insert(name.clone(), Stream(stream));
        }
        self.get(&name).next(base).await
    }
}

impl Stream {
    pub(super) async fn cancel(&mut self, id: i64) {
        // A cancellation has the id and nothing else.
        let union = WatchRequest {
            cancel: Some(Id { id }),
            ..WatchRequest::default()
        };
        self.0.send(union.into()).await;
    }

    pub(super) async fn ask_progress(&mut self) {
        let union = WatchRequest {
            progress: Some(Nothing {}),
            ..WatchRequest::default()
        };
        self.0.send(union.into()).await;
    }

    /// The next answer.
    pub(super) async fn next(&mut self, base: i64) -> Vec<String> {
        match self.0.next().await {
            None => vec!["nothing".to_owned()],
            Some(Err(status)) => vec![super::answer::refused(&status)],
            Some(Ok(response)) => answered(&response, base),
        }
    }

    /// What comes until there are `count` events, by watch: nothing is promised of the order of
    /// watches, or of how many events come at once.
    pub(super) async fn events(&mut self, count: usize, base: i64) -> Vec<String> {
        let mut lines: BTreeMap<i64, Vec<String>> = BTreeMap::new();
        let mut left = count;
        let mut fragments = false;
        while left > 0 {
            let Some(Ok(response)) = self.0.next().await else {
                let missing = format!("{left} events missing");
                lines.entry(i64::MAX).or_default().push(missing);
                break;
            };
            left = left.saturating_sub(response.events.len());
            fragments |= response.fragment;
            let told = lines.entry(response.watch_id).or_default();
            if response.events.is_empty() {
                told.extend(answered(&response, base));
            }
            told.extend(response.events.iter().map(|it| event(&response, it, base)));
        }
        let note = fragments.then(|| "in fragments".to_owned());
        lines.into_values().flatten().chain(note).collect()
    }
}

fn create(line: &str, base: i64) -> (String, PbWatchRequest) {
    let mut words = Words::new(line, 3, base);
    words.next();
    let name = words.next().to_owned();
    let (key, range_end) = words.keys();
    let mut filters = Vec::new();
    if words.flag("no_put") {
        filters.push(0);
    }
    if words.flag("no_delete") {
        filters.push(1);
    }
    let create = Create {
        key,
        range_end,
        start_revision: words.named("from"),
        progress_notify: words.flag("progress_notify"),
        filters,
        prev_kv: words.flag("prev_kv"),
        watch_id: words.named("id"),
        fragment: words.flag("fragment"),
    };
    words.end();
    let request = WatchRequest {
        create: Some(create),
        ..WatchRequest::default()
    };
    (name, request.into())
}

#[derive(Clone, PartialEq, Message)]
struct Id {
    #[prost(int64, tag = "1")]
    id: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Nothing {}

#[derive(Clone, PartialEq, Message)]
struct WatchRequest {
    #[prost(message, optional, tag = "1")]
    create: Option<Create>,
    #[prost(message, optional, tag = "2")]
    cancel: Option<Id>,
    #[prost(message, optional, tag = "3")]
    progress: Option<Nothing>,
}

impl From<WatchRequest> for PbWatchRequest {
    fn from(request: WatchRequest) -> Self {
        let request = Self::decode(request.encode_to_vec().as_slice());
        let request = request.expect("the same message");
        let union: &Option<PbWatchRequestUnion> = &request.request_union;
        assert!(union.is_some(), "an empty request");
        request
    }
}

fn answered(response: &PbWatchResponse, base: i64) -> Vec<String> {
    let id = response.watch_id;
    let mut said = vec![format!("watch {id}")];
    if response.created {
        said.push("created".to_owned());
    }
    if response.canceled {
        said.push("cancelled".to_owned());
    }
    if response.compact_revision != 0 {
        let compacted = relative(response.compact_revision, base);
        said.push(format!("compacted {compacted}"));
    }
    if !response.cancel_reason.is_empty() {
        said.push(format!("because {}", response.cancel_reason));
    }
    said.push(revision(response.header.as_ref(), base));
    let mut lines = vec![said.join(" ")];
    let events = response.events.iter();
    lines.extend(events.map(|it| event(response, it, base)));
    lines
}

fn event(response: &PbWatchResponse, event: &PbEvent, base: i64) -> String {
    let kv = event.kv.as_ref().expect("every event has a key");
    let header = response.header.as_ref().expect("every answer has a header");
    let kind = ["put", "delete"][usize::from(event.r#type == 1)];
    let mut said = format!("watch {} {kind} {}", response.watch_id, key_value(kv, base));
    if let Some(previous) = &event.prev_kv {
        said.push_str(" before ");
        said.push_str(&key_value(previous, base));
    }
    if header.revision < kv.mod_revision {
        said.push_str(" header behind the event");
    }
    said
}
