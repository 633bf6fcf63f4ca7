//! etcd's v3 API on one machine, in the process that asks for it.
//!
//! Keys with all their versions, transactions, leases and watches, as etcd 3.6 has them: the same
//! answers, revisions and refusals, for `etcdctl` and every client library. What is acknowledged is
//! on disk and survives `kill -9`.
//!
//! What differs, and why:
//!
//! | here | etcd |
//! | --- | --- |
//! | history is compacted by itself to [`Config::history_revisions_max`] and [`Config::history_bytes_max`] | kept until someone compacts |
//! | a full store refuses to grow and goes on | raises an alarm that refuses all writes until cleared |
//! | no users, no snapshots, no second member: UNIMPLEMENTED | all there |
//! | everything is in memory too; bounded by [`Config::size_max`] | values are read from disk |
//! | a lease that could not be kept alive while this process was stopped goes on | ends |
//!
//! ```text
//! grpc ──▶ owner ──▶ engine (keys, versions, leases)     what is asked
//!   │        ├─────▶ lease  (when leases end)
//!   │        └─────▶ store  (the file)
//!   └─────▶ watch  ◀─────── engine's log                 what is told
//! ```

mod engine;
mod grpc;
mod lease;
mod owner;
mod store;
mod watch;

use std::{net::SocketAddr, time::Duration};

use gantry::{
    config::Size,
    server::Stack,
    shutdown::Tasks,
    transport::server::{BindError, Limits, Listener},
};
use tokio::time::Instant;

use crate::serve::{self, ListenError};
pub use crate::{Data, Listen, StoreError};
use engine::{Bounds, Engine};
use grpc::Shared;
use lease::Clock;
use owner::{Owner, State};
use store::{Identity, Store};

/// What to serve, and where.
#[derive(Debug)]
pub struct Config {
    /// Where keys are kept.
    pub data: Data,
    /// Where to listen.
    pub listen: Listen,
    /// Where clients are told to find this server; none for where it listens.
    pub client_urls: Vec<String>,
    /// Revisions of history kept: what a watcher may be behind, and how far back can be read.
    /// Older history is compacted away.
    pub history_revisions_max: u32,
    /// Bytes of history kept, roughly: keys and values that were replaced or deleted since. What
    /// is beyond is compacted away, the oldest first, however few revisions that leaves.
    pub history_bytes_max: Size,
    /// Memory for keys, their history and leases, roughly; what would take more is refused.
    pub size_max: Size,
    /// How often a watch that asks for it is told how far it is while nothing happens.
    pub progress_interval: Duration,
}

impl Default for Config {
    /// In memory, on a free port.
    fn default() -> Self {
        Self {
            data: Data::Memory,
            listen: Listen::anywhere(),
            client_urls: Vec::new(),
            history_revisions_max: 10_000,
            history_bytes_max: Size::mib(16),
            size_max: Size::mib(256),
            progress_interval: Duration::from_mins(10),
        }
    }
}

/// Why it cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The data cannot be used.
    #[error("local etcd")]
    Store(#[from] StoreError),
    /// The address cannot be listened on.
    #[error("local etcd")]
    Listen(#[from] BindError),
    /// The socket given cannot be used.
    #[error("local etcd: use the listening socket")]
    Socket(#[source] std::io::Error),
}

/// A server that listens and has read its data, but does not answer yet.
///
/// Connections that arrive before [`Etcd::run`] wait. Dropping it closes the socket and the file.
#[derive(Debug)]
pub struct Etcd {
    listener: Listener,
    stack: Stack,
    owner: Owner,
    handle: Handle,
}

/// Where a server is; cheap to clone.
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
        format!("http://{}", self.address)
    }
}

impl Etcd {
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
        let (listener, address) =
            serve::listen(config.listen, limits.clone()).map_err(|error| match error {
                ListenError::Bind(error) => OpenError::Listen(error),
                ListenError::Socket(error) => OpenError::Socket(error),
            })?;
        let handle = Handle { address };
        let state = open(&config.data, config.size_max)?;
        let identity = state.identity;
        let history = Bounds {
            revisions: i64::from(config.history_revisions_max),
            bytes: config.history_bytes_max.as_usize(),
        };
        let (owner, asker) = Owner::new(state, history);
        let client_urls = if config.client_urls.is_empty() {
            vec![handle.url()]
        } else {
            config.client_urls
        };
        let services = grpc::router(Shared {
            asker,
            identity,
            client_urls,
            progress_interval: config.progress_interval,
        });
        let services = services.expect("every service is described");
        Ok(Self {
            listener,
            stack: Stack::new(services, limits),
            owner,
            handle,
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

fn open(data: &Data, size_max: Size) -> Result<State, StoreError> {
    let size_max = size_max.as_usize();
    let (engine, store, identity) = match data {
        Data::Memory => (Engine::new(size_max), None, Identity::random()),
        Data::Folder(folder) => {
            let (store, saved, identity) = Store::open(folder)?;
            (Engine::restored(saved, size_max), Some(store), identity)
        }
    };
    Ok(State {
        engine,
        clock: Clock::new(Instant::now()),
        identity,
        store,
        index: 0,
    })
}

/// Bounds of the listener, where they differ from those of other stand-ins.
fn limits() -> Limits {
    Limits {
        // Somewhat more than is taken, so that most of what is too large is refused in etcd's words.
        receive_message_max: Size::mib(4),
        send_message_max: Size::mib(1_024),
        ..serve::limits()
    }
}
