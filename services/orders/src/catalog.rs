//! The catalog, as orders see it.

use gantry::client::Channel;
use shop_proto::{
    catalog::v1::{
        ConfirmRequest, Line as LineMessage, ReleaseRequest, ReserveRequest,
        catalog_service_client::CatalogServiceClient,
    },
    money::v1::Money as MoneyMessage,
};
use tonic::{Code, Status};

use crate::domain::{Line, Money};

/// Calls the catalog; clones share its connections.
#[derive(Debug, Clone)]
pub struct Catalog {
    client: CatalogServiceClient<Channel>,
}

/// What became of a wish to hold stock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reserved {
    /// It is held, at these prices.
    Priced(Vec<Line>),
    /// There is too little of something.
    Short,
    /// It was held and is no longer.
    Gone,
}

/// Whether stock that was held still is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// And now for good.
    Yes,
    /// It was released or has expired.
    Gone,
}

impl Catalog {
    /// Calls through `client`.
    #[must_use]
    pub fn new(client: CatalogServiceClient<Channel>) -> Self {
        Self { client }
    }

    /// Holds stock for an order.
    ///
    /// # Errors
    ///
    /// If it is not known to be held or not; trying again is safe.
    pub async fn reserve(&self, order_id: &str, lines: &[Line]) -> Result<Reserved, Status> {
        let lines = lines.iter().map(|line| LineMessage {
            sku: line.sku.clone(),
            quantity: i32::try_from(line.quantity).unwrap_or(i32::MAX),
        });
        let request = ReserveRequest {
            reservation_id: order_id.to_owned(),
            lines: lines.collect(),
        };
        let response = match self.client.clone().reserve(request).await {
            Ok(response) => response.into_inner(),
            Err(error) if error.code() == Code::FailedPrecondition => return Ok(Reserved::Gone),
            Err(error) => return Err(error),
        };
        let Some(reservation) = response.reservation else {
            return Ok(Reserved::Short);
        };
        let lines = reservation.lines.into_iter().map(|line| Line {
            sku: line.sku,
            quantity: line.quantity.into(),
            unit_price: line.unit_price.map(money),
        });
        Ok(Reserved::Priced(lines.collect()))
    }

    /// Takes what is held for an order out of the stock.
    ///
    /// # Errors
    ///
    /// If it is not known to be taken or not; trying again is safe.
    pub async fn confirm(&self, order_id: &str) -> Result<Held, Status> {
        let request = ConfirmRequest {
            reservation_id: order_id.to_owned(),
        };
        match self.client.clone().confirm(request).await {
            Ok(_) => Ok(Held::Yes),
            Err(error) if matches!(error.code(), Code::FailedPrecondition | Code::NotFound) => {
                Ok(Held::Gone)
            }
            Err(error) => Err(error),
        }
    }

    /// Puts back what is held for an order, confirmed or not.
    ///
    /// # Errors
    ///
    /// If it is not known to be back; trying again is safe.
    pub async fn release(&self, order_id: &str) -> Result<(), Status> {
        let request = ReleaseRequest {
            reservation_id: order_id.to_owned(),
        };
        self.client.clone().release(request).await?;
        Ok(())
    }
}

fn money(money: MoneyMessage) -> Money {
    Money {
        minor_units: money.minor_units,
        currency_code: money.currency_code,
    }
}
