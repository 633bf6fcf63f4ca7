//! Everything under one prefix: listed once, then watched for changes, for ever.
//!
//! A watch is only trusted while it proves to be alive: after some silence it is asked for its
//! progress, and one that does not answer is given up. Whatever ends a watch (a lost connection,
//! compaction, silence, a member without a leader), the next round lists again before it watches,
//! because a watch from a revision that a restarted etcd has not reached would wait in silence.

use std::{pin::pin, sync::Arc, time::Duration};

use etcd_client::{
    Client, EventType, GetOptions, KeyValue, ResponseHeader, WatchOptions, WatchStream,
};
use tokio::{
    sync::{Notify, mpsc},
    time::{self, Instant},
};

use super::{BACKOFF, Error, Etcd};
use crate::backoff::Backoff;

/// Silence after which a watch is asked for its progress.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// How long that answer may take.
const PROGRESS_MAX: Duration = Duration::from_secs(5);
/// Shortest time between two questions that hints cause.
const HINT_PAUSE: Duration = Duration::from_secs(5);
/// Entries asked for at once.
const PAGE: i64 = 1_000;
/// Entries of one prefix at most: far more than a name has, and a bound all the same.
pub(super) const ENTRIES_MAX: usize = 100_000;

/// A key and its value.
pub(super) type Pair = (Vec<u8>, Vec<u8>);

/// Where etcd is in its history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position {
    /// Which cluster it is.
    pub(super) cluster: u64,
    /// Its revision.
    pub(super) revision: i64,
}

impl From<&ResponseHeader> for Position {
    fn from(header: &ResponseHeader) -> Self {
        Self {
            cluster: header.cluster_id(),
            revision: header.revision(),
        }
    }
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    Put(Pair),
    Delete(Vec<u8>),
}

/// What a feed tells.
#[derive(Debug)]
pub(super) enum Update {
    /// All there is. Follows every interruption.
    List(Vec<Pair>, Position),
    /// What changed since, in order.
    Changes(Vec<Change>),
    /// It cannot be read at present; what was told last may be out of date.
    Failed(Error),
}

/// Reads one prefix.
#[derive(Debug)]
pub(super) struct Feed {
    pub(super) etcd: Etcd,
    pub(super) prefix: String,
    /// A hint that what is known may be wrong.
    pub(super) suspicion: Arc<Notify>,
}

/// Why a round is over.
enum Over {
    /// Something failed: pause, then again.
    Failed(Error),
    /// The history that was to be followed is no longer kept: again at once.
    Compacted,
    /// Nobody listens.
    Unheard,
}

impl From<Error> for Over {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl Feed {
    /// Tells `updates` until nobody listens. A listener that is slow slows etcd's stream down,
    /// within HTTP/2's windows; nothing queues here.
    pub(super) async fn run(self, updates: mpsc::Sender<Update>) {
        let mut backoff = Backoff::new(BACKOFF).expect("the bounds are valid");
        loop {
            let begun = Instant::now();
            let error = match self.round(&updates).await {
                Over::Unheard => return,
                Over::Compacted => continue,
                Over::Failed(error) => error,
            };
            if begun.elapsed() > BACKOFF.max {
                backoff.reset();
            }
            if updates.send(Update::Failed(error)).await.is_err() {
                return;
            }
            tokio::select! {
                () = time::sleep(backoff.next_pause()) => {}
                () = updates.closed() => return,
            }
        }
    }

    /// Lists and watches, until something ends it.
    async fn round(&self, updates: &mpsc::Sender<Update>) -> Over {
        let round = async {
            let mut client = self.etcd.client().await?;
            let (pairs, position) = self.list(&mut client).await?;
            tell(updates, Update::List(pairs, position)).await?;
            let options = WatchOptions::new()
                .with_prefix()
                .with_start_revision(position.revision + 1);
            let prefix = self.prefix.as_str();
            let watch = client.watch(prefix, Some(options));
            let stream = self.etcd.bounded("watch", watch).await?;
            self.follow(stream, position, updates).await
        };
        let over: Result<std::convert::Infallible, Over> = round.await;
        match over {
            Err(over) => over,
        }
    }

    /// Everything there is, page by page, all as of one revision.
    async fn list(&self, client: &mut Client) -> Result<(Vec<Pair>, Position), Error> {
        let end = end_of(self.prefix.as_bytes());
        let mut pairs = Vec::new();
        let mut key = start_of(&self.prefix);
        let mut position = None;
        loop {
            let mut options = GetOptions::new().with_range(end.clone()).with_limit(PAGE);
            if let Some(Position { revision, .. }) = position {
                options = options.with_revision(revision);
            }
            let answer = client.get(key.clone(), Some(options));
            let mut answer = self.etcd.bounded("list", answer).await?;
            if position.is_none() {
                position = answer.header().map(Into::into);
            }
            let more = answer.more();
            pairs.extend(answer.take_kvs().into_iter().map(KeyValue::into_key_value));
            match (position, pairs.last()) {
                (Some(position), _) if !more => return Ok((pairs, position)),
                (Some(_), Some((last, _))) if pairs.len() < ENTRIES_MAX => {
                    key = above(last);
                }
                _ => return Err(too_many("list", &self.prefix)),
            }
        }
    }

