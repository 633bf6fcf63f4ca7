//! Reads what is registered, and keeps what was read true.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use gantry::discovery::Directory;
use tokio::{
    sync::watch,
    time::{self, Instant},
};

use super::{Api, Catalogue, Gone, describe::Service, routes::Routes};
use crate::{
    backends::{Backends, Instances, Running},
    pages::Pages,
};

/// Pause between two looks at who runs; nothing is asked where that has not changed.
const LOOK_PAUSE: Duration = Duration::from_secs(1);
/// Services that are read at once.
const READS_MAX: usize = 8;
/// How long reading one may take.
const READ_MAX: Duration = Duration::from_secs(5);
/// Pause before one that could not be read is asked again; it doubles with each failure.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_mins(1);

/// Keeps a [`Catalogue`] true.
#[derive(Debug)]
pub struct Follower {
    backends: Backends,
    directory: Directory,
    known: BTreeMap<Arc<str>, Known>,
    /// What went and is reachable all the same, as it described itself.
    leaving: BTreeMap<Arc<str>, Arc<Service>>,
    /// What went a little while ago, reachable or not; as many as the backends remember.
    gone: BTreeMap<Arc<str>, Arc<Service>>,
    newest: watch::Sender<Option<Arc<Api>>>,
    /// What was told of whole rules, so that it is told once.
    told: BTreeSet<String>,
}

/// What is known of one service.
#[derive(Debug, Default)]
struct Known {
    /// The name it is registered under.
    backend: Arc<str>,
    /// Who served when it was read, or that was last tried.
    instances: Instances,
    described: Option<Arc<Service>>,
    /// Whether it was asked at least once.
    asked: bool,
    reading: bool,
    failure: Option<Failure>,
}

/// Why one could not be read.
#[derive(Debug)]
struct Failure {
    text: String,
    pause: Duration,
    again: Instant,
}

/// What came of reading one.
struct Reading {
    service: Arc<str>,
    read: Result<Service, String>,
}

impl Follower {
    /// Follows `directory`, and asks its services through `backends`.
    #[must_use]
    pub fn new(backends: Backends, directory: Directory) -> (Self, Catalogue) {
        let (newest, catalogue) = watch::channel(None);
        let follower = Self {
            backends,
            directory,
            known: BTreeMap::new(),
            leaving: BTreeMap::new(),
            gone: BTreeMap::new(),
            newest,
            told: BTreeSet::new(),
        };
        (follower, Catalogue { newest: catalogue })
    }

    /// Follows for ever, or until the directory ends.
    pub async fn run(mut self) {
        let mut reads = FuturesUnordered::new();
        let mut look = time::interval(LOOK_PAUSE);
        look.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        if self.directory.read().await.is_err() {
            return;
        }
        loop {
            self.look();
            let running = self.backends.instances();
            while reads.len() < READS_MAX
                && let Some(read) = self.next_read(&running)
            {
                reads.push(read);
            }
            self.publish_first();
            // All are cancel-safe: what is being read stays in `reads`.
            tokio::select! {
                changed = self.directory.changed() => if changed.is_err() {
                    return;
                },
                Some(reading) = reads.next(), if !reads.is_empty() => self.take(reading),
                _ = look.tick() => {}
            }
        }
    }

    /// Compares what is registered with what is known.
    fn look(&mut self) {
        let services = self.directory.services().unwrap_or_default();
        let before = (self.leaving.len(), self.gone.len());
        let went = self
            .known
            .extract_if(.., |name, known| services.get(name) != Some(&known.backend));
        let mut changed = false;
        for (name, known) in went {
            changed = true;
            if let Some(described) = known.described {
                self.leaving
                    .insert(Arc::clone(&name), Arc::clone(&described));
                self.gone.insert(name, described);
            }
        }
        let backends = &self.backends;
        self.leaving
            .retain(|name, _| !services.contains_key(name) && backends.is_reachable(name));
        self.gone.retain(|name, _| backends.is_gone(name));
        changed |= (self.leaving.len(), self.gone.len()) != before;
        for (service, backend) in services.iter() {
            if !self.known.contains_key(service) {
                let known = Known {
                    backend: Arc::clone(backend),
                    ..Known::default()
                };
                self.known.insert(Arc::clone(service), known);
                changed = true;
            }
        }
        if changed && self.newest.borrow().is_some() {
            self.publish();
        }
    }

