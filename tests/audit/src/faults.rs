//! What does not add up.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::books::{
    Books, Charge, ChargeState, Judged, Order, PaymentState, ReservationState, Shelves,
};

/// One thing that does not add up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// What kind of fault it is.
    pub kind: Kind,
    /// The order, or the product where it is about the shelves.
    pub subject: String,
    /// What was found, in words.
    pub found: String,
}

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// An order did not come to rest.
    Unfinished,
    /// The bank took money for one order more than once.
    ChargedTwice,
    /// The bank's ledger has one idempotency key more than once.
    KeyReused,
    /// Nobody took the money for an order that is confirmed.
    NotCharged,
    /// Another amount was taken than the order's total.
    WrongAmount,
    /// The bank has the money for an order that is cancelled.
    NotRefunded,
    /// Payments know otherwise than the order.
    Payment,
    /// The catalog holds or took something else than the order says.
    Reservation,
    /// Money or stock is gone for an order that is none.
    UnknownOrder,
    /// The numbers of a shelf do not add up.
    Stock,
}

impl Kind {
    /// As people write it, and programs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Unfinished => "unfinished",
            Self::ChargedTwice => "charged_twice",
            Self::KeyReused => "key_reused",
            Self::NotCharged => "not_charged",
            Self::WrongAmount => "wrong_amount",
            Self::NotRefunded => "not_refunded",
            Self::Payment => "payment",
            Self::Reservation => "reservation",
            Self::UnknownOrder => "unknown_order",
            Self::Stock => "stock",
        }
    }

    fn of(self, subject: &str, found: impl Into<String>) -> Fault {
        Fault {
            kind: self,
            subject: subject.to_owned(),
            found: found.into(),
        }
    }
}

impl Books {
    /// Whatever does not add up; nothing where all does. What was on the shelves once, `since`,
    /// must be there still or be sold.
    #[must_use]
    pub fn faults(&self, since: Option<&Shelves>) -> Vec<Fault> {
        let mut faults = Vec::new();
        let mut taken: BTreeMap<&str, Vec<&Charge>> = BTreeMap::new();
        for charge in &self.charges {
            if charge.state == ChargeState::Charged {
                taken.entry(&charge.reference).or_default().push(charge);
            }
        }
        for (id, order) in &self.orders {
            let state = order.state.name();
            match order.judged {
                Judged::Later => {}
                Judged::Overdue => {
                    let still = format!("it is {state} and still needs a further step");
                    faults.push(Kind::Unfinished.of(id, still));
                }
                Judged::AtRest => {
                    let taken = taken.get(id.as_str()).map_or(&[][..], Vec::as_slice);
                    faults.extend(money(id, order, taken));
                    faults.extend(self.payment(id, order));
                    faults.extend(self.reservation(id, order));
                }
            }
        }
        self.strangers(&taken, &mut faults);
        let mut keys = BTreeSet::new();
        for charge in self.charges.iter().filter(|it| !keys.insert(&it.key)) {
            let again = format!("the key {} stands for a further charge", charge.key);
            faults.push(Kind::KeyReused.of(&charge.reference, again));
        }
        self.stock(since, &mut faults);
        faults
    }

    /// What payments know of an order at rest.
    fn payment(&self, id: &str, order: &Order) -> Option<Fault> {
        let known = self.payments.get(id);
        let (due, state) = (order.due(), order.state.name());
        let agrees = match (due, known) {
            (Some(due), Some(known)) => {
                known.state == PaymentState::Charged && known.amount.as_ref() == Some(due)
            }
            (Some(_), None) => false,
            (None, Some(known)) => {
                matches!(known.state, PaymentState::Declined | PaymentState::Refunded)
            }
            (None, None) => true,
        };
        let known = known.map_or_else(
            || "none".to_owned(),
            |known| {
                let amount = known.amount.as_ref().map(ToString::to_string);
                let amount = amount.unwrap_or_else(|| "no amount".to_owned());
                let state = format!("{:?}", known.state).to_lowercase();
                format!("{state}, {amount}")
            },
        );
        let due = due.map_or_else(|| "nothing".to_owned(), ToString::to_string);
        let found = format!("it is {state} with {due} due, and its payment is: {known}");
        (!agrees).then(|| Kind::Payment.of(id, found))
    }

