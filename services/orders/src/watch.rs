//! An order as it changes, as a stream.

use std::collections::VecDeque;

use futures_util::{Stream, stream};
use gantry::{config::Live, status};
use gantry_store::Error;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::{changes::Listener, config::Orders, domain::Order, store::Store};

/// One watch, between two messages.
struct Watch {
    store: Store,
    config: Live<Orders>,
    listener: Listener,
    draining: CancellationToken,
    /// The order as it was sent last.
    order: Order,
    /// Steps that are known and not sent.
    ahead: VecDeque<Order>,
}

/// Sends `order`, then the order after each of its later steps, and ends once it is final.
///
/// Steps that this process makes are sent at once, because `listener` hears of them; those of
/// another replica within the configured interval. `listener` is older than `order`, so no step
/// falls between. When the process drains the stream ends with UNAVAILABLE: another replica goes
/// on.
pub fn watch(
    order: Order,
    store: Store,
    config: Live<Orders>,
    listener: Listener,
    draining: CancellationToken,
) -> impl Stream<Item = Result<Order, Status>> {
    let watch = Watch {
        store,
        config,
        listener,
        draining,
        ahead: VecDeque::from([order.clone()]),
        order,
    };
    stream::try_unfold(watch, |mut watch| async move {
        let next = watch.next().await?;
        Ok(next.map(|order| (order, watch)))
    })
}

impl Watch {
    async fn next(&mut self) -> Result<Option<Order>, Status> {
        loop {
            if let Some(order) = self.ahead.pop_front() {
                self.order = order.clone();
                return Ok(Some(order));
            }
            if self.order.state.is_final() {
                return Ok(None);
            }
            self.wait().await?;
            self.look().await?;
        }
    }

    /// Waits until it is worth looking.
    async fn wait(&mut self) -> Result<(), Status> {
        let interval = || self.config.load().watch_interval;
        let version = || self.store.version(&self.order.id);
        // Cancel-safe: both only wait.
        tokio::select! {
            heard = self.listener.hear(interval, version) => Ok(heard?),
            () = self.draining.cancelled() => Err(status::draining()),
        }
    }

    /// Reads the steps since the last one sent.
    async fn look(&mut self) -> Result<(), Error> {
        let id = &self.order.id;
        let changes = self.store.changes(id, self.order.version).await?;
        if changes.is_empty() {
            return Ok(());
        }
        // Prices come with a step: read the order again, then show it as of each.
        let order = self.store.find(id).await?;
        let order = order.unwrap_or_else(|| self.order.clone());
        self.ahead
            .extend(changes.iter().map(|change| order.at(change)));
        Ok(())
    }
}
