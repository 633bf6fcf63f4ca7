//! How a target is configured.

use std::{path::PathBuf, time::Duration};

use crate::{
    backoff, balance,
    config::{self, Check, LONGEST},
    discovery::Target,
    limit::{bulkhead, throttle},
    transport::subchannel,
};

config::section! {
    /// How one peer is called; `[clients.catalog]` in a file.
    pub struct Config {
        /// Where it is: addresses as in `127.0.0.1:5001,127.0.0.1:5002`, or a name as in
        /// `dns:///catalog.internal:443`, `etcd:///catalog`, `go-zero:///catalog.rpc`,
        /// `kratos:///catalog` or `kitex:///catalog`. Without one it is the client's name in etcd;
        /// without etcd every call fails.
        pub target: Option<String> = None, restart;
        /// Longest time of a unary call whose caller sets none. Streams have no default.
        pub timeout_default: Duration = Duration::from_secs(5), in Duration::ZERO..=LONGEST, restart;
        /// How long calls wait for a ready endpoint, counted from when there was none.
        pub fail_fast: Duration = Duration::from_secs(3), in Duration::ZERO..=LONGEST, restart;
        /// Longest time to a usable connection, TLS included.
        pub connect_timeout: Duration = Duration::from_secs(2), in Duration::ZERO..=LONGEST, restart;
        /// First pause after a failed connection; grows by 1.6 each time, spread by a fifth.
        pub backoff_min: Duration = Duration::from_secs(1), in Duration::ZERO..=LONGEST, restart;
        /// Longest pause between connections.
        pub backoff_max: Duration = Duration::from_mins(2), in Duration::ZERO..=LONGEST, restart;
        /// Silence after which an endpoint is pinged that says that it bears it, as services of this
        /// platform do; any other after five minutes. 0s switches pings off.
        pub keepalive_interval: Duration = Duration::from_secs(5), in Duration::ZERO..=LONGEST, restart;
        /// Whether endpoints that say nothing are pinged as often. A gRPC server ends a connection on
        /// which it is pinged more often than it is set up to bear.
        pub keepalive_always: bool = false, restart;
        /// How long a ping may stay unanswered before the endpoint is taken for dead.
        pub keepalive_timeout: Duration = Duration::from_secs(5), in Duration::ZERO..=LONGEST, restart;
        /// Connections to one endpoint at most; more than one is opened only when the
        /// endpoint's own limit on streams is reached.
        pub connections_max: usize = 10, in 1..=100, restart;
        /// Calls that may wait in line for a stream at one endpoint.
        pub waiting_max: usize = 4_096, in 0..=1_000_000, restart;
        /// Whether an endpoint gets calls only while it reports by grpc.health.v1 that it
        /// serves. One that does not know that contract counts as serving.
        pub health: bool = true, restart;
        /// The service whose health counts; empty is the endpoint as a whole.
        pub health_service: String = String::new(), restart;
        /// How many calls may be in flight.
        pub bulkhead: section bulkhead::Config;
        /// How calls that fail spare the target others.
        pub throttle: section throttle::Config;
        /// Encrypts the connections.
        pub tls: optional section Tls, restart;
        /// Which of its endpoints are connected, and how calls are spread over them.
        pub balance: section balance::Config;
    }
    validate = Config::check;
}

config::section! {
    /// How a peer proves who it is. Files are read at every connection, so that a renewed
    /// certificate is used without a restart.
    pub struct Tls {
        /// Certificates in PEM that must have signed the peer's.
        pub ca: Option<PathBuf> = None, restart;
        /// The name the peer's certificate must hold; the target's host, if not set.
        pub server_name: Option<String> = None, restart;
        /// Certificate chain in PEM that proves who we are, where the peer asks.
        pub certificate: Option<PathBuf> = None, restart;
        /// Its private key in PEM.
        pub key: Option<PathBuf> = None, restart;
    }
    validate = Tls::check;
}

impl Config {
    /// For calls to `target`, as people write it.
    #[must_use]
    pub fn to(target: impl Into<String>) -> Self {
        Self {
            target: Some(target.into()),
            ..Self::default()
        }
    }

    fn check(&self, check: &mut Check<'_, '_>) {
        if let Some(target) = &self.target
            && let Err(error) = target.parse::<Target>()
        {
            check.refuse("target", error.to_string());
        }
        if let Err(error) = backoff::Backoff::new(self.backoff()) {
            let key = match error {
                backoff::ConfigError::MaxBelowMin => "backoff_max",
                _ => "backoff_min",
            };
            check.refuse(key, error.to_string());
        }
        for (key, value) in [
            ("timeout_default", self.timeout_default),
            ("connect_timeout", self.connect_timeout),
            ("keepalive_timeout", self.keepalive_timeout),
        ] {
            if value.is_zero() {
                check.refuse(key, "expected more than 0s");
            }
        }
    }

    fn backoff(&self) -> backoff::Config {
        backoff::Config {
            min: self.backoff_min,
            max: self.backoff_max,
            ..backoff::Config::default()
        }
    }

    pub(super) fn subchannel(&self) -> subchannel::Config {
        subchannel::Config {
            connect_timeout: self.connect_timeout,
            backoff: self.backoff(),
            keepalive_interval: Some(self.keepalive_interval).filter(|pause| !pause.is_zero()),
            keepalive_always: self.keepalive_always,
            keepalive_timeout: self.keepalive_timeout,
            connections_max: self.connections_max,
            waiting_max: self.waiting_max,
            health: self.health.then(|| self.health_service.clone()),
        }
    }
}

impl Tls {
    pub(super) fn files(&self) -> subchannel::TlsFiles {
        subchannel::TlsFiles {
            ca: self.ca.clone().unwrap_or_default(),
            proof: self.certificate.clone().zip(self.key.clone()),
        }
    }

    fn check(&self, check: &mut Check<'_, '_>) {
        if self.certificate.is_some() != self.key.is_some() {
            check.refuse("key", "expected certificate and key together, or neither");
        }
        if self.ca.is_none() {
            check.refuse("ca", "expected the certificates to trust");
        }
    }
}
