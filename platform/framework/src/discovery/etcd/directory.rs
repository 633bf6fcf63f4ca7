//! Everything that is registered in etcd's own layout, by the services that it serves.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::{Path, PathBuf},
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
    outage::Outage,
    pages::{ENTRIES_MAX, too_many},
    resolver::UPDATES,
    snapshot::{FIRST_LIST_MAX, Snapshot, Writer},
    view::HOLD,
};
use crate::{
    discovery::{Directory, Services},
    journal::{Journal, Kind},
    shutdown::Tasks,
};

/// How long a service is listed after its last instance went: longer than a restart takes.
const GRACE: Duration = Duration::from_secs(5);

/// What is read, in the log and the journal.
const EVERYTHING: &str = "every service";

/// Begins to follow all of `etcd`, in a task of `tasks`. With a folder for `snapshots` a process that
/// starts without etcd finds what it knew last.
#[must_use]
pub fn follow(
    etcd: Etcd,
    snapshots: Option<PathBuf>,
    tasks: &Tasks,
    journal: Journal,
) -> Directory {
    let (publish, services) = watch::channel(None);
    let (current, is_current) = watch::channel(false);
    let feed = Feed {
        etcd,
        prefix: String::new(),
        wanted: |value| !layout::services(value).is_empty(),
        suspicion: Arc::new(Notify::new()),
    };
    let stopping = tasks.stopping();
    tasks.spawn("registry directory", async move {
        let (sender, updates) = mpsc::channel(UPDATES);
        let keeper = Keeper::new(snapshots.as_deref(), publish, current, journal);
        // On the heap: etcd's clients are large.
        let both = Box::pin(async { tokio::join!(feed.run(sender), keeper.run(updates)) });
        stopping.run_until_cancelled(both).await;
    });
    Directory::remembering(services, is_current)
}

/// One instance: its name, and what it serves.
type Instance = (Arc<str>, Vec<Arc<str>>);

struct Keeper {
    instances: BTreeMap<Vec<u8>, Instance>,
    listed: HashMap<Arc<str>, Listed>,
    outage: Outage,
    journal: Journal,
    publish: watch::Sender<Option<Arc<Services>>>,
    /// Whether there was a list, and whether it was told.
    read: bool,
    current: watch::Sender<bool>,
    snapshot: Option<Writer<Arc<Services>>>,
}

/// One service that is listed.
struct Listed {
    /// Under which name it is found: as long as that has an instance, whoever else serves it.
    name: Arc<str>,
    /// Until when it is listed, where no instance is left.
    until: Option<Instant>,
    /// Whether another name serves it, too.
    contested: bool,
}

impl Listed {
    fn new(name: Arc<str>) -> Self {
        Self {
            name,
            until: None,
            contested: false,
        }
    }

    /// Takes in which names serve `service`, this one among them, and tells once where there are
    /// others.
    fn is_served(&mut self, service: &str, names: &Names<'_>, journal: &Journal) {
        self.until = None;
        let other = names.iter().find(|name| ***name != self.name);
        if let Some(other) = other
            && !self.contested
        {
            let (name, other) = (&*self.name, &***other);
            tracing::warn!(
                service,
                name,
                other,
                "two names serve the same; it is found under the first"
            );
            let detail = format!("{other} serves {service}, too; it is found as {name}");
            journal.record(Kind::Registry, name, detail);
        }
        self.contested = other.is_some();
    }
}

/// The names under which one service is served.
type Names<'a> = BTreeSet<&'a Arc<str>>;

impl Keeper {
    fn new(
        snapshots: Option<&Path>,
        publish: watch::Sender<Option<Arc<Services>>>,
        current: watch::Sender<bool>,
        journal: Journal,
    ) -> Self {
        Self {
            instances: BTreeMap::new(),
            listed: HashMap::new(),
            outage: Outage::none(EVERYTHING, journal.clone()),
            journal,
            publish,
            read: false,
            current,
            snapshot: snapshots.map(|folder| Writer::new(Snapshot::of_services(folder))),
        }
    }

    /// Runs until no reader is left.
    async fn run(mut self, mut updates: mpsc::Receiver<Update>) {
        let publish = self.publish.clone();
        let mut remember = self.remember().await;
        loop {
            let now = Instant::now();
            // Not an arm of its own: it comes in time however many updates wait.
            if self.expire(now) {
                self.tell();
            }
            if remember.is_some_and(|at| at <= now) {
                // So long without a list: what the disk remembers is the best there is.
                remember = None;
                if !self.read {
                    self.tell();
                }
            }
            if let Some(writer) = &mut self.snapshot {
                writer.write(now);
            }
            let expiry = self.listed.values().filter_map(|it| it.until).min();
            let write = self.snapshot.as_ref().and_then(Writer::due);
            let wake = [expiry, remember, write].into_iter().flatten().min();
            // Every arm is cancel-safe: an update is taken whole or not at all.
            tokio::select! {
                biased;
                () = publish.closed() => return,
                update = updates.recv() => match update {
                    Some(update) => if self.take_in(update) {
                        self.tell();
                    },
                    None => return,
                },
                () = time::sleep_until(wake.unwrap_or(now)), if wake.is_some() => {}
            }
        }
    }

