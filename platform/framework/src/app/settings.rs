//! The platform's part of every service's configuration.

use crate::{admin, config, health};

use super::drain;

config::section! {
    /// The platform's sections; a service's own stand beside them in the same files.
    pub struct Platform {
        /// How the process works inside.
        pub runtime: section Runtime;
        /// Describe the services to whoever asks (gRPC reflection). By default where the listener
        /// is loopback.
        pub reflection: Option<bool> = None, restart;
        /// The side port.
        pub admin: section admin::Config;
        /// Health checks.
        pub health: section health::Config;
        /// The end of the process.
        pub shutdown: section drain::Config;
    }
}

config::section! {
    /// How the process works inside.
    pub struct Runtime {
        /// Threads that run tasks; by default one for each processor.
        pub worker_threads: Option<usize> = None, restart;
    }
}
