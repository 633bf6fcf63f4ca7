//! What a notification is; nothing here knows of gRPC or SQL.

use gantry_store::Timestamp;

/// What a notification is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An order is confirmed.
    OrderConfirmed,
    /// An order is cancelled.
    OrderCancelled,
}

/// Something an account is to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Chosen by whoever tells, one for each event.
    pub id: String,
    /// Who is told.
    pub account_id: String,
    /// What it is about.
    pub kind: Kind,
    /// The order it is about.
    pub order_id: String,
}

/// Something an account was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notification {
    /// What, and to whom.
    pub event: Event,
    /// Its place among those of the account, from 1.
    pub position: i64,
    /// When it was recorded.
    pub created_at: Timestamp,
}
