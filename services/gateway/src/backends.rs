//! Who answers for which service.

mod gone;

use std::{
    collections::{BTreeSet, HashMap},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use foldhash::fast::RandomState;
use gantry::{
    client::{Answer, Channel, Clients, Question, Reflection},
    discovery::{Directory, Services, Unfound},
    status::{self, Refusal},
};
use tokio::time;
use tonic::{Code, Status};

use self::gone::Gone;
use crate::hop::Hop;

/// When a call of a service that went is worth another try.
const GONE_PAUSE: Duration = Duration::from_secs(5);

/// How long a name that went, and is not reachable any more, may be kept.
const TIDY_PAUSE: Duration = Duration::from_secs(10);

/// Which process serves at which address.
pub type Instances = BTreeSet<(SocketAddr, Option<Arc<str>>)>;

/// Who serves, by name.
pub type Running = HashMap<Arc<str>, Instances>;

/// The services that are registered, and a channel to each name that was called; clones share them.
#[derive(Debug, Clone)]
pub struct Backends {
    directory: Directory,
    clients: Clients,
    called: Arc<Mutex<Called>>,
    gone: Arc<Mutex<Gone>>,
    hop: Hop,
}

/// What was called; no more than the registry has, and what it lost and is reachable all the same.
#[derive(Debug, Default)]
struct Called {
    /// By name.
    backends: HashMap<Arc<str>, Arc<Backend>, RandomState>,
    /// Who served it last, by service.
    services: HashMap<Arc<str>, Arc<Backend>, RandomState>,
}

impl Called {
    /// Whether calls to `name` arrive.
    fn is_ready(&self, name: &str) -> bool {
        let backend = self.backends.get(name);
        backend.is_some_and(|it| it.is_ready())
    }
}

/// Whoever is registered under one name.
#[derive(Debug)]
pub struct Backend {
    channel: Channel,
    /// How it describes itself, once that was found out.
    reflection: Mutex<Option<Reflection>>,
}

impl Backend {
    fn new(channel: Channel) -> Self {
        Self {
            channel,
            reflection: Mutex::default(),
        }
    }

    /// The name it is registered under.
    #[must_use]
    pub fn name(&self) -> &str {
        self.channel.name()
    }

    /// Whether calls to it arrive.
    fn is_ready(&self) -> bool {
        self.channel.is_ready()
    }

    /// What it says of itself.
    ///
    /// # Errors
    ///
    /// UNIMPLEMENTED if it has no reflection, or what it refuses the question with.
    pub async fn ask(&self, question: Question) -> Result<Answer, Status> {
        let known = self.reflection().clone();
        if let Some(known) = known {
            let answer = known.ask(question.clone()).await;
            // Another version of it may run by now.
            let outdated = |status: &Status| status.code() == Code::Unimplemented;
            if !answer.as_ref().is_err_and(outdated) {
                return answer;
            }
        }
        let (found, _) = Reflection::of(self.channel.clone()).await?;
        *self.reflection() = Some(found.clone());
        found.ask(question).await
    }

    /// The files of `service`, and all they import, as it has them.
    ///
    /// # Errors
    ///
    /// UNIMPLEMENTED if it has no reflection, or what it refuses the question with.
    pub async fn files(&self, service: &str) -> Result<Vec<Vec<u8>>, Status> {
        let (found, _) = Reflection::of(self.channel.clone()).await?;
        found.encoded_files(service).await
    }

    fn reflection(&self) -> MutexGuard<'_, Option<Reflection>> {
        let reflection = self.reflection.lock();
        reflection.unwrap_or_else(PoisonError::into_inner)
    }
}

impl Backends {
    /// Knows what `directory` knows; calls through `clients`.
    #[must_use]
    pub fn new(directory: Directory, clients: Clients) -> Self {
        Self {
            directory,
            clients,
            called: Arc::default(),
            gone: Arc::default(),
            hop: Hop::new(),
        }
    }

