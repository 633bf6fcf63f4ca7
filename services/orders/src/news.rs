//! Tells accounts what became of their orders, through the notifications service.
//!
//! What is to be told is written down with the step itself and crossed out once it is told: each is
//! told at least once, under a name of its own by which telling it again changes nothing. No order
//! waits for it.

use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use gantry::{
    backoff::{self, Backoff},
    client::Channel,
    config::Live,
    status,
};
use shop_proto::notifications::v1::{
    NotificationKind, RecordNotificationRequest,
    notifications_service_client::NotificationsServiceClient,
};
use tokio::time;
use tonic::Status;

use crate::{
    config::Orders,
    domain::OrderState,
    store::{News, Store},
};

/// Told at once.
const TOLD_MAX: usize = 8;

/// Pauses while nobody listens.
const PAUSES: backoff::Config = backoff::Config {
    min: Duration::from_millis(500),
    max: Duration::from_secs(15),
    multiplier: 1.6,
    jitter: 0.2,
};

/// Tells what there is to tell, now and then; runs until it is dropped.
pub(crate) async fn tell(
    store: Store,
    notifications: NotificationsServiceClient<Channel>,
    config: Live<Orders>,
) {
    let mut pauses = Backoff::new(PAUSES).expect("the pauses are above zero and grow");
    loop {
        let pause = match round(&store, &notifications).await {
            Ok(()) => {
                pauses.reset();
                config.load().sweep_interval
            }
            Err(error) => {
                let code = status::code_name(error.code());
                tracing::info!(code, cause = error.message(), "news of orders wait");
                pauses.next_pause()
            }
        };
        time::sleep(pause).await;
    }
}

/// Tells what is due, a bounded number.
async fn round(
    store: &Store,
    notifications: &NotificationsServiceClient<Channel>,
) -> Result<(), Status> {
    let news = store.untold().await?;
    let told = stream::iter(news).map(Ok);
    let tell = |news: News| async move {
        notifications
            .clone()
            .record_notification(request(&news))
            .await?;
        Ok(store.told(&news).await?)
    };
    told.try_for_each_concurrent(TOLD_MAX, tell).await
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
