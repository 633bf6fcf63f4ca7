//! From a name to its endpoints, by etcd.

use std::{collections::HashSet, path::PathBuf, sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, watch},
    time::{self, Instant},
};

use super::{
    Etcd,
    feed::{Change, Feed, Pair, Update},
    outage::Outage,
    pages::{ENTRIES_MAX, too_many},
    snapshot::{FIRST_LIST_MAX, Snapshot, Writer},
    view::View,
};
use crate::{
    discovery::{Endpoint, Layout, Resolution, Resolve, names::Names},
    journal::{Journal, Kind},
    shutdown::Tasks,
    status::chain,
    telemetry::{metric::Value, platform::Discovery},
};

/// Shortest time between two lists that readers get; changes in between come together.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// Values that cannot be used are told of one by one up to so many, then by their number.
const MALFORMED_TOLD: usize = 3;
/// Updates read ahead; beyond these etcd's stream waits.
pub(super) const UPDATES: usize = 16;

/// Resolves the names of one layout. One watch per name and process, however many ask.
///
/// The last good list stays when etcd is gone, slow or suddenly empty; see [`super`]. With a
/// folder for snapshots a process that starts without etcd calls what it knew last.
#[derive(Debug, Clone)]
pub struct Resolver {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    etcd: Etcd,
    layout: Layout,
    snapshots: Option<PathBuf>,
    tasks: Tasks,
    journal: Journal,
    names: Names,
}

impl Resolver {
    /// Asks nothing yet. One task per watched name belongs to `tasks`.
    #[must_use]
    pub fn new(
        etcd: Etcd,
        layout: Layout,
        snapshots: Option<PathBuf>,
        tasks: Tasks,
        journal: Journal,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                etcd,
                layout,
                snapshots,
                tasks,
                journal,
                names: Names::default(),
            }),
        }
    }
}

impl Resolve for Resolver {
    fn resolve(&self, name: &str) -> watch::Receiver<Resolution> {
        let shared = &self.shared;
        shared.names.join(name, |watched| {
            let feed = Feed {
                etcd: shared.etcd.clone(),
                prefix: shared.layout.prefix(name),
                // Also what cannot be used: it is told of.
                wanted: |_| true,
                suspicion: watched.hint,
            };
            let keeper = Keeper::new(shared, name, watched.resolutions);
            let stopping = shared.tasks.stopping();
            shared.tasks.spawn("registry watch", async move {
                let (sender, updates) = mpsc::channel(UPDATES);
                // On the heap: etcd's clients are large.
                let both = Box::pin(async { tokio::join!(feed.run(sender), keeper.run(updates)) });
                stopping.run_until_cancelled(both).await;
            });
        })
    }

    fn refresh(&self, name: &str) {
        self.shared.names.hint(name);
    }
}

/// Follows one name and tells its readers.
struct Keeper {
    layout: Layout,
    name: String,
    journal: Journal,
    metrics: Discovery,
    resolutions: watch::Sender<Resolution>,
    view: View,
    outage: Outage,
    /// Keys whose values cannot be used, so that each is told of once.
    malformed: HashSet<Vec<u8>>,
    /// Whether readers have not been told of everything yet.
    dirty: bool,
    told: Option<Instant>,
    begun: Instant,
    snapshot: Option<Writer<Arc<[Endpoint]>>>,
}

impl Keeper {
    fn new(shared: &Shared, name: &str, resolutions: watch::Sender<Resolution>) -> Self {
        let snapshot = shared
            .snapshots
            .as_ref()
            .map(|folder| Writer::new(Snapshot::of_name(folder, shared.layout.as_str(), name)));
        let target: Value = name.to_owned().into();
        Self {
            layout: shared.layout,
            name: name.to_owned(),
            journal: shared.journal.clone(),
            metrics: Discovery::register(target),
            resolutions,
            view: View::default(),
            outage: Outage::none(name, shared.journal.clone()),
            malformed: HashSet::new(),
            dirty: false,
            told: None,
            begun: Instant::now(),
            snapshot,
        }
    }

    /// Runs until no reader is left.
    async fn run(mut self, mut updates: mpsc::Receiver<Update>) {
        if let Some(writer) = &self.snapshot {
            let remembered = writer.read().await;
            self.view = View::remembering(remembered.unwrap_or_default().to_vec());
        }
        let resolutions = self.resolutions.clone();
        loop {
            let now = Instant::now();
            self.dirty |= self.view.expire(now);
            if self.dirty && self.tells_at() <= now {
                self.tell(now);
            }
            if let Some(writer) = &mut self.snapshot {
                writer.write(now);
            }
            let wake = self.wakes_at();
            // Every arm is cancel-safe: an update is taken whole or not at all.
            tokio::select! {
                biased;
                () = resolutions.closed() => return,
                update = updates.recv() => match update {
                    Some(update) => self.take_in(update),
                    None => return,
                },
                () = time::sleep_until(wake.unwrap_or(now)), if wake.is_some() => {
                    // So long without a list: what the disk remembers is the best there is.
                    self.dirty |= !self.view.is_listed() && self.told.is_none();
                }
            }
        }
    }

