//! What was found, for people and for programs.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use crate::{
    books::{Books, ChargeState, Judged, Shelf, Shelves, State},
    faults::Fault,
};

/// What was found in the books.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Whatever does not add up.
    faults: Vec<Fault>,
    orders: Vec<Orders>,
    money: BTreeMap<String, Sums>,
    charges: BTreeMap<&'static str, i64>,
    shelves: Shelves,
    #[serde(skip_serializing_if = "Option::is_none")]
    shelves_before: Option<Shelves>,
}

/// Orders of one state.
#[derive(Debug, Clone, Serialize)]
struct Orders {
    state: State,
    count: i64,
    units: i64,
    /// Of them, on their way and not judged.
    moving: i64,
}

/// Money in one currency, in its smallest unit.
#[derive(Debug, Clone, Default, Serialize)]
struct Sums {
    /// Totals of orders that are sold.
    due: i64,
    /// Charged by the bank, and not given back.
    taken: i64,
    /// Charged by the bank, and given back.
    refunded: i64,
}

/// What is read of an earlier report.
#[derive(Debug, Deserialize)]
struct Earlier {
    shelves: Shelves,
}

impl Report {
    /// What `books` say, beside what was on the shelves once.
    #[must_use]
    pub fn of(books: &Books, since: Option<Shelves>) -> Self {
        let mut orders = BTreeMap::new();
        let mut money = BTreeMap::<String, Sums>::new();
        for order in books.orders.values() {
            let row = orders.entry(order.state).or_insert(Orders {
                state: order.state,
                count: 0,
                units: 0,
                moving: 0,
            });
            row.count += 1;
            row.units += order.units();
            row.moving += i64::from(order.judged == Judged::Later);
            if let Some(due) = order.due() {
                money.entry(due.currency_code.clone()).or_default().due += due.minor_units;
            }
        }
        let mut charges = BTreeMap::new();
        for charge in &books.charges {
            *charges.entry(charge.state.name()).or_default() += 1;
            let sums = match charge.state {
                ChargeState::Charged | ChargeState::Refunded => {
                    money.entry(charge.amount.currency_code.clone())
                }
                ChargeState::Declined | ChargeState::Void => continue,
            };
            let sums = sums.or_default();
            let sum = match charge.state {
                ChargeState::Charged => &mut sums.taken,
                _ => &mut sums.refunded,
            };
            *sum += charge.amount.minor_units;
        }
        Self {
            faults: books.faults(since.as_ref()),
            orders: orders.into_values().collect(),
            money,
            charges,
            shelves: books.shelves.clone(),
            shelves_before: since,
        }
    }

    /// What was on the shelves by an earlier report, as JSON.
    ///
    /// # Errors
    ///
    /// If it is none.
    pub fn shelves_of(json: &[u8]) -> Result<Shelves, serde_json::Error> {
        serde_json::from_slice::<Earlier>(json).map(|earlier| earlier.shelves)
    }

