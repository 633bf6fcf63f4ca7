//! Watchers that read on where they were, whatever happens to them.

use std::time::Duration;

use etcd_client::{EventType, WatchOptions, WatchResponse, WatchStream};
use fastrand::Rng;
use tokio::time::{Instant, sleep, timeout};

use crate::{
    client::{Shared, entry},
    record::{Event, Moment, Skipped, Told, Watched},
};

/// Longest time that a watcher may be behind the end.
const BEHIND: Duration = Duration::from_secs(20);

/// One watcher.
pub(crate) struct Watcher<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) random: Rng,
    /// Whether it is the one that is never behind a compaction.
    pub(crate) first: bool,
    pub(crate) watched: Watched,
    /// The first revision that it was not told.
    pub(crate) next: i64,
}

impl Watcher<'_> {
    /// Watches until it was told of the last revision.
    pub(crate) async fn watch(mut self) -> Watched {
        let mut ended = None;
        loop {
            let begun = self.shared.now();
            if let Some(mut stream) = self.open().await {
                self.read(&mut stream, begun).await;
            }
            if !self.first && !self.shared.ended.get() && self.random.u8(..3) == 0 {
                // Long enough to fall behind a compaction.
                sleep(Duration::from_millis(self.random.u64(50..300))).await;
            }
            if self.shared.ended.get() {
                let last = self.shared.told.get();
                let since = *ended.get_or_insert_with(Instant::now);
                let done = self.next > last && last > 1;
                if done || since.elapsed() > BEHIND {
                    return self.watched;
                }
            }
        }
    }

    async fn open(&mut self) -> Option<WatchStream> {
        let mut client = self.shared.connect().await;
        let (from, to) = self.watched.keys.clone();
        let options = WatchOptions::new()
            .with_range(to)
            .with_start_revision(self.next)
            .with_prev_key();
        let opened = timeout(Duration::from_secs(2), client.watch(from, Some(options))).await;
        if let Ok(Ok(stream)) = opened {
            return Some(stream);
        }
        sleep(Duration::from_millis(10)).await;
        None
    }

    /// Reads until the stream breaks, or enough of it.
    async fn read(&mut self, stream: &mut WatchStream, begun: Moment) {
        // How many answers it takes until it begins anew.
        let answers = self.random.usize(1..25);
        for _ in 0..answers {
            if self.random.u8(..6) == 0 && stream.request_progress().await.is_err() {
                return;
            }
            let message = timeout(Duration::from_millis(200), stream.message()).await;
            let Ok(message) = message else {
                if self.shared.ended.get() {
                    return;
                }
                continue;
            };
            let Ok(Some(response)) = message else { return };
            if response.compact_revision() > 0 {
                let skipped = Skipped {
                    wanted: self.next,
                    revision: response.compact_revision(),
                    begun,
                    ended: self.shared.now(),
                };
                self.next = skipped.revision;
                self.watched.told.push(Told::Skipped(skipped));
                return;
            }
            if response.events().is_empty() && !response.created() && !response.canceled() {
                self.progress(&response);
            }
            for event in response.events() {
                self.told(event);
            }
            if !self.first && self.random.u8(..8) == 0 {
                sleep(Duration::from_millis(self.random.u64(..150))).await;
            }
        }
    }

    /// Nothing until then is missing, so it goes on from there.
    fn progress(&mut self, response: &WatchResponse) {
        let header = response.header().expect("every answer has a header");
        self.next = self.next.max(header.revision() + 1);
        self.watched.told.push(Told::Progress(header.revision()));
    }

    fn told(&mut self, event: &etcd_client::Event) {
        let kv = event.kv().expect("every event has a key");
        self.next = kv.mod_revision() + 1;
        if self.first {
            self.shared.told.set(kv.mod_revision());
        }
        self.watched.told.push(Told::Event(Event {
            revision: kv.mod_revision(),
            key: String::from_utf8_lossy(kv.key()).into_owned(),
            entry: (event.event_type() == EventType::Put).then(|| entry(kv)),
            before: event.prev_kv().map(entry),
            at: self.shared.now().at,
        }));
    }
}