    /// A channel to whoever serves `service`. One that was registered and is still reachable serves
    /// it, whatever became of the registry.
    ///
    /// # Errors
    ///
    /// UNIMPLEMENTED if nobody does, UNAVAILABLE as long as the registry was not read, and for a while
    /// after the last instance went.
    pub fn of(&self, service: &str) -> Result<Channel, Status> {
        let found = self.directory.find(service);
        let mut called = self.called();
        match found {
            Ok(name) => match called.services.get(service) {
                Some(backend) if backend.name() == &*name => Ok(backend.channel.clone()),
                _ => {
                    let backend = self.backend(&mut called, name);
                    called.services.insert(service.into(), Arc::clone(&backend));
                    Ok(backend.channel.clone())
                }
            },
            Err(error) => {
                let backend = called.services.get(service).filter(|it| it.is_ready());
                let channel = backend.map(|it| it.channel.clone());
                channel.ok_or_else(|| match error {
                    Unfound::Unregistered if self.is_gone(service) => gone(service),
                    error => refusal(error, service),
                })
            }
        }
    }

    /// What tells calls that passed here already.
    #[must_use]
    pub fn hop(&self) -> &Hop {
        &self.hop
    }

    /// Whether calls of `service` arrive, registered or not.
    #[must_use]
    pub fn is_reachable(&self, service: &str) -> bool {
        let called = self.called();
        let backend = called.services.get(service);
        backend.is_some_and(|it| it.is_ready())
    }

    /// Whether `service` was registered a little while ago, and is not now.
    #[must_use]
    pub fn is_gone(&self, service: &str) -> bool {
        self.look_for_gone().has(service)
    }

    /// Compares what is registered with what was.
    fn look_for_gone(&self) -> MutexGuard<'_, Gone> {
        let mut gone = self.gone.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(services) = self.directory.services() {
            gone.follow(&services);
        }
        gone
    }

    /// The services by full name, each with the name of whoever serves it.
    ///
    /// # Errors
    ///
    /// UNAVAILABLE as long as the registry was not read.
    pub fn services(&self) -> Result<Arc<Services>, Status> {
        let services = self.directory.services();
        services.ok_or_else(|| refusal(Unfound::Unread, ""))
    }

    /// Whoever is registered under `name`.
    #[must_use]
    pub fn named(&self, name: &Arc<str>) -> Arc<Backend> {
        self.backend(&mut self.called(), Arc::clone(name))
    }

    /// Who serves what is called.
    #[must_use]
    pub fn instances(&self) -> Running {
        let states = self.clients.states().into_iter();
        let running = states.map(|state| {
            let endpoints = state.endpoints.into_iter();
            let instances = endpoints.map(|it| (it.addr, it.attributes.instance));
            (state.name, instances.collect())
        });
        running.collect()
    }

    fn backend(&self, called: &mut Called, name: Arc<str>) -> Arc<Backend> {
        let backend = called.backends.entry(name);
        let backend = backend.or_insert_with_key(|name| {
            let channel = self.hop.mark(self.clients.channel(name, &[]));
            Arc::new(Backend::new(channel))
        });
        Arc::clone(backend)
    }

    /// Lets go of names that went and are not reachable, for ever. Calls in flight go on.
    pub async fn tidy(mut self) {
        loop {
            self.release();
            // Both are cancel-safe. A name may go first and not be reachable only later.
            tokio::select! {
                changed = self.directory.changed() => if changed.is_err() {
                    return;
                },
                () = time::sleep(TIDY_PAUSE) => {}
            }
        }
    }

    fn release(&self) {
        // What goes is only seen by whoever looked before.
        drop(self.look_for_gone());
        let services = self.directory.services().unwrap_or_default();
        let registered: BTreeSet<_> = services.values().collect();
        let mut called = self.called();
        let gone: Vec<_> = called.backends.keys().cloned().collect();
        for name in gone {
            if !registered.contains(&name) && !called.is_ready(&name) {
                called.backends.remove(&name);
                called.services.retain(|_, it| it.name() != &*name);
                self.clients.release(&name);
            }
        }
    }

    fn called(&self) -> MutexGuard<'_, Called> {
        self.called.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a caller is told of a service whose last instance went a little while ago.
#[must_use]
pub fn gone(service: &str) -> Status {
    let text = format!("no instance of {service} is registered at this moment");
    Refusal::NoEndpoint.status_with_pause(text, GONE_PAUSE)
}

/// What a caller is told where nobody is found.
fn refusal(error: Unfound, service: &str) -> Status {
    match error {
        Unfound::Unregistered => {
            Refusal::Unimplemented.status(format!("unknown service {service}"))
        }
        // Whoever asks again is answered, once etcd is.
        Unfound::Unread => Refusal::NoEndpoint.status(status::chain(&error)),
    }
}
