//! Products and stock in SQL; reservations are in [`reservations`], what was sold in [`sales`].
//!
//! Stock changes by conditional updates alone: what a statement relies on stands in its own
//! `WHERE`, so no two processes can sell one unit twice, whatever each of them has read before.

mod reservations;
pub mod sales;

use gantry_store::{Database, Error, Migration, Page, Row, Statement};

use crate::domain::{Money, ON_HAND_MAX, Product, Sku, Stock};

pub use reservations::{Confirmed, Reserved};

/// The shape of the database.
pub const MIGRATIONS: &[Migration] = &[
    Migration {
        version: 1,
        name: "catalog",
        sql: include_str!("../migrations/0001_catalog.sql"),
    },
    Migration {
        version: 2,
        name: "reservations by age",
        sql: include_str!("../migrations/0002_reservations_by_age.sql"),
    },
    Migration {
        version: 3,
        name: "sales",
        sql: include_str!("../migrations/0003_sales.sql"),
    },
];

const LIST: Statement = Statement::new(
    "catalog.list_products",
    "SELECT sku, name, description, price_minor_units, currency_code, on_hand, reserved
     FROM products WHERE sku > $1 ORDER BY sku LIMIT $2",
);
const GET: Statement = Statement::new(
    "catalog.get_product",
    "SELECT sku, name, description, price_minor_units, currency_code, on_hand, reserved
     FROM products WHERE sku = $1",
);
const INSERT: Statement = Statement::new(
    "catalog.insert_product",
    "INSERT INTO products
         (sku, name, description, price_minor_units, currency_code, on_hand, reserved)
     VALUES ($1, $2, $3, $4, $5, $6, 0) ON CONFLICT (sku) DO NOTHING",
);
const UPDATE: Statement = Statement::new(
    "catalog.update_product",
    "UPDATE products SET name = $2, description = $3, price_minor_units = $4, currency_code = $5
     WHERE sku = $1",
);
const ADJUST: Statement = Statement::new(
    "catalog.adjust_stock",
    "UPDATE products SET on_hand = on_hand + $2
     WHERE sku = $1 AND on_hand + $2 >= reserved AND on_hand + $2 <= $3
     RETURNING on_hand, reserved",
);

/// How many rows of an import were new, and how many not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Imported {
    /// Products that are new.
    pub created: i64,
    /// Products that were there.
    pub updated: i64,
}

/// What became of a change of stock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Adjusted {
    /// It led to this.
    Applied(Stock),
    /// It would have left the range; the stock is still this.
    OutOfRange(Stock),
    /// There is no such product.
    UnknownSku,
}

/// The rows of this service.
#[derive(Debug, Clone)]
pub struct Store {
    database: Database,
}

impl Store {
    /// Rows in `database`, which has gone through [`MIGRATIONS`].
    #[must_use]
    pub fn new(database: Database) -> Self {
        Self { database }
    }

    /// Products after the page's key, one more than the page has room for.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn list(&self, page: &Page) -> Result<Vec<Product>, Error> {
        let rows = self
            .database
            .statement(&LIST)
            .bind(page.after().unwrap_or(""))
            .bind(page.fetch())
            .fetch_all()
            .await?;
        rows.iter().map(read_product).collect()
    }

    /// One product.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn get(&self, sku: &Sku) -> Result<Option<Product>, Error> {
        let get = self.database.statement(&GET).bind(sku.as_str());
        let row = get.fetch_optional().await?;
        row.as_ref().map(read_product).transpose()
    }

    /// Adds or updates a batch of products, all or none. Those that were there keep their stock.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn import(&self, batch: &[Product]) -> Result<Imported, Error> {
        let mut imported = Imported::default();
        let mut transaction = self.database.begin("catalog.import").await?;
        // In the order of everybody who changes several products.
        let mut batch: Vec<_> = batch.iter().collect();
        batch.sort_by(|one, other| one.sku.cmp(&other.sku));
        for product in batch {
            let inserted = transaction
                .statement(&INSERT)
                .bind(product.sku.as_str())
                .bind(&product.name)
                .bind(&product.description)
                .bind(product.price.minor_units)
                .bind(&product.price.currency_code)
                .bind(product.stock.on_hand)
                .execute()
                .await?;
            if inserted == 1 {
                imported.created += 1;
                continue;
            }
            transaction
                .statement(&UPDATE)
                .bind(product.sku.as_str())
                .bind(&product.name)
                .bind(&product.description)
                .bind(product.price.minor_units)
                .bind(&product.price.currency_code)
                .execute()
                .await?;
            imported.updated += 1;
        }
        transaction.commit().await?;
        Ok(imported)
    }

    /// Adds `delta` units, which may be less than zero.
    ///
    /// # Errors
    ///
    /// If the database fails; whether the change was applied may then be unknown.
    pub async fn adjust(&self, sku: &Sku, delta: i64) -> Result<Adjusted, Error> {
        let adjust = self
            .database
            .statement(&ADJUST)
            .bind(sku.as_str())
            .bind(delta)
            .bind(ON_HAND_MAX);
        if let Some(row) = adjust.fetch_optional().await? {
            return Ok(Adjusted::Applied(read_stock(&row)?));
        }
        Ok(match self.get(sku).await? {
            Some(product) => Adjusted::OutOfRange(product.stock),
            None => Adjusted::UnknownSku,
        })
    }
}

fn read_product(row: &Row) -> Result<Product, Error> {
    Ok(Product {
        sku: read_sku(row)?,
        name: row.text("name")?,
        description: row.text("description")?,
        price: read_price(row)?,
        stock: read_stock(row)?,
    })
}

fn read_sku(row: &Row) -> Result<Sku, Error> {
    Sku::parse(&row.text("sku")?).map_err(|_| row.unreadable())
}

fn read_price(row: &Row) -> Result<Money, Error> {
    Ok(Money {
        minor_units: row.integer("price_minor_units")?,
        currency_code: row.text("currency_code")?,
    })
}

fn read_stock(row: &Row) -> Result<Stock, Error> {
    Ok(Stock {
        on_hand: row.integer("on_hand")?,
        reserved: row.integer("reserved")?,
    })
}