    /// What the catalog has of an order at rest.
    fn reservation(&self, id: &str, order: &Order) -> Option<Fault> {
        let known = self.reservations.get(id);
        let known = known.filter(|known| known.state != ReservationState::Released);
        let agrees = match known {
            Some(known) if order.state.is_sold() => {
                known.state == ReservationState::Confirmed && known.lines == order.lines
            }
            Some(_) => false,
            None => !order.state.is_sold(),
        };
        let known = known.map_or_else(
            || "nothing".to_owned(),
            |known| {
                let state = format!("{:?}", known.state).to_lowercase();
                format!("{state} {:?}", known.lines)
            },
        );
        let (state, lines) = (order.state.name(), &order.lines);
        let found = format!("it is {state} with {lines:?}, and the catalog has {known}");
        (!agrees).then(|| Kind::Reservation.of(id, found))
    }

    /// Money and stock of orders that are none.
    fn strangers(&self, taken: &BTreeMap<&str, Vec<&Charge>>, faults: &mut Vec<Fault>) {
        let unknown = |id: &str| !self.orders.contains_key(id);
        for (id, charges) in taken.iter().filter(|(id, _)| unknown(id)) {
            let found = format!("the bank took {} for it", told(charges));
            faults.push(Kind::UnknownOrder.of(id, found));
        }
        for (id, payment) in self.payments.iter().filter(|(id, _)| unknown(id)) {
            if !matches!(
                payment.state,
                PaymentState::Declined | PaymentState::Refunded
            ) {
                let found = format!("payments have a charge for it, {:?}", payment.state);
                faults.push(Kind::UnknownOrder.of(id, found.to_lowercase()));
            }
        }
        for (id, known) in self.reservations.iter().filter(|(id, _)| unknown(id)) {
            if known.state != ReservationState::Released {
                let found = format!("the catalog keeps {:?} for it", known.lines);
                faults.push(Kind::UnknownOrder.of(id, found));
            }
        }
    }

    /// The shelves by themselves, and against what they were.
    fn stock(&self, since: Option<&Shelves>, faults: &mut Vec<Fault>) {
        for (sku, shelf) in &self.shelves {
            if shelf.reserved != shelf.held {
                let (reserved, held) = (shelf.reserved, shelf.held);
                let found = format!("{reserved} units are reserved, reservations hold {held}");
                faults.push(Kind::Stock.of(sku, found));
            }
        }
        for (sku, before) in since.into_iter().flatten() {
            let now = self.shelves.get(sku);
            if now.map(|now| now.ever()) == Some(before.ever()) {
                continue;
            }
            let found = now.map_or_else(
                || format!("there were {} units, now there is no shelf", before.on_hand),
                |now| {
                    let (on_hand, sold) = (before.on_hand, now.sold - before.sold);
                    let (here, missing) = (now.on_hand, before.ever() - now.ever());
                    format!(
                        "of {on_hand} units {sold} were sold, {here} are left: {missing} missing"
                    )
                },
            );
            faults.push(Kind::Stock.of(sku, found));
        }
    }
}

/// What the bank took for an order at rest.
fn money(id: &str, order: &Order, taken: &[&Charge]) -> Option<Fault> {
    let state = order.state.name();
    match (order.due(), taken) {
        (None, []) => None,
        (Some(due), [charge]) if charge.amount == *due => None,
        (_, [_, _, ..]) => {
            let found = format!("it is {state}, and the bank took {}", told(taken));
            Some(Kind::ChargedTwice.of(id, found))
        }
        (None, [_]) => {
            let found = format!("it is {state}, and the bank keeps {}", told(taken));
            Some(Kind::NotRefunded.of(id, found))
        }
        (Some(due), []) => {
            let found = format!("it is {state} with {due} due, and the bank took nothing");
            Some(Kind::NotCharged.of(id, found))
        }
        (Some(due), [_]) => {
            let taken = told(taken);
            let found = format!("it is {state} with {due} due, and the bank took {taken}");
            Some(Kind::WrongAmount.of(id, found))
        }
    }
}

/// Charges in words.
fn told(charges: &[&Charge]) -> String {
    let one = |charge: &&Charge| format!("{} under the key {}", charge.amount, charge.key);
    charges.iter().map(one).collect::<Vec<_>>().join(" and ")
}
