//! The platform's part of every service's configuration.

use super::{drain, registry};
use crate::{
    admin, client,
    config::{self, Both, Live},
    discovery::registration,
    health,
    limit::{concurrency, rate, shed},
    policy::Policy,
    telemetry,
    transport::server,
};

config::section! {
    /// The platform's sections; a service's own stand beside them in the same files.
    pub struct Platform {
        /// Where calls are taken.
        pub listen: section server::Config;
        /// How much is taken on.
        pub limits: section server::Limits;
        /// How many calls are in flight.
        pub concurrency: section concurrency::Config;
        /// Who is counted for the quotas of policies.
        pub rate: section rate::Config;
        /// What is refused while the process is overloaded.
        pub shed: section shed::Config;
        /// Whom the service calls, by the names it uses in `app.client(…)`.
        pub clients: map of client::Config, restart;
        /// What holds for the calls of each method, served here or called from here:
        /// `[policies."pkg.v1.Service/Method"]`, `[policies."pkg.v1.Service/*"]`, `[policies."*"]`.
        pub policies: map of Policy, live;
        /// Where services register and find each other.
        pub etcd: section registry::Etcd;
        /// How this service is found.
        pub registration: section registration::Config;
        /// Describe the services to whoever asks (gRPC reflection). By default where the listener
        /// is loopback.
        pub reflection: Option<bool> = None, restart;
        /// The side port.
        pub admin: section admin::Config;
        /// Health checks.
        pub health: section health::Config;
        /// What the process tells, and to whom.
        pub telemetry: section telemetry::Config;
        /// The end of the process.
        pub shutdown: section drain::Config;
        /// How the process works inside.
        pub runtime: section Runtime;
    }
    validate = Platform::check;
}

impl Platform {
    /// Whether this process is to be found by others.
    pub(super) fn registers(&self) -> bool {
        let wanted = self.registration.enabled.unwrap_or(true);
        wanted && self.etcd.is_configured()
    }

    fn check(&self, check: &mut config::Check<'_, '_>) {
        if self.registration.enabled == Some(true) && !self.etcd.is_configured() {
            let reason = "expected etcd.endpoints beside it, where to register";
            check.refuse("registration.enabled", reason);
        }
        let anywhere = self.listen.address.ip().is_unspecified();
        if self.registers() && anywhere && self.registration.address.is_none() {
            let reason = format!(
                "expected an address: nobody can reach listen.address {}",
                self.listen.address
            );
            check.refuse("registration.address", reason);
        }
    }
}

config::section! {
    /// How the process works inside.
    pub struct Runtime {
        /// Threads that run tasks; by default one for each processor.
        pub worker_threads: Option<usize> = None, restart;
    }
    validate = Runtime::check;
}

impl Runtime {
    fn check(&self, check: &mut config::Check<'_, '_>) {
        if self.worker_threads == Some(0) {
            check.refuse("worker_threads", "expected at least 1");
        }
    }
}

/// The whole configuration of a process.
pub(super) struct Settings<C> {
    /// The values in force.
    pub(super) live: Live<Both<Platform, C>>,
    /// How it stands, and how to read it again.
    pub(super) handle: config::Handle,
}

impl<C> Clone for Settings<C> {
    fn clone(&self) -> Self {
        Self {
            live: self.live.clone(),
            handle: self.handle.clone(),
        }
    }
}
