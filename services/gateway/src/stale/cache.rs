//! Answers by what was asked, within bounds of their number and their bytes.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use bytes::{Bytes, BytesMut};
use gantry::config::Size;
use http::{HeaderMap, HeaderValue, Response};
use http_body::Frame;
use ring::digest::{self, SHA256};
use tokio::time::Instant;
use tonic::body::Body;

use super::taken::Taken;
use crate::config::StaleCache;

/// What an answer takes beside its bytes: its key, its place, and what allocations round up.
const OVERHEAD: usize = 256;

/// What says how a call goes, and not what it asks: calls that differ in nothing else are answered alike.
const NOT_ASKED: [&str; 9] = [
    "date",
    "gantry-criticality",
    "grpc-previous-rpc-attempts",
    "grpc-timeout",
    "te",
    "traceparent",
    "tracestate",
    "user-agent",
    "x-request-id",
];

/// What was asked, and by whom: nobody is given an answer that was another's.
///
/// The method, the message, and all metadata that a service may answer by: the token that says who
/// calls above all, and how the answer may be compressed. SHA-256 of all of it, so that two keys are the same for
/// the same question alone, and that no token is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key([u8; 32]);

impl Key {
    /// Of a call of `method` with these `headers` and this `message`, which is whole.
    pub(super) fn of(method: &str, headers: &HeaderMap, message: &Taken) -> Self {
        let asked = headers.iter();
        let asked = asked.map(|(name, value)| (name.as_str(), value.as_bytes()));
        let mut asked: Vec<_> = asked
            .filter(|(name, _)| !NOT_ASKED.contains(name))
            .collect();
        // Values of one name stay in their order.
        asked.sort_by_key(|(name, _)| *name);
        let mut digest = digest::Context::new(&SHA256);
        // Each with its length: no two questions read the same.
        let mut part = |part: &[u8]| {
            digest.update(&(part.len() as u64).to_le_bytes());
            digest.update(part);
        };
        part(method.as_bytes());
        part(&(asked.len() as u64).to_le_bytes());
        for (name, value) in asked {
            part(name.as_bytes());
            part(value);
        }
        for piece in message.data() {
            digest.update(piece);
        }
        let mut key = [0; 32];
        key.copy_from_slice(digest.finish().as_ref());
        Self(key)
    }
}

/// An answer as it was got.
#[derive(Debug)]
pub(super) struct Answer {
    head: HeaderMap,
    message: Bytes,
    trailers: HeaderMap,
    got: Instant,
}

impl Answer {
    /// That of a call that ended well just now, whole.
    pub(super) fn new(head: &HeaderMap, taken: &Taken) -> Self {
        let mut message = BytesMut::with_capacity(taken.bytes());
        taken
            .data()
            .for_each(|piece| message.extend_from_slice(piece));
        Self {
            head: copied(head),
            message: message.freeze(),
            trailers: taken.trailers().map(copied).unwrap_or_default(),
            got: Instant::now(),
        }
    }

    /// When it was got.
    pub(super) fn got(&self) -> Instant {
        self.got
    }

    /// The same once more.
    pub(super) fn response(&self) -> Response<Body> {
        let data = Frame::data(self.message.clone());
        let trailers = Frame::trailers(self.trailers.clone());
        let mut response = Response::new(Body::new(Taken::whole([data, trailers])));
        *response.headers_mut() = self.head.clone();
        response
    }

    fn bytes(&self) -> usize {
        let headers = [&self.head, &self.trailers];
        let headers = headers.into_iter().flatten();
        let headers = headers.map(|(name, value)| name.as_str().len() + value.len());
        OVERHEAD + self.message.len() + headers.sum::<usize>()
    }
}

/// The same headers, none of which keeps a whole frame of a connection.
fn copied(headers: &HeaderMap) -> HeaderMap {
    let each = headers.iter().filter_map(|(name, value)| {
        let value = HeaderValue::from_bytes(value.as_bytes()).ok()?;
        Some((name.clone(), value))
    });
    each.collect()
}

/// How much is kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) entries: usize,
    pub(super) bytes: usize,
    pub(super) entry_bytes: usize,
}

impl Bounds {
    pub(super) fn of(config: &StaleCache) -> Self {
        Self {
            entries: config.entries_max,
            bytes: config.bytes_max.as_usize(),
            entry_bytes: Size::as_usize(config.entry_bytes_max),
        }
    }
}

/// The answers.
#[derive(Debug, Default)]
pub(super) struct Cache {
    answers: HashMap<Key, Kept>,
    /// Those that were not used for the longest time first.
    order: BTreeMap<u64, Key>,
    next: u64,
    bytes: usize,
}

#[derive(Debug)]
struct Kept {
    answer: Arc<Answer>,
    /// From when on nobody may be given it.
    over: Instant,
    bytes: usize,
    place: u64,
}

impl Cache {
    /// Answers that are kept.
    pub(super) fn entries(&self) -> usize {
        self.answers.len()
    }

    /// Bytes that they have.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Keeps `answer` until it is `over`, in place of the one before, as far as `bounds` have room for
    /// it.
    pub(super) fn put(&mut self, key: Key, answer: Answer, over: Instant, bounds: Bounds) {
        self.remove(&key);
        let bytes = answer.bytes();
        if bytes > bounds.entry_bytes.min(bounds.bytes) {
            return;
        }
        let kept = Kept {
            answer: Arc::new(answer),
            over,
            bytes,
            place: self.next,
        };
        self.order.insert(self.next, key);
        self.next += 1;
        self.bytes += bytes;
        self.answers.insert(key, kept);
        self.bound(bounds);
    }

    /// The answer to `key`, which counts as used.
    pub(super) fn find(&mut self, key: &Key) -> Option<Arc<Answer>> {
        let kept = self.answers.get_mut(key)?;
        self.order.remove(&kept.place);
        kept.place = self.next;
        self.order.insert(self.next, *key);
        self.next += 1;
        Some(Arc::clone(&kept.answer))
    }

    /// Lets go of the answer to `key`.
    pub(super) fn remove(&mut self, key: &Key) {
        if let Some(kept) = self.answers.remove(key) {
            self.order.remove(&kept.place);
            self.bytes -= kept.bytes;
        }
    }

    /// Lets go of what is over `now`, and of what `bounds` have no room for.
    pub(super) fn tidy(&mut self, now: Instant, bounds: Bounds) {
        let over = self.answers.iter();
        let over = over.filter(|(_, kept)| kept.over <= now || kept.bytes > bounds.entry_bytes);
        let over: Vec<_> = over.map(|(key, _)| *key).collect();
        for key in over {
            self.remove(&key);
        }
        self.bound(bounds);
    }

    fn bound(&mut self, bounds: Bounds) {
        while self.answers.len() > bounds.entries || self.bytes > bounds.bytes {
            let Some((_, oldest)) = self.order.pop_first() else {
                return;
            };
            self.remove(&oldest);
        }
    }
}
