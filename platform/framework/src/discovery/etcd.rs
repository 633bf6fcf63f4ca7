//! etcd: where services register, and where their callers find them.
//!
//! ```text
//!            ┌─ Feed: list, then watch ─▶ View: what is there ─▶ Resolution (watch) ─▶ balancers
//! etcd ──────┤                             (panic floor)  └▶ snapshot on disk
//!            └─ Registrar: lease, one transaction, keepalive, watch of its own keys
//! ```
//!
//! All of it goes over one channel of ours, given by whoever composes the process, so that
//! failover between members, keepalive and back-off are the client stack's. Each request has a
//! deadline of its own, and at most one of a kind is under way, so that a slow etcd piles up
//! nothing. No call of the service waits for any of this.

mod directory;
mod feed;
mod layout;
mod outage;
mod pages;
mod reader;
mod registrar;
mod resolver;
mod snapshot;
mod view;

use std::{fmt, time::Duration};

use etcd_client::{Channel, Client, ConnectOptions};
use http::{Request, Response};
use tokio::time;
use tonic::body::Body;
use tower::{Service, util::BoxCloneSyncService};

use crate::{BoxError, backoff, config::Secret, status};

pub use self::{
    directory::follow as directory,
    layout::Malformed,
    reader::{Entry, Reader},
    registrar::Registrar,
    resolver::Resolver,
};

/// Pauses after a failure. The longest keeps the return after an outage well below the 15 s in
/// which everybody shall be registered again.
const BACKOFF: backoff::Config = backoff::Config {
    min: Duration::from_millis(200),
    max: Duration::from_secs(3),
    multiplier: 1.6,
    jitter: 0.2,
};

/// Who we are to etcd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// The user.
    pub user: String,
    /// The password.
    pub password: Secret,
}

/// etcd's API over one channel; clones share it.
#[derive(Clone)]
pub struct Etcd {
    channel: Channel,
    login: Option<Login>,
    timeout: Duration,
}

impl fmt::Debug for Etcd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Etcd")
            .field("login", &self.login)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

/// What went wrong with a request to etcd.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No answer came in time; it may have been done all the same.
    #[error("{what}: no answer from etcd within {timeout:?}")]
    TimedOut {
        /// What was asked.
        what: &'static str,
        /// How long it was waited for.
        timeout: Duration,
    },
    /// etcd, or the way to it, refused.
    #[error("{what}: {code}: {message}")]
    Refused {
        /// What was asked.
        what: &'static str,
        /// The gRPC code.
        code: &'static str,
        /// What was said to it.
        message: String,
    },
    /// The answer is not one.
    #[error("{what}: {message}")]
    Answer {
        /// What was asked.
        what: &'static str,
        /// What is wrong with the answer.
        message: String,
    },
}

impl Etcd {
    /// Reaches etcd through `channel`; does no I/O. `timeout` is the longest wait for one answer.
    #[must_use]
    pub fn new<S>(channel: S, login: Option<Login>, timeout: Duration) -> Self
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = BoxError>,
        S: Clone + Send + Sync + 'static,
        S::Future: Send + 'static,
    {
        Self {
            channel: Channel::Custom(BoxCloneSyncService::new(channel)),
            login,
            timeout,
        }
    }

    /// The same, with `least` for an answer where it would have less.
    fn patient(&self, least: Duration) -> Self {
        Self {
            timeout: self.timeout.max(least),
            ..self.clone()
        }
    }

    /// A client for one round of requests; logs in where that is configured.
    async fn client(&self) -> Result<Client, Error> {
        // A member without a leader refuses instead of telling what it last knew.
        let mut options = ConnectOptions::new().with_require_leader(true);
        if let Some(Login { user, password }) = &self.login {
            options = options
                .with_user(user, password.expose())
                .with_auto_token_refresh(true);
        }
        let connected = Client::from_channel(self.channel.clone(), Some(options));
        self.bounded("log in", connected).await
    }

    /// Waits for one answer, within bounds.
    async fn bounded<T>(
        &self,
        what: &'static str,
        answer: impl Future<Output = Result<T, etcd_client::Error>>,
    ) -> Result<T, Error> {
        match time::timeout(self.timeout, answer).await {
            Ok(answer) => answer.map_err(|error| refused(what, &error)),
            Err(_) => Err(Error::TimedOut {
                what,
                timeout: self.timeout,
            }),
        }
    }
}

fn refused(what: &'static str, error: &etcd_client::Error) -> Error {
    match error {
        etcd_client::Error::GRpcStatus(status) => Error::Refused {
            what,
            code: status::code_name(status.code()),
            message: status.message().to_owned(),
        },
        other => Error::Answer {
            what,
            message: other.to_string(),
        },
    }
}

#[cfg(test)]
mod tests;