    /// Completes when there is a hint, after `pause` at the earliest; one that came before counts.
    async fn suspected(&self, pause: Instant) {
        time::sleep_until(pause).await;
        self.suspicion.notified().await;
    }

    async fn follow(
        &self,
        stream: WatchStream,
        from: Position,
        updates: &mpsc::Sender<Update>,
    ) -> Result<std::convert::Infallible, Over> {
        let (mut questions, mut answers) = stream.split();
        let mut seen = from.revision;
        let mut asked: Option<Instant> = None;
        let mut hint_after = Instant::now() + HINT_PAUSE;
        let silence = time::sleep(SILENCE_MAX);
        let mut silence = pin!(silence);
        loop {
            // Cancel-safe: a message is taken whole or not at all, a hint and a timer are levels.
            tokio::select! {
                biased;
                answer = answers.message() => {
                    let answer = answer.map_err(|error| super::refused("watch", &error))?;
                    let answer = answer.ok_or_else(ended)?;
                    if answer.canceled() {
                        return Err(cancelled(answer.compact_revision(), answer.cancel_reason()));
                    }
                    asked = None;
                    silence.as_mut().reset(Instant::now() + SILENCE_MAX);
                    let changes = changes(answer.events(), &mut seen);
                    if !changes.is_empty() {
                        tell(updates, Update::Changes(changes)).await?;
                    }
                }
                () = self.suspected(hint_after), if asked.is_none() => {
                    hint_after = Instant::now() + HINT_PAUSE;
                    silence.as_mut().reset(Instant::now());
                }
                () = &mut silence => {
                    if asked.is_some() {
                        return Err(silent().into());
                    }
                    asked = Some(Instant::now());
                    let question = questions.request_progress();
                    self.etcd.bounded("ask for progress", question).await?;
                    silence.as_mut().reset(Instant::now() + PROGRESS_MAX);
                }
                () = updates.closed() => return Err(Over::Unheard),
            }
        }
    }
}

async fn tell(updates: &mpsc::Sender<Update>, update: Update) -> Result<(), Over> {
    updates.send(update).await.map_err(|_| Over::Unheard)
}

/// The events that were not seen before, each once and in order.
fn changes<'a>(events: &'a [etcd_client::Event], seen: &mut i64) -> Vec<Change> {
    // A revision's events come together, so what is not above the last one was told before.
    let mut new: Vec<_> = events
        .iter()
        .filter_map(|event| Some((event.kv()?, event)))
        .filter(|(kv, _)| kv.mod_revision() > *seen)
        .collect();
    // No revision changes a key twice.
    let place = |(kv, _): &(&'a KeyValue, _)| (kv.mod_revision(), kv.key());
    new.sort_by_key(place);
    new.dedup_by(|one, other| place(one) == place(other));
    *seen = new.last().map_or(*seen, |(kv, _)| kv.mod_revision());
    let changes = new.into_iter().filter_map(|(kv, event)| {
        // Read raw: the client's own accessor panics at a kind it does not know.
        match EventType::try_from(event.0.r#type) {
            Ok(EventType::Put) => Some(Change::Put((kv.key().to_vec(), kv.value().to_vec()))),
            Ok(EventType::Delete) => Some(Change::Delete(kv.key().to_vec())),
            Err(_) => None,
        }
    });
    changes.collect()
}

fn cancelled(compacted: i64, reason: &str) -> Over {
    if compacted > 0 {
        return Over::Compacted;
    }
    Over::Failed(Error::Answer {
        what: "watch",
        message: format!("cancelled by etcd: {reason}"),
    })
}

/// That there is more under a prefix than is read.
pub(super) fn too_many(what: &'static str, prefix: &str) -> Error {
    Error::Answer {
        what,
        message: format!("more than {ENTRIES_MAX} keys under {prefix}"),
    }
}

fn ended() -> Error {
    Error::Answer {
        what: "watch",
        message: "etcd ended the stream".to_owned(),
    }
}

fn silent() -> Error {
    Error::TimedOut {
        what: "ask for progress",
        timeout: PROGRESS_MAX,
    }
}

/// The least key that begins with `prefix`. To etcd an empty key is none; no key is below this one.
pub(super) fn start_of(prefix: &str) -> Vec<u8> {
    match prefix {
        "" => vec![0],
        prefix => prefix.into(),
    }
}

/// The least key above `key`.
pub(super) fn above(key: &[u8]) -> Vec<u8> {
    [key, &[0]].concat()
}

/// The least key above all that begin with `prefix`.
pub(super) fn end_of(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    vec![0]
}
