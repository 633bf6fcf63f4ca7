//! Where the books are, and how they are read together.

use std::{collections::BTreeSet, path::Path, time::Duration};

use gantry_store::{Config, Database, OpenError, Url, UrlError};
use tokio::time::{self, Instant};

use crate::{
    books::{Books, Judged},
    ledger::{Bank, BankError},
    rows,
};

/// How often the books are looked at while something is on its way.
const INTERVAL: Duration = Duration::from_millis(100);
/// Longest wait for one page of rows.
const STATEMENT_TIMEOUT: Duration = Duration::from_mins(1);

/// Where the books are.
#[derive(Debug, Clone)]
pub struct Places {
    /// Those of orders.
    pub orders: Url,
    /// Those of payments.
    pub payments: Url,
    /// Those of the catalog.
    pub catalog: Url,
    /// Who has the money.
    pub bank: Bank,
}

/// The books, open.
#[derive(Debug, Clone)]
pub struct Sources {
    orders: Database,
    payments: Database,
    catalog: Database,
    bank: Bank,
}

/// Why the books cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// One is not there.
    #[error("look at the books")]
    Open(#[from] OpenError),
    /// One cannot be read.
    #[error("read the books")]
    Read(#[from] gantry_store::Error),
    /// The bank does not tell.
    #[error("read the bank's ledger")]
    Bank(#[from] BankError),
    /// There is more than can be looked at.
    #[error("{0} answers more than {max} rows", max = rows::ROWS_MAX)]
    TooMany(&'static str),
}

impl Places {
    /// As `gantry up` keeps them in the folder `data`.
    #[must_use]
    pub fn in_folder(data: &Path, bank: Bank) -> Self {
        let file = |name: &str| Url::sqlite(data.join(format!("{name}.db")));
        Self {
            orders: file("orders"),
            payments: file("payments"),
            catalog: file("catalog"),
            bank,
        }
    }

    /// As `gantry up --database URL` keeps them: each service in a schema of its own.
    ///
    /// # Errors
    ///
    /// If the URL is that of a file.
    pub fn in_database(url: &Url, bank: Bank) -> Result<Self, UrlError> {
        let of = |name: &str| {
            url.with_schema(name)?
                .ok_or(UrlError::Server("this is a file"))
        };
        Ok(Self {
            orders: of("orders")?,
            payments: of("payments")?,
            catalog: of("catalog")?,
            bank,
        })
    }
}

impl Sources {
    /// Opens the books, and changes nothing about them.
    ///
    /// # Errors
    ///
    /// If one is not there.
    pub async fn open(places: Places) -> Result<Self, Error> {
        let open = async |url: Url| {
            let config = Config {
                url,
                pool_max: 1,
                statement_timeout: STATEMENT_TIMEOUT,
                ..Config::default()
            };
            Database::open_existing(&config).await
        };
        Ok(Self {
            orders: open(places.orders).await?,
            payments: open(places.payments).await?,
            catalog: open(places.catalog).await?,
            bank: places.bank,
        })
    }

    /// The books as they are now.
    ///
    /// # Errors
    ///
    /// If one of them cannot be read.
    pub async fn look(&self) -> Result<Books, Error> {
        let before = rows::orders(&self.orders).await?;
        let payments = rows::payments(&self.payments).await?;
        let charges = self.bank.charges().await?;
        let reservations = rows::reservations(&self.catalog).await?;
        let shelves = rows::shelves(&self.catalog).await?;
        // Whatever was taken or held by then is of an order that is written down by now.
        let mut orders = rows::orders(&self.orders).await?;
        for (id, order) in &mut orders {
            let unchanged = before.get(id) == Some(&*order);
            if unchanged && !order.unsettled {
                order.judged = Judged::AtRest;
            }
        }
        Ok(Books {
            orders,
            payments,
            charges,
            reservations,
            shelves,
        })
    }

    /// The books once every order that was there at first has come to rest, or after `wait`; orders
    /// that have not by then are overdue. Books that cannot be read are tried again meanwhile.
    ///
    /// # Errors
    ///
    /// If one of them cannot be read in the end.
    pub async fn settled(&self, wait: Duration) -> Result<Books, Error> {
        let until = Instant::now() + wait;
        let mut awaited: Option<BTreeSet<String>> = None;
        loop {
            let over = Instant::now() >= until;
            match self.look().await {
                Ok(mut books) => {
                    let first = || books.orders.keys().cloned().collect();
                    let awaited = awaited.get_or_insert_with(first);
                    awaited.retain(|id| {
                        let order = books.orders.get(id);
                        order.is_some_and(|order| order.judged != Judged::AtRest)
                    });
                    for (id, order) in &mut books.orders {
                        if over && order.unsettled && awaited.contains(id) {
                            order.judged = Judged::Overdue;
                        }
                    }
                    if over || awaited.is_empty() {
                        return Ok(books);
                    }
                }
                Err(error) if over => return Err(error),
                Err(_) => {}
            }
            time::sleep_until(until.min(Instant::now() + INTERVAL)).await;
        }
    }
}
