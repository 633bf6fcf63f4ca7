//! An import as it comes in: rows judged one by one, stored in batches.

use gantry_store::Error;
use shop_proto::catalog::v1::{ImportProductsResponse, RejectedRow};

use crate::{
    domain::{Product, Row},
    store::Store,
};

/// Rows stored in one transaction: enough to make its cost small, few enough to keep other writers
/// waiting for milliseconds only.
const BATCH_MAX: usize = 100;
/// Rejected rows that are told of.
const REJECTED_MAX: usize = 100;

/// An import in progress. Memory is bounded by one batch and the rows told of.
#[derive(Debug)]
pub struct Import {
    store: Store,
    rows: i64,
    batch: Vec<Product>,
    outcome: ImportProductsResponse,
}

impl Import {
    /// An import without rows yet.
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self {
            store,
            rows: 0,
            batch: Vec::with_capacity(BATCH_MAX),
            outcome: ImportProductsResponse::default(),
        }
    }

    /// Judges a row; stores the batch it fills.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn add(&mut self, row: Row) -> Result<(), Error> {
        self.rows += 1;
        let sku = row.sku.clone();
        match row.check() {
            Ok(product) => self.batch.push(product),
            Err(reasons) => {
                self.outcome.rejected_count += 1;
                if self.outcome.rejected_rows.len() < REJECTED_MAX {
                    self.outcome.rejected_rows.push(RejectedRow {
                        row: self.rows,
                        sku,
                        reasons,
                    });
                }
            }
        }
        if self.batch.len() == BATCH_MAX {
            self.store_batch().await?;
        }
        Ok(())
    }

    /// Stores what is left and says what became of it all.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn finish(mut self) -> Result<ImportProductsResponse, Error> {
        if !self.batch.is_empty() {
            self.store_batch().await?;
        }
        Ok(self.outcome)
    }

    async fn store_batch(&mut self) -> Result<(), Error> {
        let imported = self.store.import(&self.batch).await?;
        self.batch.clear();
        self.outcome.created_count += imported.created;
        self.outcome.updated_count += imported.updated;
        Ok(())
    }
}
