//! What others are told of an order's step: an event, published with the step itself.

use gantry_events::Outbox;
use gantry_store::{Error, Transaction};
use shop_proto::orders::v1::{OrderCancelled, OrderConfirmed, OrderPaid, OrderPlaced};

use super::{FIND, complete_read};
use crate::{
    convert,
    domain::{Order, OrderState},
};

/// Tells of the step that the order's row has just made, with `transaction` or not at all.
pub(super) async fn tell(
    outbox: &Outbox,
    transaction: &mut Transaction,
    order_id: &str,
) -> Result<(), Error> {
    let row = transaction.statement(&FIND).bind(order_id);
    let row = row.fetch_one().await?;
    let order = complete_read(transaction, &row).await?;
    let Order { id, account_id, .. } = order.clone();
    let at = Some(order.updated_at.into());
    let total = order.total().map(convert::money);
    let order_id = id.clone();
    let lines = order.lines.into_iter().map(convert::line).collect();
    let told = match order.state {
        OrderState::Pending => {
            let placed = OrderPlaced {
                order_id,
                account_id,
                lines,
                place_time: at,
            };
            outbox.add(transaction, &id, &placed).await
        }
        OrderState::Paid => {
            let paid = OrderPaid {
                order_id,
                account_id,
                total,
                pay_time: at,
            };
            outbox.add(transaction, &id, &paid).await
        }
        OrderState::Confirmed => {
            let confirmed = OrderConfirmed {
                order_id,
                account_id,
                lines,
                total,
                confirm_time: at,
            };
            outbox.add(transaction, &id, &confirmed).await
        }
        OrderState::Cancelled => {
            let reason = order
                .cancel_reason
                .map_or(0, |it| convert::reason(it).into());
            let cancelled = OrderCancelled {
                order_id,
                account_id,
                reason,
                lines,
                cancel_time: at,
            };
            outbox.add(transaction, &id, &cancelled).await
        }
        // Nobody waits for these two.
        OrderState::Reserved | OrderState::Completed => return Ok(()),
    };
    told.map(drop)
}
