//! Rules for orders; nothing here knows of gRPC or SQL.

use std::collections::BTreeMap;

use gantry_store::Timestamp;

/// Most units of one product in an order: as many as the catalog holds in one line.
pub const QUANTITY_MAX: i64 = 1_000;

/// An amount in the smallest unit of its currency.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Money {
    /// Count of that unit.
    pub minor_units: i64,
    /// ISO 4217.
    pub currency_code: String,
}

/// Where an order stands. It goes from pending to reserved to paid to confirmed to completed, and
/// from any of them but the last to cancelled; never back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OrderState {
    /// Placed; its stock is being held.
    Pending,
    /// Its stock is held; its money is being taken.
    Reserved,
    /// Its money is taken; its stock is being taken out.
    Paid,
    /// Its stock is taken out for it, and its money.
    Confirmed,
    /// It can no longer be cancelled.
    Completed,
    /// Its stock and its money go back.
    Cancelled,
}

impl OrderState {
    /// Whether nothing follows it.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Cancelled)
    }
}

/// Why an order was cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CancelReason {
    /// The account asked for it.
    Requested,
    /// There was too little of a product, or no such product.
    OutOfStock,
    /// It could not be confirmed in time.
    TimedOut,
    /// Its products have prices in different currencies.
    MixedCurrencies,
    /// The catalog or payments refused it and would refuse it again.
    Refused,
    /// The bank declined its payment.
    PaymentDeclined,
}

/// An order of one account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Identifies it for good; also its reservation at the catalog, and its payment.
    pub id: String,
    /// Whose it is.
    pub account_id: String,
    /// Chosen by the caller, one per order.
    pub request_id: String,
    /// Where it stands.
    pub state: OrderState,
    /// Why it was cancelled, when it was.
    pub cancel_reason: Option<CancelReason>,
    /// What was ordered, in the order of SKUs.
    pub lines: Vec<Line>,
    /// Whether a charge may have been asked for.
    pub money_held: bool,
    /// How often its state has changed, placing included.
    pub version: i64,
    /// When it was placed.
    pub created_at: Timestamp,
    /// When its state last changed.
    pub updated_at: Timestamp,
}

/// Some units of one product.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Which product.
    pub sku: String,
    /// Units.
    pub quantity: i64,
    /// Price of one when the stock was held.
    pub unit_price: Option<Money>,
}

/// One step of an order's life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Which step, from 1.
    pub version: i64,
    /// Where it led.
    pub state: OrderState,
    /// Why, when it led to the end.
    pub cancel_reason: Option<CancelReason>,
    /// When.
    pub changed_at: Timestamp,
}

/// More units of one product than an order may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("lines of one SKU add up to more than {QUANTITY_MAX}")]
pub struct TooMany {
    /// The line that goes beyond, from 0.
    pub line: usize,
}

/// What was ordered, before anything is known of prices: lines of one SKU added up.
///
/// # Errors
///
/// If that is more of one product than an order may have.
pub fn lines(wanted: impl IntoIterator<Item = (String, i64)>) -> Result<Vec<Line>, TooMany> {
    let mut by_sku: BTreeMap<String, i64> = BTreeMap::new();
    for (line, (sku, quantity)) in wanted.into_iter().enumerate() {
        let sum = by_sku.entry(sku).or_default();
        *sum = sum.saturating_add(quantity);
        if *sum > QUANTITY_MAX {
            return Err(TooMany { line });
        }
    }
    let line = |(sku, quantity)| Line {
        sku,
        quantity,
        unit_price: None,
    };
    Ok(by_sku.into_iter().map(line).collect())
}

impl Order {
    /// A new order.
    #[must_use]
    pub fn place(
        id: String,
        account_id: &str,
        request_id: &str,
        lines: Vec<Line>,
        now: Timestamp,
    ) -> Self {
        Self {
            id,
            account_id: account_id.to_owned(),
            request_id: request_id.to_owned(),
            state: OrderState::Pending,
            cancel_reason: None,
            lines,
            money_held: false,
            version: 1,
            created_at: now,
            updated_at: now,
        }
    }

    /// Whether it asks for the same as `lines`, whatever the prices.
    #[must_use]
    pub fn asks_for(&self, lines: &[Line]) -> bool {
        let wanted = |line: &Line| (line.sku.clone(), line.quantity);
        self.lines.iter().map(wanted).eq(lines.iter().map(wanted))
    }

