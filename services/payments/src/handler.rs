//! gRPC in, gRPC out: converts, and decides which status an outcome is.

use gantry::{crash, status};
use shop_proto::{
    money::v1::Money as MoneyMessage,
    payments::v1::{
        self as proto, ChargeRequest, ChargeResponse, GetPaymentRequest, GetPaymentResponse,
        RefundRequest, RefundResponse, payments_service_server::PaymentsService,
    },
};
use tonic::{Request, Response, Status};

use crate::{
    bank::{Bank, Charged, Unanswered},
    domain::{Money, Payment, PaymentState},
    store::Store,
};

/// The rpcs of this service.
#[derive(Debug, Clone)]
pub struct Payments {
    store: Store,
    bank: Bank,
}

impl Payments {
    /// The rpcs over these parts.
    #[must_use]
    pub fn new(store: Store, bank: Bank) -> Self {
        Self { store, bank }
    }

    /// Takes what is not known to be taken.
    async fn take(&self, payment: Payment, amount: &Money) -> Result<Payment, Status> {
        if payment.state != PaymentState::Pending {
            return Ok(payment);
        }
        crash::point("payments.charge-sent.before");
        let charged = self.bank.charge(&payment.id, amount);
        let charged = crash::amid("payments.charge-sent.after", charged).await;
        crash::point("payments.charge-answered.before");
        let state = match charged.map_err(|error| unanswered(&payment.id, &error))? {
            Charged::Yes => PaymentState::Charged,
            Charged::Declined => PaymentState::Declined,
            Charged::Refunded => PaymentState::Refunded,
        };
        let from = [PaymentState::Pending; 2];
        let settled = self.store.settle(&payment.id, from, state).await;
        crash::point("payments.charge-answered.after");
        Ok(settled?)
    }
}

#[tonic::async_trait]
impl PaymentsService for Payments {
    async fn charge(
        &self,
        request: Request<ChargeRequest>,
    ) -> Result<Response<ChargeResponse>, Status> {
        let ChargeRequest { payment_id, amount } = request.into_inner();
        let amount = amount.map(|amount| Money {
            minor_units: amount.minor_units,
            currency_code: amount.currency_code,
        });
        let amount = amount.filter(|amount| amount.minor_units > 0);
        let amount = amount.ok_or_else(|| {
            let why = "must be more than 0".to_owned();
            status::invalid_argument([("amount.minor_units", why)])
        })?;
        crash::point("payments.row.before");
        let payment = self.store.begin(&payment_id, &amount).await?;
        crash::point("payments.row.after");
        if payment
            .amount
            .as_ref()
            .is_some_and(|known| *known != amount)
        {
            return Err(Status::already_exists(
                "this payment_id stands for another amount",
            ));
        }
        let payment = self.take(payment, &amount).await?;
        match payment.state {
            PaymentState::Refunding | PaymentState::Refunded => Err(Status::failed_precondition(
                "the payment was refunded, and will not be charged again",
            )),
            _ => Ok(Response::new(ChargeResponse {
                payment: Some(message(payment)),
            })),
        }
    }

    async fn refund(
        &self,
        request: Request<RefundRequest>,
    ) -> Result<Response<RefundResponse>, Status> {
        let id = request.into_inner().payment_id;
        crash::point("payments.refund.before");
        let mut payment = self.store.begin_refund(&id).await?;
        if payment.state == PaymentState::Refunding {
            crash::point("payments.refund-sent.before");
            let refunded = self.bank.refund(&id);
            let refunded = crash::amid("payments.refund-sent.after", refunded).await;
            crash::point("payments.refund-answered.before");
            refunded.map_err(|error| unanswered(&id, &error))?;
            let from = [PaymentState::Refunding; 2];
            payment = self.store.settle(&id, from, PaymentState::Refunded).await?;
            crash::point("payments.refund.after");
        }
        Ok(Response::new(RefundResponse {
            payment: Some(message(payment)),
        }))
    }

    async fn get_payment(
        &self,
        request: Request<GetPaymentRequest>,
    ) -> Result<Response<GetPaymentResponse>, Status> {
        let payment = self.store.find(&request.into_inner().payment_id).await?;
        let payment = payment.ok_or_else(|| Status::not_found("there is no such payment"))?;
        Ok(Response::new(GetPaymentResponse {
            payment: Some(message(payment)),
        }))
    }
}

/// Nobody knows what the bank did, and nobody pretends to. Where it was not asked, it is worth asking
/// again after a pause.
fn unanswered(payment_id: &str, error: &Unanswered) -> Status {
    if let Unanswered::NotAsked(open) = error {
        tracing::debug!(payment_id, "the bank is left alone");
        return open.status(error.to_string());
    }
    let cause = status::chain(error);
    tracing::warn!(payment_id, cause, "what the bank did is not known");
    Status::unavailable(error.to_string())
}

fn message(payment: Payment) -> proto::Payment {
    let state = match payment.state {
        PaymentState::Pending => proto::PaymentState::Pending,
        PaymentState::Charged => proto::PaymentState::Charged,
        PaymentState::Declined => proto::PaymentState::Declined,
        PaymentState::Refunding => proto::PaymentState::Refunding,
        PaymentState::Refunded => proto::PaymentState::Refunded,
    };
    proto::Payment {
        payment_id: payment.id,
        amount: payment.amount.map(|amount| MoneyMessage {
            minor_units: amount.minor_units,
            currency_code: amount.currency_code,
        }),
        state: state.into(),
        create_time: Some(payment.created_at.into()),
        update_time: Some(payment.updated_at.into()),
    }
}
