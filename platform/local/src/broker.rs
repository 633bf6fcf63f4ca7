//! A broker on one machine, in the process that asks for it.
//!
//! It does what its contract says (`proto/gantry/broker/v1/broker.proto`): what is confirmed, and
//! what is settled, is on disk and survives `kill -9`.
//!
//! What differs from RabbitMQ, beside its protocol:
//!
//! | here | RabbitMQ |
//! | --- | --- |
//! | everything is in memory too; bounded by [`Config::size_max`] and [`Config::messages_max`] | read from disk |
//! | a group has as much of that as is free beside it; what would be more is refused, of that group alone | as long as there is memory and disk, then publishers stand still |
//! | a message comes again after the very time that was asked | after the next of a few pauses |
//! | no users, no exchanges | both |
//!
//! ```text
//! grpc ──▶ owner ──▶ engine (groups, queues, consumers)     what is asked
//!   ▲        ├─────▶ store  (the file)
//!   └────────┴─────▶ tail                                   what is told
//! ```

mod engine;
mod grpc;
mod owner;
mod store;
mod tail;
mod telemetry;
mod time;

use std::net::SocketAddr;

use gantry::{
    config::Size,
    server::Stack,
    shutdown::Tasks,
    transport::server::{BindError, Limits, Listener},
};

use crate::serve::{self, ListenError};
pub use crate::{Data, Listen, StoreError};
use engine::{Bounds, Engine};
use owner::{Owner, State};
use store::Store;
use time::Clock;

/// What to serve, and where.
#[derive(Debug)]
pub struct Config {
    /// Where messages are kept.
    pub data: Data,
    /// Where to listen.
    pub listen: Listen,
    /// Groups at most.
    pub groups_max: usize,
    /// Copies of messages kept for all groups together, dead letters too; no message is taken
    /// beyond. Each group has as much of them as is free beside it.
    pub messages_max: usize,
    /// Memory for them, roughly; shared among groups likewise.
    pub size_max: Size,
    /// Largest message, with topic, key and headers.
    pub message_max: Size,
    /// Consumers at most, those that wait included.
    pub consumers_max: usize,
    /// Those who read along, at most.
    pub tails_max: usize,
}

impl Default for Config {
    /// In memory, on a free port.
    fn default() -> Self {
        Self {
            data: Data::Memory,
            listen: Listen::anywhere(),
            groups_max: 256,
            messages_max: 1_000_000,
            size_max: Size::mib(512),
            message_max: Size::mib(1),
            consumers_max: 8_192,
            tails_max: 32,
        }
    }
}

/// Why it cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The data cannot be used.
    #[error("local broker")]
    Store(#[from] StoreError),
    /// The address cannot be listened on.
    #[error("local broker")]
    Listen(#[from] BindError),
    /// The socket given cannot be used.
    #[error("local broker: use the listening socket")]
    Socket(#[source] std::io::Error),
}

/// A broker that listens and has read its data, but does not answer yet.
///
/// Connections that arrive before [`Broker::run`] wait. Dropping it closes the socket and the file.
#[derive(Debug)]
pub struct Broker {
    listener: Listener,
    stack: Stack,
    owner: Owner,
    handle: Handle,
}

/// Where a broker is; cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handle {
    address: SocketAddr,
}

impl Handle {
    /// The address bound, with the port that was taken.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What a client is given to connect.
    #[must_use]
    pub fn url(&self) -> String {
        format!("grpc://{}", self.address)
    }
}

impl Broker {
    /// Binds the socket, then opens the data and reads all of it. Call it within a runtime; it
    /// blocks for as long as the disk takes.
    ///
    /// # Errors
    ///
    /// If the address is taken or not loopback, or the data is in use, damaged or unreadable.
    ///
    /// # Panics
    ///
    /// Outside a runtime.
    pub fn open(config: Config) -> Result<Self, OpenError> {
        let limits = limits().live();
        let bounds = Bounds {
            groups: config.groups_max,
            messages: config.messages_max,
            bytes: config.size_max.as_usize(),
            consumers: config.consumers_max,
        };
        let (listener, address) =
            serve::listen(config.listen, limits.clone()).map_err(|error| match error {
                ListenError::Bind(error) => OpenError::Listen(error),
                ListenError::Socket(error) => OpenError::Socket(error),
            })?;
        let clock = Clock::new();
        let (engine, store) = match &config.data {
            Data::Memory => (Engine::new(bounds), None),
            Data::Folder(folder) => {
                let (store, saved) = Store::open(folder)?;
                let engine = Engine::restored(saved, bounds, clock.now());
                (engine, Some(store))
            }
        };
        let state = State::new(engine, store, clock, config.tails_max);
        let (owner, asker, departures) = Owner::new(state);
        let services = grpc::router(asker, departures, config.message_max.as_usize());
        let services = services.expect("the service is described");
        Ok(Self {
            listener,
            stack: Stack::new(services, limits),
            owner,
            handle: Handle { address },
        })
    }

    /// Where it is.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Answers until `tasks` stops, then ends every stream with UNAVAILABLE and closes.
    ///
    /// When it returns, and also when it is dropped, everything that was acknowledged is on disk.
    ///
    /// # Errors
    ///
    /// If the disk fails: nobody can be answered then, so it ends, and whoever supervises it
    /// begins anew.
    pub async fn run(self, tasks: Tasks) -> Result<(), StoreError> {
        serve::answer(self.listener, self.stack, self.owner.run(), tasks).await
    }
}

/// Bounds of the listener, where they differ from those of other stand-ins.
fn limits() -> Limits {
    Limits {
        receive_message_max: Size::mib(4),
        send_message_max: Size::mib(8),
        ..serve::limits()
    }
}
