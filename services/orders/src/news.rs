//! Tells accounts what became of their orders, through the notifications service.
//!
//! What is to be told is written down with the step itself and crossed out once it is told: each is
//! told at least once, under a name of its own by which telling it again changes nothing. No order
//! waits for it.
//!
//! News of one account are told one after the other, in the order in which they came about; what
//! fails holds up that account and nobody else. What is refused for good, or fails again and again
//! while others are told, is set aside, and the account's next is told.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use futures_util::{StreamExt as _, stream};
use gantry::{
    backoff::{self, Backoff},
    client::Channel,
    config::Live,
    status,
};
use gantry_store::Timestamp;
use shop_proto::notifications::v1::{
    NotificationKind, RecordNotificationRequest,
    notifications_service_client::NotificationsServiceClient,
};
use tokio::time::{self, Instant};
use tonic::{Code, Status};

use crate::{
    config::Orders,
    domain::OrderState,
    metrics::Metrics,
    placing::refuses,
    store::{News, Store},
};

/// Accounts that are told at once.
const TOLD_MAX: usize = 8;

/// Pauses while nobody listens.
const PAUSES: backoff::Config = backoff::Config {
    min: Duration::from_millis(500),
    max: Duration::from_secs(15),
    multiplier: 1.6,
    jitter: 0.2,
};

/// How long the news of one account are held after each failure of the oldest.
const HOLDS: backoff::Config = backoff::Config {
    min: Duration::from_secs(1),
    max: Duration::from_mins(10),
    multiplier: 2.0,
    jitter: 0.2,
};

/// Tries of one piece of news that fails where others do not: about two and a half hours, in which
/// somebody may have mended what fails.
const TRIES_MAX: u32 = 24;

/// How long ago others were told at the most, where they are told.
const OTHERS_TOLD_WITHIN: Duration = Duration::from_hours(1);

/// How long the news of an account are held whose try found nobody: others are tried first.
const AWAY_HOLD: Duration = Duration::from_secs(2);

/// Tells accounts, as long as it runs.
#[derive(Debug)]
pub struct Teller {
    store: Store,
    notifications: NotificationsServiceClient<Channel>,
    metrics: Metrics,
    /// When somebody was told last.
    told_at: Mutex<Option<Instant>>,
}

/// What a failed try leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// It is about the news themselves: the same answer comes to every try, or came to enough.
    SetAside,
    /// It may be about them; they have failed so often by now.
    Hold(u32),
    /// Nobody listens, whatever is told.
    Away,
}

/// What came of a round.
#[derive(Debug, Default)]
struct Round {
    told: usize,
    /// Why nobody else was told, where that is so.
    away: Option<Status>,
}

impl Teller {
    /// Tells what is in `store` to `notifications`.
    #[must_use]
    pub fn new(
        store: Store,
        notifications: NotificationsServiceClient<Channel>,
        metrics: Metrics,
    ) -> Self {
        Self {
            store,
            notifications,
            metrics,
            told_at: Mutex::default(),
        }
    }

    /// Whether others are told while one's news fail: then it is about those news.
    fn are_others_told(&self) -> bool {
        let told_at = self.told_at.lock().unwrap_or_else(PoisonError::into_inner);
        told_at.is_some_and(|at| at.elapsed() < OTHERS_TOLD_WITHIN)
    }

    /// Tells what there is to tell, now and then; runs until it is dropped.
    pub async fn tell(self, config: Live<Orders>) {
        let mut pauses = growing(PAUSES);
        let mut is_away = false;
        for turn in 0_usize.. {
            let Round { told, away } = self.round(turn).await;
            if told > 0 || away.is_none() {
                pauses.reset();
            }
            // Said once when it begins, and once when it ends.
            match &away {
                Some(error) if !is_away => {
                    let code = status::code_name(error.code());
                    tracing::info!(code, cause = error.message(), "news of orders wait");
                }
                None if is_away => tracing::info!("news of orders are told again"),
                _ => {}
            }
            is_away = away.is_some();
            let pause = if is_away {
                pauses.next_pause()
            } else {
                config.load().sweep_interval
            };
            time::sleep(pause).await;
        }
    }

