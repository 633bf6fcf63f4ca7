//! What an instance needs from the outside, as a trait: processes, ports and health.
//!
//! The real one is [`System`](super::system::System); tests of the supervisor play it.

use std::{
    fmt,
    future::Future,
    io,
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    sync::Arc,
};

use super::machine::Health;

/// Where an instance listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Place {
    /// Its gRPC address.
    pub(crate) address: SocketAddr,
    /// Whether that is the address of all its service's instances, where gantry listens for them.
    pub(crate) shared: bool,
    /// Its side port.
    pub(crate) side_address: SocketAddr,
}

/// A socket that gantry listens at for all instances of a service.
#[derive(Debug, Clone)]
pub(crate) struct Socket {
    /// Handed on to each process.
    pub(crate) listener: Arc<TcpListener>,
    /// Where it listens.
    pub(crate) address: SocketAddr,
}

impl Socket {
    /// Listens at `address`.
    pub(crate) fn bind(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        Ok(Self {
            address: listener.local_addr()?,
            listener: Arc::new(listener),
        })
    }
}

impl PartialEq for Socket {
    fn eq(&self, other: &Self) -> bool {
        self.address == other.address
    }
}

impl Eq for Socket {}

/// A process to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Launch {
    /// Name of the instance, for its log.
    pub(crate) instance: String,
    /// Where it is told to listen.
    pub(crate) place: Place,
    /// What it listens at, where gantry does that for it.
    pub(crate) socket: Option<Socket>,
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<String>,
    /// On top of what `gantry` itself has, but for what is `hidden`.
    pub(crate) environment: Vec<(String, String)>,
    pub(crate) hidden: Vec<String>,
    pub(crate) folder: PathBuf,
}

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ended {
    /// By itself, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// It could not be started, or not be watched.
    Failed(String),
}

/// The code by which a service says that its configuration is wrong.
const CODE_CONFIGURATION: i32 = 2;

impl Ended {
    /// Whether the process refused to start as configured: another try comes to the same.
    pub(crate) fn is_configuration(&self) -> bool {
        *self == Self::Code(CODE_CONFIGURATION)
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exited with code {code}"),
            Self::Signal(signal) => write!(f, "was ended by signal {signal}"),
            Self::Failed(error) => write!(f, "did not run: {error}"),
        }
    }
}

/// The outside of the supervisor.
pub(crate) trait World: fmt::Debug + Send + Sync + 'static {
    type Process: Process;

    /// Finds `count` places nobody listens at; all different.
    fn places(&self, count: usize) -> io::Result<Vec<Place>>;

    /// Whether somebody listens at `place` now.
    fn taken(&self, place: Place) -> bool;

    /// Starts a process.
    fn start(&self, launch: &Launch) -> io::Result<Self::Process>;

    /// Looks at the health of the instance at `place`, within a bound of its own.
    fn probe(&self, place: Place) -> impl Future<Output = Health> + Send;
}

/// A started process; dropping it kills it.
pub(crate) trait Process: Send + 'static {
    fn pid(&self) -> u32;

    /// Waits for its end. Cancel-safe.
    fn wait(&mut self) -> impl Future<Output = Ended> + Send;

    /// Asks it to finish what it has, and end.
    fn drain(&self);

    /// Ends it at once.
    fn kill(&self);
}
