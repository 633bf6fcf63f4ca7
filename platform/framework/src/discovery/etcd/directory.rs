//! Everything that is registered in etcd's own layout, by the services that it serves.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::{Notify, mpsc, watch},
    time::{self, Instant},
};

use super::{
    Etcd,
    feed::{Change, Feed, Pair, Update},
    layout,
    pages::ENTRIES_MAX,
    resolver::UPDATES,
    view::HOLD,
};
use crate::{
    discovery::{Directory, Services},
    shutdown::Tasks,
    status::chain,
};

/// How long a service is listed after its last instance went: longer than a restart takes.
const GRACE: Duration = Duration::from_secs(5);

/// Begins to follow all of `etcd`, in a task of `tasks`.
#[must_use]
pub fn follow(etcd: Etcd, tasks: &Tasks) -> Directory {
    let (publish, services) = watch::channel(None);
    let feed = Feed {
        etcd,
        prefix: String::new(),
        wanted: |value| !layout::services(value).is_empty(),
        suspicion: Arc::new(Notify::new()),
    };
    let stopping = tasks.stopping();
    tasks.spawn("registry directory", async move {
        let (sender, updates) = mpsc::channel(UPDATES);
        let keeper = Keeper {
            instances: BTreeMap::new(),
            listed: HashMap::new(),
            publish,
        };
        // On the heap: etcd's clients are large.
        let both = Box::pin(async { tokio::join!(feed.run(sender), keeper.run(updates)) });
        stopping.run_until_cancelled(both).await;
    });
    Directory::following(services)
}

/// One instance: its name, and what it serves.
type Instance = (Arc<str>, Vec<Arc<str>>);

struct Keeper {
    instances: BTreeMap<Vec<u8>, Instance>,
    /// Each service with its name, and until when it is listed where no instance is left.
    listed: HashMap<Arc<str>, (Arc<str>, Option<Instant>)>,
    publish: watch::Sender<Option<Arc<Services>>>,
}

impl Keeper {
    /// Runs until no reader is left.
    async fn run(mut self, mut updates: mpsc::Receiver<Update>) {
        loop {
            let wake = self.listed.values().filter_map(|(_, until)| *until).min();
            let publish = self.publish.clone();
            // Every arm is cancel-safe: an update is taken whole or not at all.
            tokio::select! {
                biased;
                () = publish.closed() => return,
                update = updates.recv() => match update {
                    Some(update) => if !self.take_in(update) {
                        continue;
                    },
                    None => return,
                },
                () = time::sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {
                    let now = Instant::now();
                    self.listed.retain(|_, (_, until)| until.is_none_or(|until| until > now));
                }
            }
            self.tell();
        }
    }

    /// Says whether it was a list, or a change of one.
    fn take_in(&mut self, update: Update) -> bool {
        let grace = match update {
            Update::List(pairs, _) => {
                self.instances.clear();
                for pair in pairs {
                    self.put(pair);
                }
                // More likely a loss of the registry's than of theirs.
                HOLD
            }
            Update::Changes(changes) => {
                for change in changes {
                    match change {
                        Change::Put(pair) => self.put(pair),
                        Change::Delete(key) => drop(self.instances.remove(&key)),
                    }
                }
                if self.instances.is_empty() {
                    HOLD
                } else {
                    GRACE
                }
            }
            Update::Failed(error) => {
                let error = chain(&error);
                tracing::warn!(error, "the registry cannot be read; the last services stay");
                return false;
            }
        };
        self.list(Instant::now() + grace);
        true
    }

    /// Whatever else is in etcd is passed over.
    fn put(&mut self, (key, value): Pair) {
        self.instances.remove(&key);
        let services = layout::services(&value);
        let name = std::str::from_utf8(&key)
            .ok()
            .and_then(|key| Some(key.rsplit_once('/')?.0));
        let Some(name) = name.filter(|_| !services.is_empty()) else {
            return;
        };
        if self.instances.len() < ENTRIES_MAX {
            self.instances.insert(key.clone(), (name.into(), services));
        }
    }

    /// Lists what the instances serve, and what they served until `until`.
    fn list(&mut self, until: Instant) {
        for (_, listed) in self.listed.values_mut() {
            listed.get_or_insert(until);
        }
        // Where two names serve the same, the lesser one has it, whoever came first.
        for (name, services) in self.instances.values().rev() {
            for service in services {
                let listed = (Arc::clone(name), None);
                self.listed.insert(Arc::clone(service), listed);
            }
        }
    }

    fn tell(&self) {
        let services = self.listed.iter();
        let next: Services = services
            .map(|(service, (name, _))| (Arc::clone(service), Arc::clone(name)))
            .collect();
        self.publish.send_if_modified(|last| {
            let changed = last.as_deref() != Some(&next);
            *last = Some(Arc::new(next));
            changed
        });
    }
}