    /// When readers may be told: the first change at once, later ones together.
    fn tells_at(&self) -> Instant {
        self.told.map_or(self.begun, |told| told + PAUSE_MIN)
    }

    /// When there is something to do without an update.
    fn wakes_at(&self) -> Option<Instant> {
        let tell = self.dirty.then(|| self.tells_at());
        let remember =
            (!self.view.is_listed() && self.told.is_none()).then(|| self.begun + FIRST_LIST_MAX);
        let write = self.snapshot.as_ref().and_then(Writer::due);
        [tell, remember, write, self.view.next_expiry()]
            .into_iter()
            .flatten()
            .min()
    }

    fn take_in(&mut self, update: Update) {
        let now = Instant::now();
        match update {
            Update::List(pairs, position) => {
                // Those that went meanwhile are forgotten, the others were told of already.
                let listed: HashSet<_> = pairs.iter().map(|(key, _)| key).collect();
                self.malformed.retain(|key| listed.contains(key));
                let entries: Vec<_> = pairs
                    .into_iter()
                    .filter_map(|pair| self.decode(pair))
                    .collect();
                if self.view.list(entries, position, now) {
                    let held = self.view.held();
                    tracing::warn!(name = self.name, held, "the registry began anew");
                    let detail = format!("the registry began anew; {held} endpoints are held");
                    self.journal.record(Kind::Registry, &*self.name, detail);
                }
                self.outage.end();
                self.metrics.current(true);
            }
            Update::Changes(changes) => {
                for change in changes {
                    self.apply(change, now);
                }
            }
            Update::Failed(error) => self.fail(&error),
        }
        self.metrics.held(self.view.held());
        self.dirty = true;
    }

    /// Notes that what is known may be out of date.
    fn fail(&mut self, error: &super::Error) {
        if self.outage.fail(error) {
            self.metrics.current(false);
        }
    }

    /// Whether one more key is to be remembered.
    fn has_room(&self, key: &[u8]) -> bool {
        self.view.len() + self.malformed.len() < ENTRIES_MAX
            || self.view.has(key)
            || self.malformed.contains(key)
    }

    fn apply(&mut self, change: Change, now: Instant) {
        match change {
            Change::Put((key, _)) if !self.has_room(&key) => {
                self.fail(&too_many("watch", &self.layout.prefix(&self.name)));
            }
            Change::Put(pair) => {
                let key = pair.0.clone();
                match self.decode(pair) {
                    Some((key, endpoint)) => self.view.put(key, endpoint, now),
                    None => self.view.delete(&key, now),
                }
            }
            Change::Delete(key) => {
                self.malformed.remove(&key);
                self.view.delete(&key, now);
            }
        }
    }

    fn decode(&mut self, (key, value): Pair) -> Option<(Vec<u8>, Endpoint)> {
        match self.layout.decode(&self.name, &value) {
            Ok(endpoint) => {
                self.malformed.remove(&key);
                endpoint.map(|endpoint| (key, endpoint))
            }
            Err(error) => {
                self.metrics.malformed();
                if self.malformed.insert(key.clone()) {
                    self.complain(&key, &error);
                }
                None
            }
        }
    }

    /// Tells of a value that cannot be used; of thousands, in a dozen lines.
    fn complain(&self, key: &[u8], error: &super::Malformed) {
        let (name, count) = (&*self.name, self.malformed.len());
        if count <= MALFORMED_TOLD {
            let key = String::from_utf8_lossy(key).into_owned();
            let error = chain(error);
            tracing::warn!(key, error, "a value in the registry is passed over");
        } else if count.is_power_of_two() {
            tracing::warn!(name, count, "values in the registry are passed over");
        }
    }

    fn tell(&mut self, now: Instant) {
        self.dirty = false;
        self.told = Some(now);
        let next = Resolution {
            endpoints: self.view.endpoints().into(),
            error: self.outage.error(),
        };
        if let Some(writer) = &mut self.snapshot
            && self.view.is_listed()
        {
            writer.want(&next.endpoints, now);
        }
        self.resolutions.send_if_modified(|last| {
            let changed = last.endpoints != next.endpoints || last.error != next.error;
            *last = next;
            changed
        });
    }
}
