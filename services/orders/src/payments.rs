//! Payments, as orders see them.

use gantry::client::Channel;
use shop_proto::{
    money::v1::Money as MoneyMessage,
    payments::v1::{
        ChargeRequest, PaymentState, RefundRequest, payments_service_client::PaymentsServiceClient,
    },
};
use tonic::{Code, Status};

use crate::domain::Money;

/// Calls payments; clones share its connections.
#[derive(Debug, Clone)]
pub struct Payments {
    client: PaymentsServiceClient<Channel>,
}

/// What became of a charge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Charged {
    /// The money is taken, now or since before.
    Yes,
    /// It will not be.
    Declined,
    /// It was given back before.
    Refunded,
}

impl Payments {
    /// Calls through `client`.
    #[must_use]
    pub fn new(client: PaymentsServiceClient<Channel>) -> Self {
        Self { client }
    }

    /// Takes the money for an order.
    ///
    /// # Errors
    ///
    /// If it is not known to be taken or not; trying again is safe.
    pub async fn charge(&self, order_id: &str, amount: &Money) -> Result<Charged, Status> {
        let request = ChargeRequest {
            payment_id: order_id.to_owned(),
            amount: Some(MoneyMessage {
                minor_units: amount.minor_units,
                currency_code: amount.currency_code.clone(),
            }),
        };
        let response = match self.client.clone().charge(request).await {
            Ok(response) => response.into_inner(),
            Err(error) if error.code() == Code::FailedPrecondition => return Ok(Charged::Refunded),
            Err(error) => return Err(error),
        };
        match response.payment.map(|payment| payment.state()) {
            Some(PaymentState::Charged) => Ok(Charged::Yes),
            Some(PaymentState::Declined) => Ok(Charged::Declined),
            other => Err(Status::internal(format!("a charge ended as {other:?}"))),
        }
    }

    /// Gives back what was taken for an order; nothing will be from now on.
    ///
    /// # Errors
    ///
    /// If it is not known to be given back; trying again is safe.
    pub async fn refund(&self, order_id: &str) -> Result<(), Status> {
        let request = RefundRequest {
            payment_id: order_id.to_owned(),
        };
        self.client.clone().refund(request).await?;
        Ok(())
    }
}