    /// Takes in what the disk remembers. Says until when a list is waited for, where that is any.
    async fn remember(&mut self) -> Option<Instant> {
        let begun = Instant::now();
        let remembered = self.snapshot.as_ref()?.read().await?;
        for (service, name) in &*remembered {
            let listed = Listed::new(Arc::clone(name));
            self.listed.insert(Arc::clone(service), listed);
        }
        (!remembered.is_empty()).then_some(begun + FIRST_LIST_MAX)
    }

    /// Lets go of services whose time is over, or hands them to another name that serves them. Says
    /// whether there were any.
    fn expire(&mut self, now: Instant) -> bool {
        let before = self.listed.len();
        let is_over = |it: &Listed| it.until.is_some_and(|until| until <= now);
        self.listed.retain(|_, it| !is_over(it));
        let expired = self.listed.len() < before;
        if expired {
            self.list(now, false);
        }
        expired
    }

    /// Says whether anything of it is an instance's.
    fn take_in(&mut self, update: Update) -> bool {
        let lost = match update {
            Update::List(pairs, _) => {
                self.outage.end();
                self.instances.clear();
                for pair in pairs {
                    self.put(pair);
                }
                // What is only remembered is likelier to have gone, unless nothing is there.
                std::mem::replace(&mut self.read, true) || self.instances.is_empty()
            }
            Update::Changes(changes) => {
                let mut ours = false;
                for change in changes {
                    ours |= match change {
                        Change::Put(pair) => self.put(pair),
                        Change::Delete(key) => self.instances.remove(&key).is_some(),
                    };
                }
                if !ours {
                    return false;
                }
                self.instances.is_empty()
            }
            Update::Failed(error) => {
                self.outage.fail(&error);
                return false;
            }
        };
        self.list(Instant::now(), lost);
        true
    }

    /// Says whether it is an instance's, or was; whatever else is in etcd is passed over.
    fn put(&mut self, (key, value): Pair) -> bool {
        let before = self.instances.remove(&key);
        let services = layout::services(&value);
        let name = std::str::from_utf8(&key)
            .ok()
            .and_then(|key| Some(key.rsplit_once('/')?.0));
        let Some(name) = name.filter(|_| !services.is_empty()) else {
            return before.is_some();
        };
        let room = self.instances.len() < ENTRIES_MAX;
        if room {
            self.instances.insert(key.clone(), (name.into(), services));
        } else {
            self.outage.fail(&too_many("watch", ""));
        }
        room || before.is_some()
    }

    /// Lists what the instances serve, and for a while what they served. `lost` says whether it is
    /// more likely that the registry lost what is missing than that it went.
    fn list(&mut self, now: Instant, lost: bool) {
        let mut serving: HashMap<&Arc<str>, Names<'_>> = HashMap::new();
        for (name, services) in self.instances.values() {
            for service in services {
                serving.entry(service).or_default().insert(name);
            }
        }
        let until = now + if lost { HOLD } else { GRACE };
        for (service, listed) in &mut self.listed {
            match serving.get(service) {
                Some(names) if names.contains(&listed.name) => {}
                // It went while the other was there, which takes over: no call has to fail.
                Some(_) if !lost && listed.until.is_none() => {}
                _ => {
                    listed.until.get_or_insert(until);
                    serving.remove(service);
                }
            }
        }
        for (service, names) in serving {
            let Some(least) = names.first() else {
                continue;
            };
            let listed = self.listed.entry(Arc::clone(service));
            let listed = listed.or_insert_with(|| Listed::new(Arc::clone(least)));
            if !names.contains(&listed.name) {
                *listed = Listed::new(Arc::clone(least));
            }
            listed.is_served(service, &names, &self.journal);
        }
    }

    fn tell(&mut self) {
        let services = self.listed.iter();
        let next: Services = services
            .map(|(service, listed)| (Arc::clone(service), Arc::clone(&listed.name)))
            .collect();
        let next = Arc::new(next);
        if let Some(writer) = &mut self.snapshot
            && self.read
        {
            writer.want(&next, Instant::now());
        }
        self.publish.send_if_modified(|last| {
            let changed = last.as_ref() != Some(&next);
            *last = Some(next);
            changed
        });
        // After what was read: what is not there is not registered.
        self.current.send_replace(self.read);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discovery::etcd::pages::Position;

    /// Goal: a service whose time is over goes, however many updates wait.
    /// Method: let the time pass over a full queue, whose end ends the keeper.
    #[tokio::test(start_paused = true)]
    async fn updates_do_not_hold_up_an_expiry() {
        let value = r#"{"Op":0,"Addr":"10.0.0.1:1","Metadata":{"services":["shop.Orders"]}}"#;
        let pair = |key: &str| (key.as_bytes().to_vec(), value.as_bytes().to_vec());
        let position = Position {
            cluster: 1,
            revision: 1,
        };
        let (publish, services) = watch::channel(None);
        let (current, _) = watch::channel(false);
        let mut keeper = Keeper::new(None, publish, current, Journal::new());
        keeper.take_in(Update::List(vec![pair("orders/1")], position));
        keeper.take_in(Update::List(Vec::new(), position));
        let (sender, updates) = mpsc::channel(UPDATES);
        for number in 0..UPDATES {
            let change = Change::Delete(format!("logs/{number}").into_bytes());
            sender.try_send(Update::Changes(vec![change])).unwrap();
        }
        drop(sender);
        time::advance(HOLD).await;
        keeper.run(updates).await;
        let listed = services.borrow().clone();
        assert_eq!(Some(0), listed.map(|it| it.len()));
    }
}