    /// Whether everything adds up.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.faults.is_empty()
    }

    fn orders_table(&self) -> String {
        let rows = self.orders.iter().map(|it| {
            let [count, units, moving] = [it.count, it.units, it.moving].map(|it| it.to_string());
            [it.state.name().to_owned(), count, units, moving]
        });
        table(["ORDERS", "COUNT", "UNITS", "ON THEIR WAY"], rows)
    }

    fn money_table(&self) -> String {
        let rows = self.money.iter().map(|(currency_code, it)| {
            let [due, taken, refunded] = [it.due, it.taken, it.refunded].map(|it| it.to_string());
            [currency_code.clone(), due, taken, refunded]
        });
        table(["MONEY", "DUE", "TAKEN", "REFUNDED"], rows)
    }

    fn charges_table(&self) -> String {
        let rows = self.charges.iter();
        let rows = rows.map(|(state, count)| [(*state).to_owned(), count.to_string()]);
        table(["CHARGES", "COUNT"], rows)
    }

    /// Products of which something was ordered or is missing; others are counted.
    fn shelves_table(&self) -> String {
        let before = |sku: &str| self.shelves_before.as_ref()?.get(sku).copied();
        let still = |sku: &str, shelf: &Shelf| {
            let untouched = shelf.sold == 0 && shelf.held == 0 && shelf.reserved == 0;
            untouched && before(sku).is_none_or(|before| before == *shelf)
        };
        let (quiet, moved): (Vec<_>, Vec<_>) = self
            .shelves
            .iter()
            .partition(|(sku, shelf)| still(sku, shelf));
        let rows = moved.into_iter().map(|(sku, shelf)| {
            let before = before(sku).map_or_else(String::new, |it| it.on_hand.to_string());
            let [sold, held, now] =
                [shelf.sold, shelf.held, shelf.on_hand].map(|it| it.to_string());
            [sku.clone(), before, sold, held, now]
        });
        let heading = ["SHELVES", "BEFORE", "SOLD EVER", "HELD", "NOW"];
        let shown = table(heading, rows);
        match quiet.len() {
            0 => shown,
            count => format!("{shown}and {count} products of which nothing was ordered\n"),
        }
    }

    fn faults_table(&self) -> String {
        let rows = self.faults.iter().map(|it| {
            let kind = it.kind.name().to_owned();
            [kind, it.subject.clone(), it.found.clone()]
        });
        table(["FAULT", "ORDER OR PRODUCT", "WHAT WAS FOUND"], rows)
    }
}

/// For people.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.orders_table())?;
        writeln!(f, "{}", self.charges_table())?;
        writeln!(f, "{}", self.money_table())?;
        writeln!(f, "{}", self.shelves_table())?;
        match self.faults.len() {
            0 => write!(f, "The books are good."),
            1 => write!(f, "{}\n1 fault.", self.faults_table()),
            count => write!(f, "{}\n{count} faults.", self.faults_table()),
        }
    }
}

/// Lays rows out under their headings: texts to the left, numbers to the right.
fn table<const N: usize>(
    heading: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    let rows: Vec<_> = rows.into_iter().collect();
    let mut widths = heading.map(|title| title.chars().count());
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let is_number = |at: usize| {
        let mut cells = rows
            .iter()
            .map(|row| &row[at])
            .filter(|cell| !cell.is_empty());
        !rows.is_empty() && cells.all(|cell| cell.parse::<i64>().is_ok())
    };
    let mut text = String::new();
    for row in std::iter::once(&heading.map(str::to_owned)).chain(&rows) {
        let cells = row
            .iter()
            .zip(widths)
            .enumerate()
            .map(|(at, (cell, width))| {
                if is_number(at) {
                    format!("{cell:>width$}")
                } else {
                    format!("{cell:width$}")
                }
            });
        let line = cells.collect::<Vec<_>>().join("  ");
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: people see columns, and programs read an earlier report again.
    /// Method: a table with texts and numbers; a report of shelves alone, and what is none.
    #[test]
    fn reports_are_laid_out_and_read_again() {
        let rows = vec![
            ["confirmed".to_owned(), "9".to_owned()],
            ["é".to_owned(), "1234567".to_owned()],
        ];
        let expected = "ORDERS       COUNT\nconfirmed        9\né          1234567\n";
        assert_eq!(expected, table(["ORDERS", "COUNT"], rows));

        let shelf = Shelf {
            on_hand: 8,
            reserved: 2,
            held: 2,
            sold: 2,
        };
        let books = Books {
            shelves: BTreeMap::from([("TEA".to_owned(), shelf)]),
            ..Books::default()
        };
        let report = Report::of(&books, None);
        let json = serde_json::to_vec(&report).unwrap();
        assert_eq!(books.shelves, Report::shelves_of(&json).unwrap());
        assert!(Report::shelves_of(b"{}").is_err());
        assert!(report.is_good());
        let text = report.to_string();
        assert!(text.ends_with("The books are good."), "{text}");
        assert!(!Report::of(&Books::default(), Some(books.shelves)).is_good());
    }
}
