//! Between the contract's messages and the domain's types.

use shop_proto::{catalog::v1 as proto, money::v1::Money as MoneyMessage};

use crate::domain::{Money, Product, Reservation, ReservationState, ReservedLine, Row, Shortage};

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
