//! Who answers for which service.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use gantry::{
    client::{Channel, Clients},
    discovery::{Directory, Services, Unfound},
    status::{self, Refusal},
};
use tonic::Status;

/// The services that are registered, and a channel to each name that was called; clones share them.
#[derive(Debug, Clone)]
pub struct Backends {
    directory: Directory,
    clients: Clients,
    called: Arc<Mutex<Called>>,
}

/// What was called; no more than the registry has, and what it lost and is reachable all the same.
#[derive(Debug, Default)]
struct Called {
    /// By name.
    channels: HashMap<Arc<str>, Channel>,
    /// The name of each service.
    names: HashMap<Arc<str>, Arc<str>>,
}

impl Called {
    /// Whether calls to `name` arrive.
    fn is_ready(&self, name: &str) -> bool {
        self.channels.get(name).is_some_and(Channel::is_ready)
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
        }
    }

    /// A channel to whoever serves `service`. One that was registered and is still reachable serves
    /// it, whatever became of the registry.
    ///
    /// # Errors
    ///
    /// UNIMPLEMENTED if nobody does, UNAVAILABLE as long as the registry was not read.
    pub fn of(&self, service: &str) -> Result<Channel, Status> {
        let found = self.directory.find(service);
        let mut called = self.called();
        match found {
            Ok(name) => {
                if called.names.get(service) != Some(&name) {
                    called.names.insert(service.into(), Arc::clone(&name));
                }
                Ok(self.channel(&mut called, name))
            }
            Err(error) => {
                let name = called.names.get(service);
                let channel = name.and_then(|name| called.channels.get(name));
                let ready = channel.filter(|it| it.is_ready());
                ready.cloned().ok_or_else(|| refusal(error, service))
            }
        }
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

    /// The services by full name, each with a channel to whoever serves it.
    ///
    /// # Errors
    ///
    /// As [`Backends::services`].
    pub fn all(&self) -> Result<Vec<(Arc<str>, Channel)>, Status> {
        let services = self.services()?;
        let mut called = self.called();
        let all = services.iter().map(|(service, name)| {
            let channel = self.channel(&mut called, Arc::clone(name));
            (Arc::clone(service), channel)
        });
        Ok(all.collect())
    }

    fn channel(&self, called: &mut Called, name: Arc<str>) -> Channel {
        let channels = called.channels.entry(name);
        let channel = channels.or_insert_with_key(|name| self.clients.channel(name, &[]));
        channel.clone()
    }

    /// Lets go of names that went and are not reachable, for ever. Calls in flight go on.
    pub async fn tidy(mut self) {
        while self.directory.changed().await.is_ok() {
            let services = self.directory.services().unwrap_or_default();
            let registered: BTreeSet<_> = services.values().collect();
            let mut called = self.called();
            let gone: Vec<_> = called.channels.keys().cloned().collect();
            for name in gone {
                if !registered.contains(&name) && !called.is_ready(&name) {
                    called.channels.remove(&name);
                    called.names.retain(|_, it| *it != name);
                    self.clients.release(&name);
                }
            }
        }
    }

    fn called(&self) -> MutexGuard<'_, Called> {
        self.called.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
