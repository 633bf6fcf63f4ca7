//! One person: browses, orders, changes their mind, and follows what becomes of it.

use std::sync::Arc;

use shop_proto::{
    catalog::v1::Product,
    notifications::v1::NotificationKind,
    orders::v1::{NewOrderLine, OrderState, PlaceOrderRequest},
};
use tokio::{sync::mpsc, time};
use tonic::{Code, Status};

use crate::{
    account::{Account, pauses},
    clerk::Bell,
    shop::{Shop, Token},
    tally::Tally,
};

/// With fewer units than this a product is to be delivered again. Else the demo has bought everything
/// after an hour.
const LEVEL_MIN: i64 = 5;

/// Somebody with an account.
pub(crate) struct Person {
    shop: Shop,
    account: Account,
    bell: Bell,
    tally: Arc<Tally>,
}

impl Person {
    pub(crate) fn new(shop: Shop, bell: Bell, tally: Arc<Tally>) -> Self {
        Self {
            account: Account::new(shop.clone()),
            shop,
            bell,
            tally,
        }
    }

    /// Shops until it is dropped.
    pub(crate) async fn live(self) {
        self.account.open().await;
        // One order is watched at a time, however many are placed.
        let (watched, orders) = mpsc::channel(1);
        tokio::join!(
            self.shop_around(watched),
            self.follow_orders(orders),
            self.follow_news()
        );
    }

    /// Counts a failed call, and forgets a token that is not taken any more.
    async fn failed(&self, status: Status) {
        if status.code() == Code::Unauthenticated {
            self.account.forget().await;
        }
        self.tally.fail(status);
    }

    async fn shop_around(&self, watched: mpsc::Sender<String>) {
        let mut pauses = pauses();
        let mut wish = None;
        loop {
            match self.visit(&mut wish, &watched).await {
                Ok(()) => pauses.reset(),
                Err(status) => {
                    self.failed(status).await;
                    time::sleep(pauses.next_pause()).await;
                }
            }
        }
    }

    /// Browses, orders something, and does something about it. A `wish` is an order that nobody
    /// answered: the same one is placed again.
    async fn visit(
        &self,
        wish: &mut Option<PlaceOrderRequest>,
        watched: &mpsc::Sender<String>,
    ) -> Result<(), Status> {
        let products = self.shop.products().await?;
        let Some(product) = fastrand::choice(&products) else {
            return Ok(());
        };
        let token = self.account.token().await?;
        if product.available < LEVEL_MIN {
            self.bell.ring(&product.sku);
        }
        let order = wish.get_or_insert_with(|| order_of(product));
        let placed = match self.shop.place(&token, order.clone()).await {
            Ok(placed) => {
                *wish = None;
                placed
            }
            Err(status) => {
                if !may_come_later(&status) {
                    *wish = None;
                }
                return Err(status);
            }
        };
        Tally::count(&self.tally.placed);
        match fastrand::u8(0..4) {
            0 => self.cancel(&token, placed.order_id).await,
            1 => self.shop.look_at(&token, placed.order_id).await,
            _ => {
                // Whoever watches one already does not watch this one.
                let _ = watched.try_send(placed.order_id);
                Ok(())
            }
        }
    }

    async fn cancel(&self, token: &Token, order_id: String) -> Result<(), Status> {
        match self.shop.cancel(token, order_id).await {
            // Too late: where the time for that is short, it is over.
            Err(status) if status.code() == Code::FailedPrecondition => Ok(()),
            other => other,
        }
    }

    /// Watches orders to their end, one after the other.
    async fn follow_orders(&self, mut orders: mpsc::Receiver<String>) {
        while let Some(order_id) = orders.recv().await {
            let mut pauses = pauses();
            while let Err(status) = self.follow_order(&order_id).await {
                // A replica that ends sends its watchers on to the next; that is no failure.
                if status.code() != Code::Unavailable {
                    let away = may_come_later(&status) || status.code() == Code::Unauthenticated;
                    self.failed(status).await;
                    if !away {
                        break;
                    }
                }
                time::sleep(pauses.next_pause()).await;
            }
        }
    }

    async fn follow_order(&self, order_id: &str) -> Result<(), Status> {
        let token = self.account.token().await?;
        let mut changes = self.shop.watch(&token, order_id.to_owned()).await?;
        let mut state = OrderState::Unspecified;
        while let Some(change) = changes.message().await? {
            state = change.order.unwrap_or_default().state();
        }
        if state == OrderState::Completed {
            Tally::count(&self.tally.completed);
        }
        Ok(())
    }

    /// Counts what people are told, each once.
    async fn follow_news(&self) {
        let mut pauses = pauses();
        let mut position = 0;
        loop {
            let known = position;
            let ended = self.read_news(&mut position).await;
            if position > known {
                pauses.reset();
            }
            if let Err(status) = ended
                && status.code() != Code::Unavailable
            {
                self.failed(status).await;
            }
            time::sleep(pauses.next_pause()).await;
        }
    }

    async fn read_news(&self, position: &mut i64) -> Result<(), Status> {
        let token = self.account.token().await?;
        let mut news = self.shop.news(&token, *position).await?;
        while let Some(told) = news.message().await? {
            let told = told.notification.unwrap_or_default();
            *position = told.position;
            match told.kind() {
                NotificationKind::OrderConfirmed => Tally::count(&self.tally.confirmed),
                NotificationKind::OrderCancelled => Tally::count(&self.tally.cancelled),
                NotificationKind::Unspecified => {}
            }
        }
        Ok(())
    }
}

fn order_of(product: &Product) -> PlaceOrderRequest {
    PlaceOrderRequest {
        request_id: format!("demo-{:032x}", fastrand::u128(..)),
        lines: vec![NewOrderLine {
            sku: product.sku.clone(),
            quantity: fastrand::i32(1..=2),
        }],
    }
}

/// Whether the same call may be answered once somebody is back.
fn may_come_later(status: &Status) -> bool {
    matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded)
}
