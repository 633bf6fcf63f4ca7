//! How an instance makes itself known to others, whatever keeps the registry.

use std::{net::SocketAddr, ops::RangeInclusive, sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::config;

config::section! {
    /// How this service is found by others, where `[etcd]` says where.
    pub struct Config {
        /// Register; by default where `etcd.endpoints` are given.
        pub enabled: Option<bool> = None, restart;
        /// Name in the registry; the program's own, if not set.
        pub name: Option<String> = None, restart;
        /// Where others reach this instance, as in `10.0.0.7:50051`; the address it listens on, if
        /// not set.
        pub address: Option<String> = None, restart;
        /// Begin paused: serve, and register only once that is resumed on the side port, as by
        /// `gantry resume`.
        pub paused: bool = false, restart;
        /// For whose clients: `etcd` (gRPC's own, grpc-go), `go-zero` (as NAME.rpc), `kratos`,
        /// `kitex`. All are written together.
        pub layouts: Vec<Layout> = vec![Layout::Etcd], restart;
        /// How long the registration outlives a process that is gone; kept alive every third of it.
        pub ttl: Duration = Duration::from_secs(10), in TTL, restart;
        /// Where this instance runs, for callers that prefer what is near.
        pub zone: Option<String> = None, restart;
        /// Its share of calls, in percent of an ordinary instance's.
        pub weight_percent: u32 = 100, in 1..=10_000, restart;
    }
    validate = Config::check;
}

impl Config {
    fn check(&self, check: &mut config::Check<'_, '_>) {
        if self.layouts.is_empty() {
            check.refuse(
                "layouts",
                "expected one at least; enabled = false registers nowhere",
            );
        }
        let Some(address) = &self.address else {
            return;
        };
        // A name would have to be looked up by every reader, ours included, again and again.
        let usable = address
            .parse::<SocketAddr>()
            .is_ok_and(|it| it.port() != 0 && !it.ip().is_unspecified());
        if !usable {
            let wanted = "expected IP:PORT, as in 10.0.0.7:50051";
            check.refuse("address", format!("{wanted}; `{address}` is not"));
        }
    }
}

const TTL: RangeInclusive<Duration> = Duration::from_secs(2)..=Duration::from_hours(1);

config::choice! {
    /// Whose convention a registration follows.
    pub enum Layout {
        /// etcd's own gRPC naming: `orders/10.0.0.1:50051`. What grpc-go finds as
        /// `etcd:///orders`, and what our own clients read.
        Etcd = "etcd",
        /// go-zero: `orders.rpc/ID` with the address as text.
        GoZero = "go-zero",
        /// Kratos: `/microservices/orders/ID`.
        Kratos = "kratos",
        /// Kitex: `kitex/registry-etcd/orders/10.0.0.1:50051`.
        Kitex = "kitex",
    }
}

impl Layout {
    /// Every layout. The word of each is also the scheme of targets that read it, as in
    /// `go-zero:///orders.rpc`.
    pub const ALL: [Self; 4] = [Self::Etcd, Self::GoZero, Self::Kratos, Self::Kitex];
}

/// What is announced of one instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announcement {
    /// The service's name in the registry.
    pub name: String,
    /// Where callers reach the instance: `host:port`.
    pub address: String,
    /// Which process it is, new at each start.
    pub instance: String,
    /// What it runs.
    pub version: String,
    /// Where it runs.
    pub zone: Option<String>,
    /// Its share of calls, in percent of an ordinary instance's.
    pub weight_percent: u32,
    /// When it started, in seconds since the Unix epoch.
    pub start_time: u64,
    /// Full names of the gRPC services it serves.
    pub services: Vec<String>,
    /// Whether it is called over TLS.
    pub tls: bool,
}

/// Where a registration is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// The instance does not serve yet.
    Waiting,
    /// It should be there and is not, or may not be.
    Registering,
    /// It is there.
    Registered,
    /// Taken back for the time being, as an operator wanted.
    Paused,
    /// Taken back for good.
    Left,
}

impl State {
    /// The word for this state in interfaces.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "WAITING",
            Self::Registering => "REGISTERING",
            Self::Registered => "REGISTERED",
            Self::Paused => "PAUSED",
            Self::Left => "LEFT",
        }
    }
}

/// A registration at one moment.
#[derive(Debug, Clone)]
pub struct Registration {
    /// Where it is.
    pub state: State,
    /// Since when.
    pub since: Instant,
    /// Whether it ever was [`State::Registered`].
    pub ever: bool,
    /// How often it was made, and made again.
    pub made: u64,
    /// Its lease in etcd.
    pub lease: i64,
    /// How long it outlives the process.
    pub ttl: Duration,
    /// The keys it has in etcd.
    pub keys: Arc<[String]>,
    /// What stands in its way, or went wrong last.
    pub error: Option<Arc<str>>,
}
