//! What runs in `up` in place of something larger: where it listens, and how it is kept running.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use gantry::{shutdown::Tasks, status::chain, transport::server::BindError};
use gantry_local::{StoreError, broker::Broker, etcd::Etcd};
use tokio::time;

use crate::{failure::Failure, up::Show};

/// Pause before one whose disk failed begins anew.
const PAUSE: Duration = Duration::from_secs(1);

/// Which one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kind {
    /// What it stands in for.
    pub(crate) name: &'static str,
    /// Where its clients look for it.
    pub(crate) port: u16,
    /// How far above `--port-base` it is.
    pub(crate) offset: u16,
    /// The option that has another in its place.
    pub(crate) option: &'static str,
}

impl Kind {
    /// Which port it has: the usual one, or by `--port-base`, where 0 takes a free one.
    pub(crate) fn port(self, base: Option<u16>) -> Result<u16, Failure> {
        match base {
            None => Ok(self.port),
            Some(0) => Ok(0),
            Some(base) => base.checked_add(self.offset).ok_or_else(|| {
                Failure::usage(format!(
                    "--port-base {base}: expected 0, or room for ports above it"
                ))
            }),
        }
    }

    /// Where it listens on `port`.
    pub(crate) fn address(port: u16) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, port))
    }

    /// Why it cannot listen.
    pub(crate) fn taken(self, error: BindError) -> Failure {
        let Self { name, option, .. } = self;
        match error {
            BindError::Taken { address, holder } => Failure::failed(format!(
                "port {} of the local {name} is taken by {}; move it with --port-base N, or use \
                 another {name} with {option} URL",
                address.port(),
                holder.as_deref().unwrap_or("another process")
            )),
            error => Failure::failed(chain(&error)),
        }
    }
}

/// What is kept running.
pub(crate) trait StandIn: Send + Sized + 'static {
    /// Answers until `tasks` stop.
    fn run(self, tasks: Tasks) -> impl Future<Output = Result<(), StoreError>> + Send;
}

impl StandIn for Etcd {
    async fn run(self, tasks: Tasks) -> Result<(), StoreError> {
        Self::run(self, tasks).await
    }
}

impl StandIn for Broker {
    async fn run(self, tasks: Tasks) -> Result<(), StoreError> {
        Self::run(self, tasks).await
    }
}

/// Runs one until `tasks` stop; opens another where its disk fails.
pub(crate) async fn keep<S: StandIn>(
    kind: Kind,
    first: S,
    open: impl Fn() -> Result<S, Failure>,
    tasks: Tasks,
    show: Show,
) {
    let mut next = Some(first);
    let stopping = tasks.stopping();
    while !stopping.is_cancelled() {
        let opened = match next.take() {
            Some(first) => Ok(first),
            None => open(),
        };
        let failed = match opened {
            Ok(opened) => match StandIn::run(opened, tasks.clone()).await {
                Ok(()) => return,
                Err(error) => chain(&error),
            },
            Err(failure) => failure.to_string(),
        };
        show.note(&format!("the local {} begins anew: {failed}", kind.name));
        // Cut short by the end.
        stopping.run_until_cancelled(time::sleep(PAUSE)).await;
    }
}
