//! Between the contract's messages and the domain's types.

use gantry::contract::prost_types::Timestamp;
use shop_proto::{catalog::v1 as proto, money::v1::Money as MoneyMessage};

use crate::domain::{
    DAY_SECONDS, Day, Money, Product, Reservation, ReservationState, ReservedLine, Row, Shortage,
    StockLevel,
};

/// A UUID in one spelling: two spellings are one identifier.
pub(crate) fn id(text: &str) -> String {
    text.to_ascii_lowercase()
}

/// A row of an import, unjudged.
pub(crate) fn row(message: proto::ImportProductsRequest) -> Row {
    Row {
        sku: message.sku,
        name: message.name,
        description: message.description,
        price_minor_units: message.price_minor_units,
        currency_code: message.currency_code,
        initial_stock: message.initial_stock,
    }
}

/// A product.
pub(crate) fn product(product: Product) -> proto::Product {
    proto::Product {
        sku: product.sku.to_string(),
        name: product.name,
        description: product.description,
        available: product.stock.available(),
        price: Some(money(product.price)),
    }
}

/// A stock level.
pub(crate) fn stock_level(level: StockLevel) -> proto::StockLevel {
    proto::StockLevel {
        sku: level.sku,
        available: level.available,
        sold: level.sold,
    }
}

/// What a day came to.
pub(crate) fn day(day: Day) -> proto::SalesOfDay {
    proto::SalesOfDay {
        start_time: Some(Timestamp {
            seconds: day.day * DAY_SECONDS,
            nanos: 0,
        }),
        placed: day.placed,
        paid: day.paid,
        cancelled: day.cancelled,
        revenues: day.revenues.into_iter().map(money).collect(),
    }
}

/// A reservation.
pub(crate) fn reservation(reservation: Reservation) -> proto::Reservation {
    let state = match reservation.state {
        ReservationState::Held => proto::ReservationState::Held,
        ReservationState::Confirmed => proto::ReservationState::Confirmed,
        ReservationState::Released => proto::ReservationState::Released,
    };
    proto::Reservation {
        reservation_id: reservation.id,
        state: state.into(),
        lines: reservation.lines.into_iter().map(line).collect(),
        expire_time: Some(reservation.expires_at.into()),
    }
}

/// A shortage.
pub(crate) fn shortage(shortage: &Shortage) -> proto::Shortage {
    proto::Shortage {
        sku: shortage.sku.to_string(),
        requested: narrow(shortage.requested),
        available: shortage.available,
    }
}

fn line(line: ReservedLine) -> proto::ReservedLine {
    proto::ReservedLine {
        sku: line.sku.to_string(),
        quantity: narrow(line.quantity),
        unit_price: Some(money(line.unit_price)),
    }
}

fn money(money: Money) -> MoneyMessage {
    MoneyMessage {
        minor_units: money.minor_units,
        currency_code: money.currency_code,
    }
}

/// Fifty lines of a thousand units fit by far.
fn narrow(quantity: i64) -> i32 {
    i32::try_from(quantity).unwrap_or(i32::MAX)
}
