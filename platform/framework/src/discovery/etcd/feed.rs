//! Everything under one prefix: listed once, then watched for changes, for ever.
//!
//! A watch is only trusted while it proves to be alive: after some silence it is asked for its
//! progress, and one that does not answer is given up. Whatever ends a watch (a lost connection,
//! compaction, silence, a member without a leader), the next round lists again before it watches,
//! because a watch from a revision that a restarted etcd has not reached would wait in silence.

use std::{pin::pin, sync::Arc, time::Duration};

use etcd_client::{Client, EventType, KeyValue, WatchOptions, WatchResponse, WatchStream};
use tokio::{
    sync::{Notify, mpsc},
    time::{self, Instant},
};

use super::{
    BACKOFF, Error, Etcd,
    pages::{ANSWER_MAX, ENTRIES_MAX, Pages, Position, VALUE_MAX, too_many},
};
use crate::backoff::Backoff;

/// Silence after which a watch is asked for its progress.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// How long that answer may take.
const PROGRESS_MAX: Duration = Duration::from_secs(5);
/// Shortest time between two questions that hints cause.
const HINT_PAUSE: Duration = Duration::from_secs(5);
/// A key and its value; a value that is larger than [`VALUE_MAX`] is told as an empty one, which is
/// an instance in no layout.
pub(super) type Pair = (Vec<u8>, Vec<u8>);

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
    /// Which values are told of. A key with another one is as good as gone: it is not listed, does
    /// not count, and takes no memory.
    pub(super) wanted: fn(&[u8]) -> bool,
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
            let client = self.etcd.client().await?;
            let (pairs, position) = self.list(&client).await?;
            tell(updates, Update::List(pairs, position)).await?;
            // In fragments: many large changes at once are more than one answer may hold.
            let options = WatchOptions::new()
                .with_prefix()
                .with_fragment()
                .with_start_revision(position.revision + 1);
            let prefix = self.prefix.as_str();
            let watching = client.watch_client();
            let mut watching = watching.max_decoding_message_size(ANSWER_MAX);
            let watch = watching.watch(prefix, Some(options));
            let stream = self.etcd.bounded("watch", watch).await?;
            self.follow(stream, position, updates).await
        };
        let over: Result<std::convert::Infallible, Over> = round.await;
        match over {
            Err(over) => over,
        }
    }

    /// Everything that is wanted, all as of one revision.
    async fn list(&self, client: &Client) -> Result<(Vec<Pair>, Position), Error> {
        let mut pages = Pages::new(&self.etcd, client, &self.prefix);
        let mut pairs = Vec::new();
        while let Some(page) = pages.next().await? {
            let page = page.into_iter().map(pair);
            pairs.extend(page.filter(|(_, value)| (self.wanted)(value)));
            if pairs.len() > ENTRIES_MAX {
                return Err(too_many("list", &self.prefix));
            }
        }
        let position = pages.position().ok_or_else(|| Error::Answer {
            what: "list",
            message: "without a revision".to_owned(),
        })?;
        Ok((pairs, position))
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
                    let changes = self.changes(&answer, &mut seen);
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

    /// What was not seen before, each once and in order.
    fn changes<'a>(&self, answer: &'a WatchResponse, seen: &mut i64) -> Vec<Change> {
        // A revision's events come together, so what is not above the last one was told before.
        let events = answer.events().iter();
        let mut new: Vec<_> = events
            .filter_map(|event| Some((event.kv()?, event)))
            .filter(|(kv, _)| kv.mod_revision() > *seen)
            .collect();
        // No revision changes a key twice.
        let place = |(kv, _): &(&'a KeyValue, _)| (kv.mod_revision(), kv.key());
        new.sort_by_key(place);
        new.dedup_by(|one, other| place(one) == place(other));
        // The rest of a revision may be in the next fragment.
        if !answer.0.fragment {
            *seen = new.last().map_or(*seen, |(kv, _)| kv.mod_revision());
        }
        let changes = new.into_iter().filter_map(|(kv, event)| {
            let gone = || Some(Change::Delete(kv.key().to_vec()));
            // Read raw: the client's own accessor panics at a kind it does not know.
            match EventType::try_from(event.0.r#type) {
                Ok(EventType::Put) => {
                    let value = bounded(kv.value());
                    if (self.wanted)(value) {
                        Some(Change::Put((kv.key().to_vec(), value.to_vec())))
                    } else {
                        gone()
                    }
                }
                Ok(EventType::Delete) => gone(),
                Err(_) => None,
            }
        });
        changes.collect()
    }
}

fn pair(kv: KeyValue) -> Pair {
    let (key, value) = kv.into_key_value();
    let value = if bounded(&value).is_empty() {
        Vec::new()
    } else {
        value
    };
    (key, value)
}

/// Nothing in place of what is too large.
fn bounded(value: &[u8]) -> &[u8] {
    if value.len() > VALUE_MAX { &[] } else { value }
}

async fn tell(updates: &mpsc::Sender<Update>, update: Update) -> Result<(), Over> {
    updates.send(update).await.map_err(|_| Over::Unheard)
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
