//! What the books of the shop say at one moment.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

/// All books of the shop.
#[derive(Debug, Clone, Default)]
pub struct Books {
    /// What people ordered, by the identifier of the order.
    pub orders: BTreeMap<String, Order>,
    /// What payments know of the money for it, by the same identifier.
    pub payments: BTreeMap<String, Payment>,
    /// What the bank says it took.
    pub charges: Vec<Charge>,
    /// What the catalog holds for orders, by the same identifier.
    pub reservations: BTreeMap<String, Reservation>,
    /// What is on the shelves.
    pub shelves: Shelves,
}

/// An order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Where it stands.
    pub state: State,
    /// Whether it needs a further step, or has something to give back.
    pub unsettled: bool,
    /// How many steps it has made.
    pub version: i64,
    /// Units by product.
    pub lines: BTreeMap<String, i64>,
    /// What it costs, where every line has a price in one currency.
    pub total: Option<Money>,
    /// How it is to be judged.
    pub judged: Judged,
}

/// How an order is to be judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judged {
    /// By the other books, which must agree with it.
    AtRest,
    /// Not yet: it is on its way.
    Later,
    /// As one that does not come to rest.
    Overdue,
}

/// Where an order stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Written down.
    Pending,
    /// Its units are held.
    Reserved,
    /// Its money is taken.
    Paid,
    /// Its units are taken.
    Confirmed,
    /// It can no longer be cancelled.
    Completed,
    /// Nothing of it is kept.
    Cancelled,
}

/// An amount in the smallest unit of its currency.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Money {
    /// Count of that unit.
    pub minor_units: i64,
    /// ISO 4217.
    pub currency_code: String,
}

/// What payments know of the money for an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payment {
    /// How much; unknown where a refund came first.
    pub amount: Option<Money>,
    /// Where it stands.
    pub state: PaymentState,
}

/// Where a payment stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PaymentState {
    /// Asked for.
    Pending,
    /// Taken.
    Charged,
    /// Refused.
    Declined,
    /// To be given back.
    Refunding,
    /// Given back, or never to be taken.
    Refunded,
}

/// A charge in the bank's ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Charge {
    /// The idempotency key it came with.
    pub key: String,
    /// What it is for: an order.
    pub reference: String,
    /// How much.
    pub amount: Money,
    /// Where it stands.
    pub state: ChargeState,
}

/// Where a charge stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChargeState {
    /// The money is taken.
    Charged,
    /// It was taken and given back.
    Refunded,
    /// It was refused.
    Declined,
    /// It was refunded before it came.
    Void,
}

/// What the catalog holds for an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reservation {
    /// Where it stands.
    pub state: ReservationState,
    /// Units by product.
    pub lines: BTreeMap<String, i64>,
}

/// Where a reservation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReservationState {
    /// Its units are kept for it.
    Held,
    /// They have left the shelves.
    Confirmed,
    /// They are back.
    Released,
}

/// What is on the shelves, by product.
pub type Shelves = BTreeMap<String, Shelf>;

/// One product on the shelves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shelf {
    /// Units there are.
    pub on_hand: i64,
    /// Of these, kept for somebody.
    pub reserved: i64,
    /// Units of all reservations that hold some.
    pub held: i64,
    /// Units of all reservations that have taken some.
    pub sold: i64,
}

impl State {
    /// Whether somebody gets what was ordered.
    #[must_use]
    pub fn is_sold(self) -> bool {
        matches!(self, Self::Confirmed | Self::Completed)
    }

    /// As people write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Reserved => "reserved",
            Self::Paid => "paid",
            Self::Confirmed => "confirmed",
            Self::Completed => "completed",
            Self::Cancelled => "cancelled",
        }
    }
}

impl Order {
    /// What is to be paid for it: nothing where it is cancelled, or free.
    #[must_use]
    pub fn due(&self) -> Option<&Money> {
        let total = self.total.as_ref();
        total.filter(|total| self.state.is_sold() && total.minor_units > 0)
    }

    /// Units of all its lines.
    #[must_use]
    pub fn units(&self) -> i64 {
        self.lines.values().sum()
    }
}

impl Shelf {
    /// Units that are there or have been sold: what no order changes.
    #[must_use]
    pub fn ever(self) -> i64 {
        self.on_hand + self.sold
    }
}

impl ChargeState {
    /// As people write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Charged => "charged",
            Self::Refunded => "refunded",
            Self::Declined => "declined",
            Self::Void => "void",
        }
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.minor_units, self.currency_code)
    }
}
