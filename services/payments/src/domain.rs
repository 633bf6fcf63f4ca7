//! Rules for payments; nothing here knows of gRPC, HTTP or SQL.

use gantry_store::Timestamp;

/// An amount in the smallest unit of its currency.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Money {
    /// Count of that unit.
    pub minor_units: i64,
    /// ISO 4217.
    pub currency_code: String,
}

/// Where a payment stands.
///
/// ```text
/// Pending ──▶ Charged ──▶ Refunding ──▶ Refunded
///    │  └──────────────────▲
///    └─────▶ Declined
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PaymentState {
    /// Asked for; the bank may have taken it.
    Pending,
    /// The money is taken.
    Charged,
    /// The bank refused, and would again.
    Declined,
    /// To be given back; the bank may have done so.
    Refunding,
    /// Given back, or never to be taken.
    Refunded,
}

/// Money for one order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payment {
    /// Chosen by whoever asked; also the key of the charge at the bank.
    pub id: String,
    /// How much; unknown where a refund came first.
    pub amount: Option<Money>,
    /// Where it stands.
    pub state: PaymentState,
    /// When it was first asked for.
    pub created_at: Timestamp,
    /// When its state last changed.
    pub updated_at: Timestamp,
}