    /// What it costs, once every line has a price, all in one currency.
    #[must_use]
    pub fn total(&self) -> Option<Money> {
        total(&self.lines)
    }

    /// The order as it was right after `change`.
    #[must_use]
    pub fn at(&self, change: &Change) -> Self {
        Self {
            state: change.state,
            cancel_reason: change.cancel_reason,
            version: change.version,
            updated_at: change.changed_at,
            ..self.clone()
        }
    }
}

/// What `lines` cost together, if every line has a price, all in one currency.
#[must_use]
pub fn total(lines: &[Line]) -> Option<Money> {
    let mut sum: Option<Money> = None;
    for line in lines {
        let price = line.unit_price.as_ref()?;
        let amount = price.minor_units.checked_mul(line.quantity)?;
        match &mut sum {
            None => {
                sum = Some(Money {
                    minor_units: amount,
                    currency_code: price.currency_code.clone(),
                });
            }
            Some(sum) if sum.currency_code == price.currency_code => {
                sum.minor_units = sum.minor_units.checked_add(amount)?;
            }
            Some(_) => return None,
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    fn priced(sku: &str, quantity: i64, minor_units: i64, currency_code: &str) -> Line {
        Line {
            sku: sku.to_owned(),
            quantity,
            unit_price: Some(Money {
                minor_units,
                currency_code: currency_code.to_owned(),
            }),
        }
    }

    fn order(lines: Vec<Line>) -> Order {
        let now = Timestamp::from_micros(1);
        Order::place("id".to_owned(), "account", "request", lines, now)
    }

    /// Goal: the same wish cut into other lines is the same order, another wish is not.
    /// Method: permute, split and change lines.
    #[test]
    fn orders_ask_for_the_same_however_cut() {
        let wish = |lines: &[(&str, i64)]| {
            super::lines(lines.iter().map(|(sku, n)| ((*sku).to_owned(), *n))).unwrap()
        };
        let order = order(wish(&[("A", 3), ("B", 1)]));
        assert!(order.asks_for(&wish(&[("B", 1), ("A", 2), ("A", 1)])));
        assert!(order.asks_for(&[priced("A", 3, 5, "EUR"), priced("B", 1, 5, "EUR")]));
        for other in [
            &[("A", 3)][..],
            &[("A", 3), ("B", 2)],
            &[("A", 4), ("B", 1)],
        ] {
            assert!(!order.asks_for(&wish(other)), "{other:?}");
        }
    }

    /// Goal: an order has no more of one product than the catalog holds in one line.
    /// Method: sums up to the bound and beyond; the line that goes beyond is told.
    #[test]
    fn orders_are_bounded_by_product() {
        let wish = |lines: &[(&str, i64)]| {
            super::lines(lines.iter().map(|(sku, n)| ((*sku).to_owned(), *n)))
        };
        assert_eq!(
            2,
            wish(&[("A", 999), ("B", 1_000), ("A", 1)]).unwrap().len()
        );
        let error = wish(&[("A", 1_000), ("B", 1), ("A", 1), ("A", 1)]);
        assert_eq!(Err(TooMany { line: 2 }), error);
        let error = wish(&[("A", i64::MAX), ("A", i64::MAX)]);
        assert_eq!(Err(TooMany { line: 0 }), error);
    }

    /// Goal: a total is there exactly when it means something.
    /// Method: sums, missing prices, mixed currencies, an overflow.
    #[test]
    fn totals_need_every_price_in_one_currency() {
        let total = |lines: Vec<Line>| order(lines).total();
        let sum = total(vec![priced("A", 3, 250, "EUR"), priced("B", 1, 1, "EUR")]).unwrap();
        assert_eq!((751, "EUR"), (sum.minor_units, &*sum.currency_code));
        let mut unpriced = priced("B", 1, 1, "EUR");
        unpriced.unit_price = None;
        assert_eq!(None, total(vec![priced("A", 1, 1, "EUR"), unpriced]));
        assert_eq!(
            None,
            total(vec![priced("A", 1, 1, "EUR"), priced("B", 1, 1, "USD")])
        );
        assert_eq!(None, total(vec![priced("A", 2, i64::MAX, "EUR")]));
        assert_eq!(None, total(Vec::new()));
    }
}
