//! Somebody's account at the shop.

use std::time::Duration;

use gantry::{
    backoff::{self, Backoff},
    status,
};
use tokio::{
    sync::Mutex,
    time::{self, Instant},
};
use tonic::{Code, Status};

use crate::shop::{Shop, Token};

/// Pauses while the shop is away.
const PAUSES: backoff::Config = backoff::Config {
    min: Duration::from_millis(500),
    max: Duration::from_secs(10),
    multiplier: 2.0,
    jitter: 0.2,
};

/// A token is used this long; it holds a little longer.
const TOKEN_AGE_MAX: Duration = Duration::from_mins(10);

/// An account that nobody else can use: its password is forgotten with the process.
pub(crate) struct Account {
    shop: Shop,
    email: String,
    password: String,
    /// The token, and since when. Locked while it is asked for, so that it is asked for once.
    token: Mutex<Option<(Token, Instant)>>,
}

impl Account {
    pub(crate) fn new(shop: Shop) -> Self {
        Self {
            shop,
            email: format!("demo-{:016x}@example.com", fastrand::u64(..)),
            password: format!("{:032x}", fastrand::u128(..)),
            token: Mutex::new(None),
        }
    }

    /// Opens the account. That the shop is not there yet is no failure: everything starts at once.
    pub(crate) async fn open(&self) {
        let mut pauses = pauses();
        loop {
            match self.shop.register(&self.email, &self.password).await {
                Ok(()) => return,
                // An answer got lost.
                Err(status) if status.code() == Code::AlreadyExists => return,
                Err(status) => later(&mut pauses, &status, "nobody can register yet").await,
            }
        }
    }

    /// Makes the account one of the staff, as whoever runs the shop does.
    pub(crate) async fn join_staff(&self) {
        let mut pauses = pauses();
        while let Err(status) = self.promote().await {
            later(&mut pauses, &status, "nobody can join the staff yet").await;
        }
    }

    async fn promote(&self) -> Result<(), Status> {
        let (_, account_id) = self.shop.log_in(&self.email, &self.password).await?;
        self.shop.make_staff(account_id).await
    }

    pub(crate) async fn token(&self) -> Result<Token, Status> {
        let mut held = self.token.lock().await;
        if let Some((token, since)) = &*held
            && since.elapsed() < TOKEN_AGE_MAX
        {
            return Ok(token.clone());
        }
        let (token, _) = self.shop.log_in(&self.email, &self.password).await?;
        *held = Some((token.clone(), Instant::now()));
        Ok(token)
    }

    /// Forgets the token: it is not taken any more.
    pub(crate) async fn forget(&self) {
        *self.token.lock().await = None;
    }
}

/// Waits before the next try after one that failed.
async fn later(pauses: &mut Backoff, failed: &Status, what: &str) {
    let code = status::code_name(failed.code());
    tracing::debug!(code, cause = failed.message(), "{what}");
    time::sleep(pauses.next_pause()).await;
}

pub(crate) fn pauses() -> Backoff {
    Backoff::new(PAUSES).expect("the pauses are above zero and grow")
}
