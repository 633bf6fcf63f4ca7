//! Between the contract's messages and the domain's types.

use shop_proto::{money::v1::Money as MoneyMessage, orders::v1 as proto};

use crate::domain::{CancelReason, Line, Money, Order, OrderState};

/// A UUID in one spelling: two spellings are one identifier.
pub(crate) fn id(text: &str) -> String {
    text.to_ascii_lowercase()
}

/// An order.
pub(crate) fn order(order: Order) -> proto::Order {
    let total = order.total();
    proto::Order {
        order_id: order.id,
        request_id: order.request_id,
        state: state(order.state).into(),
        lines: order.lines.into_iter().map(line).collect(),
        total: total.map(money),
        cancel_reason: order.cancel_reason.map_or(0, |given| reason(given).into()),
        create_time: Some(order.created_at.into()),
        update_time: Some(order.updated_at.into()),
    }
}

fn state(state: OrderState) -> proto::OrderState {
    match state {
        OrderState::Pending => proto::OrderState::Pending,
        OrderState::Reserved => proto::OrderState::Reserved,
        OrderState::Paid => proto::OrderState::Paid,
        OrderState::Confirmed => proto::OrderState::Confirmed,
        OrderState::Completed => proto::OrderState::Completed,
        OrderState::Cancelled => proto::OrderState::Cancelled,
    }
}

pub(crate) fn reason(reason: CancelReason) -> proto::CancelReason {
    match reason {
        CancelReason::Requested => proto::CancelReason::Requested,
        CancelReason::OutOfStock => proto::CancelReason::OutOfStock,
        CancelReason::TimedOut => proto::CancelReason::TimedOut,
        CancelReason::MixedCurrencies => proto::CancelReason::MixedCurrencies,
        CancelReason::Refused => proto::CancelReason::Refused,
        CancelReason::PaymentDeclined => proto::CancelReason::PaymentDeclined,
    }
}

pub(crate) fn line(line: Line) -> proto::OrderLine {
    proto::OrderLine {
        sku: line.sku,
        // At most a thousand.
        quantity: i32::try_from(line.quantity).unwrap_or(i32::MAX),
        unit_price: line.unit_price.map(money),
    }
}

pub(crate) fn money(money: Money) -> MoneyMessage {
    MoneyMessage {
        minor_units: money.minor_units,
        currency_code: money.currency_code,
    }
}
