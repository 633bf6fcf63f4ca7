//! Rules for products, stock and reservations; nothing here knows of gRPC or SQL.

use std::{collections::BTreeMap, fmt};

use gantry_store::Timestamp;

/// Longest SKU, in characters.
const SKU_MAX: usize = 64;
/// Longest name, in characters.
const NAME_MAX: usize = 200;
/// Longest description, in characters.
const DESCRIPTION_MAX: usize = 2_000;
/// Highest price, in the smallest unit.
const PRICE_MAX: i64 = 1_000_000_000_000;
/// Most units a new product can start with.
const INITIAL_STOCK_MAX: i64 = 1_000_000;
/// Most units of one product that can be on hand.
pub const ON_HAND_MAX: i64 = 1_000_000_000;

/// What identifies a product: capital letters, digits and dashes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sku(String);

/// A text that is no SKU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected 1 to 64 capital letters, digits and dashes, not beginning with a dash")]
pub struct SkuError;

impl Sku {
    /// Reads a SKU.
    ///
    /// # Errors
    ///
    /// If it is none.
    pub fn parse(text: &str) -> Result<Self, SkuError> {
        let known = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'-';
        let fine = !text.is_empty()
            && text.len() <= SKU_MAX
            && !text.starts_with('-')
            && text.bytes().all(known);
        if fine {
            Ok(Self(text.to_owned()))
        } else {
            Err(SkuError)
        }
    }

    /// The SKU as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Sku {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An amount in the smallest unit of its currency.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Money {
    /// Count of that unit.
    pub minor_units: i64,
    /// ISO 4217.
    pub currency_code: String,
}

/// Units of a product that an order took out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SoldLine {
    /// Which product.
    pub sku: String,
    /// Units.
    pub quantity: i64,
}

/// How much of a product is left, and how much was sold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StockLevel {
    /// Which product.
    pub sku: String,
    /// Units that can be reserved now.
    pub available: i64,
    /// Units of orders that were confirmed, and not cancelled since.
    pub sold: i64,
}

/// What the orders of a day came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Day {
    /// Which, counted from the first of 1970, in UTC.
    pub day: i64,
    /// Orders placed.
    pub placed: i64,
    /// Those of them that were paid.
    pub paid: i64,
    /// Those of them that were cancelled.
    pub cancelled: i64,
    /// What those came to that were paid and not cancelled, by currency.
    pub revenues: Vec<Money>,
}

/// Seconds of a day.
pub const DAY_SECONDS: i64 = 86_400;

/// The day that is so many seconds after 1970 began.
#[must_use]
pub fn day(seconds: i64) -> i64 {
    seconds.div_euclid(DAY_SECONDS)
}

/// Something to buy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Product {
    /// Identifies it.
    pub sku: Sku,
    /// What people call it.
    pub name: String,
    /// A sentence or two.
    pub description: String,
    /// Price of one unit.
    pub price: Money,
    /// Units of it.
    pub stock: Stock,
}

/// Units of one product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stock {
    /// Units there are, held ones included.
    pub on_hand: i64,
    /// Units of those that are held by reservations.
    pub reserved: i64,
}

impl Stock {
    /// Units that can be reserved.
    #[must_use]
    pub fn available(self) -> i64 {
        self.on_hand - self.reserved
    }
}

/// A row of an import as it came.
#[derive(Debug, Clone, Default)]
pub struct Row {
    /// Perhaps a SKU.
    pub sku: String,
    /// Perhaps a name.
    pub name: String,
    /// Perhaps a description.
    pub description: String,
    /// Perhaps a price.
    pub price_minor_units: i64,
    /// Perhaps a currency.
    pub currency_code: String,
    /// Perhaps a number of units.
    pub initial_stock: i64,
}

impl Row {
    /// The product it describes, as it would be if new.
    ///
    /// # Errors
    ///
    /// Every rule it breaks, in words.
    pub fn check(self) -> Result<Product, Vec<String>> {
        let mut broken = Vec::new();
        let sku = Sku::parse(&self.sku);
        if let Err(error) = sku {
            broken.push(format!("sku: {error}"));
        }
        let name = self.name.trim();
        let shown = !name.chars().any(char::is_control);
        if name.is_empty() || name.chars().count() > NAME_MAX || !shown {
            broken.push(format!(
                "name: expected 1 to {NAME_MAX} characters in one line"
            ));
        }
        let description = self.description.trim();
        // What a database of some engine would refuse, with an error of its own.
        if description.chars().count() > DESCRIPTION_MAX || description.contains('\0') {
            broken.push(format!(
                "description: expected up to {DESCRIPTION_MAX} characters, none of them zero"
            ));
        }
        if !(0..=PRICE_MAX).contains(&self.price_minor_units) {
            broken.push(format!("price_minor_units: expected 0 to {PRICE_MAX}"));
        }
        let currency = self.currency_code.as_bytes();
        if currency.len() != 3 || !currency.iter().all(u8::is_ascii_uppercase) {
            broken.push("currency_code: expected three capital letters".to_owned());
        }
        if !(0..=INITIAL_STOCK_MAX).contains(&self.initial_stock) {
            broken.push(format!("initial_stock: expected 0 to {INITIAL_STOCK_MAX}"));
        }
        match sku {
            Ok(sku) if broken.is_empty() => Ok(Product {
                sku,
                name: name.to_owned(),
                description: description.to_owned(),
                price: Money {
                    minor_units: self.price_minor_units,
                    currency_code: self.currency_code,
                },
                stock: Stock {
                    on_hand: self.initial_stock,
                    reserved: 0,
                },
            }),
            _ => Err(broken),
        }
    }
}

