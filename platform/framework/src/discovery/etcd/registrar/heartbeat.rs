//! What keeps a lease alive.

use std::time::Duration;

use etcd_client::{Client, LeaseKeepAliveStream, LeaseKeeper};
use tokio::time::{self, Instant};

use super::{Over, ended, lost};
use crate::discovery::etcd::{Error, Etcd, refused};

const WHAT: &str = "keep the lease alive";

/// How long an answer of etcd may take for a lease of `ttl`.
///
/// As long as the lease can bear, as an etcd that is slow still keeps it: a third of its time
/// passes before it is asked for again, and what is left after three fifths more is for another
/// stream, should this one be dead.
pub(super) fn patience(ttl: Duration) -> Duration {
    ttl * 3 / 5
}

/// A stream over which a lease is asked for every third of its time, once at a time.
pub(super) struct Heartbeat {
    keeper: LeaseKeeper,
    answers: LeaseKeepAliveStream,
    ttl: Duration,
    /// When it was last asked.
    asked: Instant,
}

impl Heartbeat {
    /// Begins with the first question, and its answer.
    pub(super) async fn start(
        etcd: &Etcd,
        client: &mut Client,
        lease: i64,
        ttl: Duration,
    ) -> Result<Self, Over> {
        let asked = Instant::now();
        // One that says that the lease is gone fails.
        let kept = client.lease_keep_alive(lease);
        let (keeper, answers) = etcd.bounded(WHAT, kept).await.map_err(lost)?;
        Ok(Self {
            keeper,
            answers,
            ttl,
            asked,
        })
    }

    /// Since when the lease has all of its time, as of the last answer.
    pub(super) fn since(&self) -> Instant {
        self.asked
    }

    /// The next question and its answer.
    pub(super) async fn beat(&mut self) -> Result<(), Over> {
        // An etcd whose answers take longer than that is asked again at once.
        time::sleep_until(self.asked + self.ttl / 3).await;
        self.asked = Instant::now();
        let answer = async {
            self.keeper.keep_alive().await?;
            self.answers.message().await
        };
        let timeout = patience(self.ttl);
        let answer = time::timeout(timeout, answer).await;
        let answer = answer.map_err(|_| Error::TimedOut {
            what: WHAT,
            timeout,
        })?;
        match answer.map_err(|error| refused(WHAT, &error))? {
            Some(answer) if answer.ttl() > 0 => Ok(()),
            Some(_) => Err(Over::Lost("the lease is gone")),
            None => Err(ended(WHAT).into()),
        }
    }
}