    /// Begins to read a service that is due.
    fn next_read(&mut self, running: &Running) -> Option<BoxFuture<'static, Reading>> {
        let now = Instant::now();
        for (service, known) in &mut self.known {
            if known.reading {
                continue;
            }
            let backend = self.backends.named(&known.backend);
            let instances = running.get(&known.backend).cloned().unwrap_or_default();
            let is_new = instances != known.instances && !instances.is_empty();
            let again = known.failure.as_ref().is_some_and(|it| it.again <= now);
            if known.asked && !is_new && !again {
                continue;
            }
            known.reading = true;
            known.instances = instances;
            let service = Arc::clone(service);
            return Some(Box::pin(async move {
                let read = async {
                    let files = backend.files(&service).await;
                    let files = files.map_err(|status| status.message().to_owned())?;
                    Service::read(&service, files)
                };
                let read = time::timeout(READ_MAX, read).await;
                let read = read.unwrap_or_else(|_| Err(format!("no answer within {READ_MAX:?}")));
                Reading { service, read }
            }));
        }
        None
    }

    /// Notes what came of a reading.
    fn take(&mut self, reading: Reading) {
        let Some(known) = self.known.get_mut(&reading.service) else {
            return;
        };
        known.reading = false;
        known.asked = true;
        if known.instances.is_empty() {
            // The first call to it found out who they are.
            let mut running = self.backends.instances();
            known.instances = running.remove(&known.backend).unwrap_or_default();
        }
        match reading.read {
            Ok(service) => {
                if known.failure.take().is_some() {
                    tracing::info!(rpc.service = &*reading.service, "service can be read again");
                }
                known.described = Some(Arc::new(service));
            }
            Err(error) => {
                let before = known.failure.take();
                if before.as_ref().is_none_or(|it| it.text != error) {
                    tracing::warn!(
                        rpc.service = &*reading.service,
                        backend = &*known.backend,
                        error,
                        "service cannot be read; it is called by gRPC alone and with a token, or as it was"
                    );
                }
                let pause = before.map_or(RETRY_MIN, |it| (it.pause * 2).min(RETRY_MAX));
                known.failure = Some(Failure {
                    text: error,
                    pause,
                    again: Instant::now() + pause,
                });
            }
        }
        if self.newest.borrow().is_some() {
            self.publish();
        }
    }

    /// Publishes once everybody was asked: before, what is unknown may only be unread.
    fn publish_first(&mut self) {
        let all = self.known.values().all(|it| it.asked);
        if all && self.newest.borrow().is_none() {
            self.publish();
        }
    }

    fn publish(&mut self) {
        let described = self.known.iter().filter_map(|(name, known)| {
            let described = known.described.as_ref()?;
            Some((Arc::clone(name), Arc::clone(described)))
        });
        let services: BTreeMap<_, _> = described.collect();
        let mut routes = Routes::default();
        let mut faults = BTreeSet::new();
        for service in services.values() {
            faults.extend(service.bindings.faults.iter().cloned());
            for binding in &service.bindings.sound {
                if let Err(other) = routes.add(Arc::clone(binding)) {
                    faults.insert(format!(
                        "{}: {} {} is answered by {} already",
                        binding.method.descriptor.full_name(),
                        binding.verb,
                        binding.template,
                        other.method.descriptor.full_name(),
                    ));
                }
            }
        }
        for fault in faults.difference(&self.told) {
            tracing::warn!(error = fault, "rule of HTTP is left out");
        }
        self.told = faults;
        let is_partial = self.known.values().any(|it| !it.asked);
        let api = Api {
            gone: self.gone(),
            services,
            leaving: self.leaving.clone(),
            routes,
            is_partial,
            pages: Pages::default(),
        };
        self.newest.send_replace(Some(Arc::new(api)));
    }

    fn gone(&self) -> Gone {
        let mut routes = Routes::default();
        let bindings = self.gone.values().flat_map(|it| &it.bindings.sound);
        for binding in bindings {
            // Of two that went, the first is as good as the other.
            drop(routes.add(Arc::clone(binding)));
        }
        Gone {
            services: self.gone.clone(),
            routes,
        }
    }
}
