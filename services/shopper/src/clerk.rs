//! Who fills the shelves: the one of the demo who is no customer.

use std::sync::Arc;

use tokio::{sync::mpsc, time};
use tonic::{Code, Status};

use crate::{
    account::{Account, pauses},
    shop::Shop,
    tally::Tally,
};

/// Units of a delivery.
const DELIVERY: i32 = 25;

/// Products that wait for a delivery.
const LOW_MAX: usize = 32;

/// Tells the clerk which products run low; clones tell the same one.
#[derive(Clone)]
pub(crate) struct Bell(mpsc::Sender<String>);

impl Bell {
    /// Tells of a product, unless the clerk has enough to do.
    pub(crate) fn ring(&self, sku: &str) {
        let _ = self.0.try_send(sku.to_owned());
    }
}

/// Delivers what is told to run low.
pub(crate) struct Clerk {
    shop: Shop,
    account: Account,
    tally: Arc<Tally>,
    low: mpsc::Receiver<String>,
}

impl Clerk {
    pub(crate) fn new(shop: Shop, tally: Arc<Tally>) -> (Self, Bell) {
        let (bell, low) = mpsc::channel(LOW_MAX);
        let clerk = Self {
            account: Account::new(shop.clone()),
            shop,
            tally,
            low,
        };
        (clerk, Bell(bell))
    }

    /// Works until it is dropped, or nobody can tell of anything any more.
    pub(crate) async fn live(mut self) {
        self.account.open().await;
        self.account.join_staff().await;
        let mut pauses = pauses();
        let mut skus = Vec::with_capacity(LOW_MAX);
        while self.low.recv_many(&mut skus, LOW_MAX).await > 0 {
            // Several people tell of one product.
            skus.sort();
            skus.dedup();
            match self.deliver(&skus).await {
                Ok(()) => pauses.reset(),
                Err(status) => {
                    self.failed(status).await;
                    time::sleep(pauses.next_pause()).await;
                }
            }
            // What was not delivered is told of again.
            skus.clear();
        }
    }

    async fn deliver(&self, skus: &[String]) -> Result<(), Status> {
        let token = self.account.token().await?;
        self.shop.deliver(&token, skus, DELIVERY).await
    }

    /// Counts a failed delivery, and forgets a token that does not let in any more.
    async fn failed(&self, status: Status) {
        if matches!(
            status.code(),
            Code::Unauthenticated | Code::PermissionDenied
        ) {
            self.account.forget().await;
        }
        self.tally.fail(status);
    }
}
