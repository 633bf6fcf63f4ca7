//! What becomes of orders, told to the accounts whose they are.

use gantry_events::{Failure, Handle, Received};
use gantry_store::Transaction;
use shop_proto::orders::v1::{OrderCancelled, OrderConfirmed};

use crate::{
    domain::{Event, Kind},
    store,
    watch::News,
};

/// Tells accounts of their orders.
#[derive(Debug, Clone)]
pub struct Notices {
    /// Who hears of new ones.
    pub news: News,
}

impl Notices {
    async fn tell(&self, transaction: &mut Transaction, event: Event) -> Result<(), Failure> {
        store::record(transaction, &event).await?;
        let news = self.news.clone();
        transaction.after_commit(move || news.tell(&event.account_id));
        Ok(())
    }
}

impl Handle<OrderConfirmed> for Notices {
    async fn handle(
        &self,
        confirmed: &Received<OrderConfirmed>,
        transaction: &mut Transaction,
    ) -> Result<(), Failure> {
        let event = Event {
            id: confirmed.id().to_owned(),
            account_id: confirmed.account_id.clone(),
            kind: Kind::OrderConfirmed,
            order_id: confirmed.order_id.clone(),
        };
        self.tell(transaction, event).await
    }
}

impl Handle<OrderCancelled> for Notices {
    async fn handle(
        &self,
        cancelled: &Received<OrderCancelled>,
        transaction: &mut Transaction,
    ) -> Result<(), Failure> {
        let event = Event {
            id: cancelled.id().to_owned(),
            account_id: cancelled.account_id.clone(),
            kind: Kind::OrderCancelled,
            order_id: cancelled.order_id.clone(),
        };
        self.tell(transaction, event).await
    }
}