    /// Tells what is due, a bounded number. Where nobody listens, it begins with no further account.
    /// Each `turn` begins with another account: where one call is let through to find out whether
    /// anybody listens again, it is not always the same one, which may fail for reasons of its own.
    async fn round(&self, turn: usize) -> Round {
        let round = Mutex::new(Round::default());
        let locked = || round.lock().unwrap_or_else(PoisonError::into_inner);
        let due = match self.store.untold(Timestamp::now()).await {
            Ok(due) => {
                let mut due = by_account(due);
                let first = turn % due.len().max(1);
                due.rotate_left(first);
                due
            }
            Err(error) => {
                locked().away = Some(error.into());
                Vec::new()
            }
        };
        let tell = |news: Vec<News>| async {
            for news in news {
                if locked().away.is_some() {
                    return;
                }
                match self.tell_one(news).await {
                    Ok(true) => locked().told += 1,
                    Ok(false) => return,
                    Err(status) => locked().away = Some(status),
                }
            }
        };
        stream::iter(due).for_each_concurrent(TOLD_MAX, tell).await;
        round.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells one; answers whether the next of the account may follow.
    async fn tell_one(&self, news: News) -> Result<bool, Status> {
        let mut notifications = self.notifications.clone();
        let Err(error) = notifications.record_notification(request(&news)).await else {
            self.store.told(&news).await?;
            let now = Some(Instant::now());
            *self.told_at.lock().unwrap_or_else(PoisonError::into_inner) = now;
            return Ok(true);
        };
        let hold = |tries, pause| {
            let until = Timestamp::now().after(pause);
            self.store.hold(&news, tries, until)
        };
        let tries = news.held.unwrap_or(0);
        match verdict(error.code(), tries, self.are_others_told()) {
            Verdict::SetAside => {
                if self.store.set_aside(&news).await? {
                    self.metrics.set_aside.increment();
                    tracing::error!(
                        order_id = news.order_id,
                        version = news.version,
                        code = status::code_name(error.code()),
                        cause = error.message(),
                        "news of an order were refused, and are set aside"
                    );
                }
                Ok(true)
            }
            Verdict::Hold(tries) => {
                if tries == 1 {
                    tracing::warn!(
                        order_id = news.order_id,
                        version = news.version,
                        code = status::code_name(error.code()),
                        cause = error.message(),
                        "news of an order were not taken; those of its account wait"
                    );
                }
                hold(tries, hold_pause(tries)).await?;
                Ok(false)
            }
            Verdict::Away => {
                hold(tries, AWAY_HOLD).await?;
                Err(error)
            }
        }
    }
}

/// What a try comes to that failed with `code` after as many others as `tries`, while others are told
/// or nobody is.
fn verdict(code: Code, tries: u32, others_told: bool) -> Verdict {
    match code {
        code if refuses(code) => Verdict::SetAside,
        // Away, busy or slow, whoever is told of whatever: an outage costs no news, however long.
        Code::Unavailable | Code::DeadlineExceeded | Code::ResourceExhausted | Code::Cancelled => {
            Verdict::Away
        }
        _ if tries >= TRIES_MAX - 1 && others_told => Verdict::SetAside,
        _ => Verdict::Hold(tries.saturating_add(1)),
    }
}

fn growing(pauses: backoff::Config) -> Backoff {
    Backoff::new(pauses).expect("the pauses are above zero and grow")
}

/// How long to hold after so many tries.
fn hold_pause(tries: u32) -> Duration {
    let mut holds = growing(HOLDS);
    for _ in 1..tries.min(TRIES_MAX) {
        holds.next_pause();
    }
    holds.next_pause()
}

/// The same, each account's together, in the order in which they were.
fn by_account(due: Vec<News>) -> Vec<Vec<News>> {
    let mut accounts: Vec<Vec<News>> = Vec::new();
    let mut places = HashMap::new();
    for mut news in due {
        let place = *places.entry(news.account_id.clone()).or_insert_with(|| {
            accounts.push(Vec::new());
            accounts.len() - 1
        });
        if !accounts[place].is_empty() {
            // Its turn comes only once those before it are told or set aside.
            news.held = None;
        }
        accounts[place].push(news);
    }
    accounts
}

/// One order is confirmed once and cancelled once at most.
fn request(news: &News) -> RecordNotificationRequest {
    let (kind, what) = match news.state {
        OrderState::Cancelled => (NotificationKind::OrderCancelled, "cancelled"),
        _ => (NotificationKind::OrderConfirmed, "confirmed"),
    };
    RecordNotificationRequest {
        notification_id: format!("{}.{what}", news.order_id),
        account_id: news.account_id.clone(),
        kind: kind.into(),
        order_id: news.order_id.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: only what is about the news themselves is set aside, at once where it is said so and
    /// after hours where it only seems so and others are told; an outage of whatever length, or a fault
    /// that meets everybody, sets nothing aside.
    /// Method: every code, after no tries and after many, while others are told and while nobody is.
    #[test]
    fn outages_set_nothing_aside() {
        for number in 1..=16 {
            let code = Code::from_i32(number);
            let (first, last) = match code {
                Code::InvalidArgument | Code::OutOfRange | Code::AlreadyExists => {
                    (Verdict::SetAside, Verdict::SetAside)
                }
                Code::Unavailable
                | Code::DeadlineExceeded
                | Code::ResourceExhausted
                | Code::Cancelled => (Verdict::Away, Verdict::Away),
                _ => (Verdict::Hold(1), Verdict::SetAside),
            };
            assert_eq!(first, verdict(code, 0, true), "{code:?}");
            assert_eq!(last, verdict(code, TRIES_MAX - 1, true), "{code:?}");
            assert_eq!(last, verdict(code, u32::MAX, true), "{code:?}");
            let alone = verdict(code, u32::MAX, false);
            if first == Verdict::Hold(1) {
                assert_eq!(Verdict::Hold(u32::MAX), alone, "{code:?}");
            } else {
                assert_eq!(first, alone, "{code:?}");
            }
        }
        let held: Duration = (1..TRIES_MAX).map(hold_pause).sum();
        let hour = Duration::from_hours(1);
        assert!((hour..4 * hour).contains(&held), "{held:?}");
        assert!(hold_pause(u32::MAX) <= HOLDS.max.mul_f64(1.2));
    }

    /// Goal: news that failed are counted for the oldest of their account alone: those behind them were
    /// not tried.
    /// Method: the news of two accounts that are held, mixed.
    #[test]
    fn tries_are_those_of_the_oldest() {
        let news = |order_id: &str, account_id: &str| News {
            order_id: order_id.to_owned(),
            version: 2,
            state: OrderState::Cancelled,
            account_id: account_id.to_owned(),
            held: Some(7),
        };
        let due = vec![news("1", "ada"), news("2", "eve"), news("3", "ada")];
        let accounts = by_account(due);
        let tries: Vec<Vec<_>> = accounts
            .iter()
            .map(|account| account.iter().map(|it| (&*it.order_id, it.held)).collect())
            .collect();
        assert_eq!(
            [vec![("1", Some(7)), ("3", None)], vec![("2", Some(7))]],
            *tries
        );
    }
}
