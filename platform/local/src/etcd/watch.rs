//! Watches of one stream, served from history.
//!
//! Nothing is pushed to a watcher and nothing is kept for it: each watch has a place in the log,
//! and reads on from there when its caller has taken what it was given before. So a watcher that
//! falls behind costs no memory, and one that falls behind the compaction is told so.
//!
//! The stream makes its next answer only when it is asked for one, which is when the transport
//! has room. All that it awaits is cancel-safe; dropping the stream drops its watches.

mod fragment;
mod requests;

use std::{
    collections::{BTreeMap, VecDeque},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use etcd_client::proto::{PbWatchRequest, PbWatchResponse};
use futures_util::{FutureExt as _, Stream, stream};
use tokio::{
    sync::watch::Receiver,
    time::{Instant, sleep_until},
};
use tonic::{Status, Streaming};

use super::{
    engine::{Cursor, Event, Slice},
    grpc::{Shared, stopped, watched},
    owner::State,
};
use fragment::fragments;

/// Watches of one stream at once.
const WATCHES_MAX: usize = 10_000;

/// Bytes of events read for one stream at once, roughly; what is beyond is read afterwards.
const READ_MAX: usize = 4 * 1024 * 1024;

/// Stands for all watches of a stream, or for none.
const NO_WATCH: i64 = -1;

/// What a stream answers.
pub(super) type Watching = Pin<Box<dyn Stream<Item = Result<PbWatchResponse, Status>> + Send>>;

/// Serves the watches that `requests` ask for.
pub(super) fn answers(requests: Streaming<PbWatchRequest>, shared: Arc<Shared>) -> Watching {
    let progress_interval = shared.progress_interval;
    let watching = Watches {
        requests: Some(requests),
        revision: shared.asker.revision(),
        shared,
        by_id: BTreeMap::new(),
        ready: VecDeque::new(),
        next_id: 0,
        progress_interval,
        progress_at: Instant::now() + jittered(progress_interval),
        progress_asked: false,
    };
    Box::pin(stream::try_unfold(watching, async |mut watching| {
        let response = watching.next().await?;
        Ok(Some((response, watching)))
    }))
}

/// The watches of one stream.
struct Watches {
    /// None once the caller has closed its side; its watches go on.
    requests: Option<Streaming<PbWatchRequest>>,
    revision: Receiver<i64>,
    shared: Arc<Shared>,
    by_id: BTreeMap<i64, Watch>,
    /// Answers that wait to be taken: those of one request, or of one read.
    ready: VecDeque<PbWatchResponse>,
    /// The id to try next for a watch without one.
    next_id: i64,
    progress_interval: Duration,
    progress_at: Instant,
    progress_asked: bool,
}

struct Watch {
    cursor: Cursor,
    fragment: bool,
    /// Whether it is told now and then how far it is.
    progress: bool,
    /// Whether it was sent events since it was last told.
    told: bool,
}

impl Watches {
    /// The next answer. It never ends by itself: a stream of watches ends with its caller.
    async fn next(&mut self) -> Result<PbWatchResponse, Status> {
        loop {
            if let Some(response) = self.ready.pop_front() {
                return Ok(response);
            }
            // What is asked comes before events, or a stream that is always behind would not
            // hear that a watch is cancelled.
            if let Some(request) = self.asked_already()? {
                self.request(request).await?;
            } else if self.progress_asked || self.is_behind() {
                self.read().await?;
            } else {
                self.wait().await?;
            }
        }
    }

    fn asked_already(&mut self) -> Result<Option<PbWatchRequest>, Status> {
        let Some(requests) = &mut self.requests else {
            return Ok(None);
        };
        let Some(message) = requests.message().now_or_never() else {
            return Ok(None);
        };
        let request = message?;
        if request.is_none() {
            self.requests = None;
        }
        Ok(request)
    }

    fn is_behind(&self) -> bool {
        let revision = *self.revision.borrow();
        let mut watches = self.by_id.values();
        watches.any(|watch| watch.cursor.next <= revision)
    }

    /// Waits for a request, a change, or the time to tell progress.
    async fn wait(&mut self) -> Result<(), Status> {
        let request = async {
            match &mut self.requests {
                Some(requests) => requests.message().await,
                None => std::future::pending().await,
            }
        };
        // Each arm is cancel-safe: a request is either read or still in the stream, and whether
        // the revision changed is remembered.
        let request = tokio::select! {
            request = request => request?,
            changed = self.revision.changed() => {
                return changed.map_err(|_| stopped());
            }
            () = sleep_until(self.progress_at) => {
                self.tell_progress();
                return Ok(());
            }
        };
        if let Some(request) = request {
            return self.request(request).await;
        }
        self.requests = None;
        Ok(())
    }

    /// Reads what is next for every watch that is behind.
    async fn read(&mut self) -> Result<(), Status> {
        let cursors = self.by_id.iter();
        let cursors: Vec<_> = cursors
            .map(|(id, watch)| (*id, watch.cursor.clone()))
            .collect();
        let answered = self
            .shared
            .asker
            .ask(move |state| slices(state, &cursors))
            .await;
        let (slices, revision) = answered.map_err(|_| stopped())?;
        // What is read is no news any more, unless more was written meanwhile.
        self.revision.borrow_and_update();
        for (id, slice) in slices {
            match slice {
                Slice::Compacted(compacted) => self.compacted(id, compacted),
                Slice::Events { events, next, .. } => self.events(id, &events, next, revision),
            }
        }
        if std::mem::take(&mut self.progress_asked) {
            self.tell_all(revision);
        }
        Ok(())
    }

    fn events(&mut self, id: i64, events: &[Event], next: i64, revision: i64) {
        let Some(watch) = self.by_id.get_mut(&id) else {
            return;
        };
        watch.cursor.next = next;
        if events.is_empty() {
            return;
        }
        watch.told = false;
        let response = PbWatchResponse {
            header: Some(self.shared.header(revision)),
            watch_id: id,
            events: events.iter().map(watched).collect(),
            ..PbWatchResponse::default()
        };
        if watch.fragment {
            self.ready.extend(fragments(response));
        } else {
            self.ready.push_back(response);
        }
    }

    /// Ends a watch that wants what is gone.
    fn compacted(&mut self, id: i64, compacted: i64) {
        self.by_id.remove(&id);
        self.ready.push_back(PbWatchResponse {
            header: Some(self.shared.header(0)),
            watch_id: id,
            canceled: true,
            compact_revision: compacted,
            ..PbWatchResponse::default()
        });
    }

    /// Says how far all watches are, if they are all as far as the store.
    fn tell_all(&mut self, revision: i64) {
        let mut watches = self.by_id.values();
        let even = watches.all(|watch| watch.cursor.next == revision + 1);
        if even && !self.by_id.is_empty() {
            let response = self.progress(NO_WATCH, revision);
            self.ready.push_back(response);
        }
    }

    /// Tells those watches how far they are that want to know and were sent nothing of late.
    fn tell_progress(&mut self) {
        self.progress_at = Instant::now() + jittered(self.progress_interval);
        let revision = *self.revision.borrow();
        let mut quiet = Vec::new();
        for (id, watch) in &mut self.by_id {
            let even = watch.cursor.next == revision + 1;
            if watch.progress && even && std::mem::replace(&mut watch.told, true) {
                quiet.push(*id);
            }
        }
        for id in quiet {
            let response = self.progress(id, revision);
            self.ready.push_back(response);
        }
    }

    fn progress(&self, id: i64, revision: i64) -> PbWatchResponse {
        PbWatchResponse {
            header: Some(self.shared.header(revision)),
            watch_id: id,
            ..PbWatchResponse::default()
        }
    }
}

/// What is next for each of `cursors` that is behind, until that is enough; and the revision.
fn slices(state: &State, cursors: &[(i64, Cursor)]) -> (Vec<(i64, Slice)>, i64) {
    let revision = state.engine.revision();
    let mut slices = Vec::new();
    let mut read = 0;
    for (id, cursor) in cursors {
        if cursor.next > revision {
            continue;
        }
        if read > READ_MAX {
            break;
        }
        let slice = state.engine.events(cursor);
        if let Slice::Events { bytes, .. } = &slice {
            read += bytes;
        }
        slices.push((*id, slice));
    }
    (slices, revision)
}

/// A tenth more at most, so that streams that began together do not go on together.
fn jittered(interval: Duration) -> Duration {
    interval + interval.mul_f64(fastrand::f64() / 10.0)
}