/// Units wanted by SKU, in the order of SKUs: whoever takes several takes them in one order.
pub type Demand = BTreeMap<Sku, i64>;

/// Adds up lines of one SKU.
pub fn demand(lines: impl IntoIterator<Item = (Sku, i64)>) -> Demand {
    let mut demand = Demand::new();
    for (sku, quantity) in lines {
        *demand.entry(sku).or_default() += quantity;
    }
    demand
}

/// Where a reservation stands. It goes from held to confirmed to released, or from held to
/// released; never back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReservationState {
    /// Held until confirmed, released or expired.
    Held,
    /// Taken out of the stock.
    Confirmed,
    /// Put back.
    Released,
}

/// Stock held for somebody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reservation {
    /// Chosen by whoever reserved.
    pub id: String,
    /// Where it stands.
    pub state: ReservationState,
    /// What is held, in the order of SKUs.
    pub lines: Vec<ReservedLine>,
    /// When it releases itself if it is still held.
    pub expires_at: Timestamp,
}

impl Reservation {
    /// Whether it holds exactly what `demand` asks for.
    #[must_use]
    pub fn meets(&self, demand: &Demand) -> bool {
        self.lines
            .iter()
            .map(|line| (&line.sku, line.quantity))
            .eq(demand.iter().map(|(sku, quantity)| (sku, *quantity)))
    }
}

/// One held product.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReservedLine {
    /// Which product.
    pub sku: Sku,
    /// Units held.
    pub quantity: i64,
    /// Price of one when it was reserved.
    pub unit_price: Money,
}

/// A product there is too little of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shortage {
    /// Which product.
    pub sku: Sku,
    /// Units asked for.
    pub requested: i64,
    /// Units there are.
    pub available: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> Row {
        Row {
            sku: "TEA-1".to_owned(),
            name: " Tea ".to_owned(),
            description: String::new(),
            price_minor_units: 499,
            currency_code: "EUR".to_owned(),
            initial_stock: 10,
        }
    }

    /// Goal: SKUs are read as the contract says.
    /// Method: good ones and near misses.
    #[test]
    fn skus_are_read_or_refused() {
        let longest = "A".repeat(64);
        for text in ["A", "0", "TEA-1", "9-", &longest] {
            assert_eq!(text, Sku::parse(text).unwrap().as_str());
        }
        let longer = "A".repeat(65);
        for text in ["", "-A", "tea", "TEA 1", "TEA_1", "TÉA", &longer] {
            assert_eq!(Err(SkuError), Sku::parse(text), "{text:?}");
        }
    }

    /// Goal: a good row is a product, trimmed.
    /// Method: one row.
    #[test]
    fn a_good_row_is_a_product() {
        let product = row().check().unwrap();
        assert_eq!("Tea", product.name);
        assert_eq!(10, product.stock.available());
    }

    /// Goal: each broken rule is told, and all of them at once.
    /// Method: break one rule at a time, then every one.
    #[test]
    fn every_broken_rule_of_a_row_is_told() {
        type Break = (&'static str, fn(&mut Row));
        let breaks: [Break; 9] = [
            ("sku:", |row| row.sku = "tea".to_owned()),
            ("name:", |row| row.name = "  ".to_owned()),
            ("name:", |row| row.name = "n".repeat(201)),
            ("description:", |row| row.description = "d".repeat(2_001)),
            ("price_minor_units:", |row| row.price_minor_units = -1),
            ("price_minor_units:", |row| row.price_minor_units = i64::MAX),
            ("currency_code:", |row| row.currency_code = "eur".to_owned()),
            ("initial_stock:", |row| row.initial_stock = -1),
            ("initial_stock:", |row| row.initial_stock = 1_000_001),
        ];
        for (field, spoil) in breaks {
            let mut row = row();
            spoil(&mut row);
            let broken = row.check().unwrap_err();
            assert_eq!(1, broken.len(), "{broken:?}");
            assert!(broken[0].starts_with(field), "{broken:?}");
        }
        let mut all = row();
        for (_, spoil) in breaks {
            spoil(&mut all);
        }
        assert_eq!(6, all.check().unwrap_err().len());
    }

    /// Goal: a reservation meets the demand it was made for, however the lines were cut, and no
    /// other.
    /// Method: the same units in other lines, then other units.
    #[test]
    fn reservations_meet_their_demand_only() {
        let sku = |text: &str| Sku::parse(text).unwrap();
        let reservation = Reservation {
            id: "r".to_owned(),
            state: ReservationState::Held,
            lines: vec![
                ReservedLine {
                    sku: sku("A"),
                    quantity: 3,
                    unit_price: row().check().unwrap().price,
                },
                ReservedLine {
                    sku: sku("B"),
                    quantity: 1,
                    unit_price: row().check().unwrap().price,
                },
            ],
            expires_at: Timestamp::from_micros(0),
        };
        let meets = |lines: &[(&str, i64)]| {
            let lines = lines.iter().map(|(text, quantity)| (sku(text), *quantity));
            reservation.meets(&demand(lines))
        };
        assert!(meets(&[("A", 3), ("B", 1)]));
        assert!(meets(&[("B", 1), ("A", 1), ("A", 2)]));
        assert!(!meets(&[("A", 3)]));
        assert!(!meets(&[("A", 3), ("B", 2)]));
        assert!(!meets(&[("A", 3), ("B", 1), ("C", 1)]));
    }
}
