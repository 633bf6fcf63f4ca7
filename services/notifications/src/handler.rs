//! gRPC in, gRPC out: converts, and decides which status an outcome is.

use std::{pin::Pin, sync::Arc};

use futures_util::{Stream, StreamExt as _};
use gantry::{
    auth,
    config::Live,
    status::{self, Refusal},
};
use gantry_store::Page;
use shop_proto::notifications::v1::{
    self as proto, ListNotificationsRequest, ListNotificationsResponse, WatchNotificationsRequest,
    WatchNotificationsResponse, notifications_service_server::NotificationsService,
};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::{
    config,
    domain::{Kind, Notification},
    store::Store,
    watch::{News, Watch},
};

/// The list of notifications, for its page tokens.
const NOTIFICATIONS: &str = "notifications";

/// The rpcs of this service.
#[derive(Debug, Clone)]
pub struct Notifications {
    /// The rows.
    pub store: Store,
    /// Who hears of new ones.
    pub news: News,
    /// Settings as they are.
    pub config: Live<config::Notifications>,
    /// Cancelled when streams should end.
    pub draining: CancellationToken,
    /// Places of watches that are not taken.
    pub places: Arc<Semaphore>,
}

type Watched = Pin<Box<dyn Stream<Item = Result<WatchNotificationsResponse, Status>> + Send>>;

#[tonic::async_trait]
impl NotificationsService for Notifications {
    async fn list_notifications(
        &self,
        request: Request<ListNotificationsRequest>,
    ) -> Result<Response<ListNotificationsResponse>, Status> {
        let caller = auth::caller(&request)?;
        let request = request.into_inner();
        let wrong = |why: String| status::invalid_argument([("page_token", why)]);
        let page = Page::read(NOTIFICATIONS, request.page_size, &request.page_token)
            .map_err(|error| wrong(error.to_string()))?;
        let before = page.after().map_or(Ok(i64::MAX), str::parse);
        let before = before.map_err(|_| wrong("expected a next_page_token".to_owned()))?;
        let found = self.store.list(&caller.subject, before, page.fetch());
        let mut found = found.await?;
        let next_page_token = page.cut(&mut found, |it| it.position.to_string());
        Ok(Response::new(ListNotificationsResponse {
            notifications: found.into_iter().map(message).collect(),
            next_page_token,
        }))
    }

    type WatchNotificationsStream = Watched;

    async fn watch_notifications(
        &self,
        request: Request<WatchNotificationsRequest>,
    ) -> Result<Response<Watched>, Status> {
        let caller = auth::caller(&request)?;
        let place = Arc::clone(&self.places).try_acquire_owned();
        let full = |_| Refusal::Watchers.status("too many notifications are watched here");
        let place = place.map_err(full)?;
        let watch = Watch {
            account_id: caller.subject,
            position: request.into_inner().after_position,
            store: self.store.clone(),
            config: self.config.clone(),
            draining: self.draining.clone(),
            place,
        };
        let answers = watch.stream(&self.news).map(|notification| {
            Ok(WatchNotificationsResponse {
                notification: Some(message(notification?)),
            })
        });
        Ok(Response::new(answers.boxed()))
    }
}

fn message(notification: Notification) -> proto::Notification {
    let kind = match notification.event.kind {
        Kind::OrderConfirmed => proto::NotificationKind::OrderConfirmed,
        Kind::OrderCancelled => proto::NotificationKind::OrderCancelled,
    };
    proto::Notification {
        notification_id: notification.event.id,
        position: notification.position,
        kind: kind.into(),
        order_id: notification.event.order_id,
        create_time: Some(notification.created_at.into()),
    }
}
