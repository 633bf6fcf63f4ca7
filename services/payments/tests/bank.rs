//! Payments over a bank that has good days and bad ones.

// Helpers of tests fail like tests.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use bytes::Bytes;
use gantry::app::{Identity, testing::Service};
use gantry_harness::database::Place;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use serde_json::{Value, json};
use shop_proto::{
    money::v1::Money,
    payments::v1::{
        ChargeRequest, GetPaymentRequest, Payment, PaymentState, RefundRequest,
        payments_service_client::PaymentsServiceClient,
    },
};
use tonic::{Code, Status};

gantry_harness::on_both!(
    money_moves_once,
    a_bad_day_is_survived_by_asking_again,
    late_charges_are_undone,
    the_bank_names_what_is_wrong,
);

type PaymentsClient = PaymentsServiceClient<gantry::client::Channel>;

/// Both services, each with a ledger of its own.
struct Books {
    _place: Place,
    bank: Service,
    payments: Service,
}

impl Books {
    async fn open(place: Place) -> Self {
        let toml = format!("[database]\nurl = '{}'\n", place.url_of("bank"));
        let bank = Service::start(identity("bank"), &toml, bank::start)
            .await
            .unwrap();
        let toml = format!(
            "[database]\nurl = '{}'\n[bank]\nurl = 'http://{}'\ntimeout = '300ms'\n\
             breaker.state = 'disabled'\n",
            place.url_of("payments"),
            bank.address(),
        );
        let payments = Service::start(identity("payments"), &toml, payments::start);
        let payments = payments.await.unwrap();
        Self {
            _place: place,
            bank,
            payments,
        }
    }

    fn client(&self) -> PaymentsClient {
        self.payments.client_without_retries()
    }

    async fn charge(&self, id: &str, minor_units: i64) -> Result<Payment, Status> {
        let request = ChargeRequest {
            payment_id: id.to_owned(),
            amount: Some(euros(minor_units)),
        };
        let response = self.client().charge(request).await?;
        Ok(response.into_inner().payment.unwrap())
    }

    async fn refund(&self, id: &str) -> Result<Payment, Status> {
        let payment_id = id.to_owned();
        let response = self.client().refund(RefundRequest { payment_id }).await?;
        Ok(response.into_inner().payment.unwrap())
    }

    async fn behave(&self, behaviour: Value) {
        let (status, _) = self.ask(Method::PUT, "/control", &behaviour).await;
        assert_eq!(StatusCode::OK, status);
    }

    async fn ledger(&self) -> Value {
        let (status, ledger) = self.ask(Method::GET, "/ledger", &Value::Null).await;
        assert_eq!(StatusCode::OK, status);
        ledger
    }

    async fn ask(&self, method: Method, path: &str, body: &Value) -> (StatusCode, Value) {
        let request = Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.bank.address()))
            .header("content-type", "application/json")
            .header("idempotency-key", "by-hand")
            .body(Full::<Bytes>::from(body.to_string()))
            .unwrap();
        let client = Client::builder(TokioExecutor::new()).build_http();
        let response = client.request(request).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }
}

fn identity(name: &'static str) -> Identity {
    Identity {
        name,
        version: "0.0.0",
        description: "a service inside a test",
    }
}

fn euros(minor_units: i64) -> Money {
    Money {
        minor_units,
        currency_code: "EUR".to_owned(),
    }
}

fn totals(euros: i64) -> Value {
    json!([{"currency_code": "EUR", "amount_minor_units": euros}])
}

/// Goal: money moves once per payment, whatever is asked again, and what cannot be is told.
/// Method: charges and refunds, each twice; another amount, too much, nothing, an unknown one.
async fn money_moves_once(place: Place) {
    let money = Books::open(place).await;
    for _ in 0..2 {
        let payment = money.charge("one", 750).await.unwrap();
        assert_eq!(PaymentState::Charged, payment.state());
        assert_eq!(totals(750), money.ledger().await["totals"]);
    }
    let other = money.charge("one", 751).await.unwrap_err();
    assert_eq!(Code::AlreadyExists, other.code());
    let declined = money.charge("two", 1_000_001).await.unwrap();
    assert_eq!(PaymentState::Declined, declined.state());
    let nothing = money.charge("three", 0).await.unwrap_err();
    assert_eq!(Code::InvalidArgument, nothing.code());
    for _ in 0..2 {
        let payment = money.refund("one").await.unwrap();
        assert_eq!(PaymentState::Refunded, payment.state());
        assert_eq!(json!([]), money.ledger().await["totals"]);
    }
    let payment = money.refund("two").await.unwrap();
    assert_eq!(PaymentState::Declined, payment.state());
    let again = money.charge("one", 750).await.unwrap_err();
    assert_eq!(Code::FailedPrecondition, again.code());
    let payment_id = "four".to_owned();
    let unknown = money
        .client()
        .get_payment(GetPaymentRequest { payment_id })
        .await;
    assert_eq!(Code::NotFound, unknown.unwrap_err().code());
}

/// Goal: a bank that is away or fails leaves a payment pending, and asking again settles it.
/// Method: an outage; answers that are lost after the work, until one charge went through.
async fn a_bad_day_is_survived_by_asking_again(place: Place) {
    let money = Books::open(place).await;
    money.behave(json!({"outage": true})).await;
    let error = money.charge("one", 750).await.unwrap_err();
    assert_eq!(Code::Unavailable, error.code());
    assert_eq!("the bank answered 503 Service Unavailable", error.message());
    money.behave(json!({"error_percent": 100})).await;
    // Before or after the work, as it happens: after enough of them it was done, and is not known.
    while money.ledger().await["totals"] != totals(750) {
        assert_eq!(
            Code::Unavailable,
            money.charge("one", 750).await.unwrap_err().code()
        );
    }
    money.behave(json!({})).await;
    let payment = money.charge("one", 750).await.unwrap();
    assert_eq!(PaymentState::Charged, payment.state());
    assert_eq!(totals(750), money.ledger().await["totals"]);
}

/// Goal: a bank that answers too late is not waited for, and what it did then is undone by a refund,
/// whichever of the two comes first.
/// Method: charges of a bank that takes a second, for a caller that has less; a refund after it,
/// and one that overtakes it.
async fn late_charges_are_undone(place: Place) {
    let money = Books::open(place).await;
    money.behave(json!({"latency_ms": 1_000})).await;
    let began = tokio::time::Instant::now();
    let error = money.charge("late", 750).await.unwrap_err();
    assert_eq!(Code::Unavailable, error.code());
    assert!(
        began.elapsed() < Duration::from_millis(900),
        "{:?}",
        began.elapsed()
    );
    // The charge is still on its way into the ledger.
    assert_eq!(json!([]), money.ledger().await["totals"]);
    let mut late = money.client();
    let payment_id = "late".to_owned();
    assert_eq!(
        Code::Unavailable,
        late.refund(RefundRequest { payment_id })
            .await
            .unwrap_err()
            .code()
    );
    money.behave(json!({})).await;
    let payment = money.refund("late").await.unwrap();
    assert_eq!(PaymentState::Refunded, payment.state());
    // A charge that was asked for before the refund, and comes after it.
    let charge = json!({"amount_minor_units": 1, "currency_code": "EUR", "reference": "x"});
    assert_eq!(
        StatusCode::OK,
        money.ask(Method::POST, "/charges", &charge).await.0
    );
    money.refund("overtaken").await.unwrap();
    let error = money.charge("overtaken", 750).await.unwrap_err();
    assert_eq!(Code::FailedPrecondition, error.code());
    assert_eq!(totals(1), money.ledger().await["totals"]);
}

/// Goal: what the bank cannot take is refused, with the field named.
/// Method: requests by hand.
async fn the_bank_names_what_is_wrong(place: Place) {
    let money = Books::open(place).await;
    for (path, body, status, word) in [
        (
            "/charges",
            json!({"amount_minor_units": 0, "currency_code": "EUR", "reference": "x"}),
            400,
            "amount_minor_units",
        ),
        (
            "/charges",
            json!({"amount_minor_units": 1, "currency_code": "eur", "reference": "x"}),
            400,
            "currency_code",
        ),
        (
            "/charges",
            json!({"amount_minor_units": 1, "currency_code": "EUR", "reference": ""}),
            400,
            "reference",
        ),
        ("/refunds", json!({"charge": ""}), 400, "charge"),
    ] {
        let (got, answer) = money.ask(Method::POST, path, &body).await;
        assert_eq!(status, got.as_u16(), "{answer}");
        assert!(
            answer["error"].as_str().unwrap().starts_with(word),
            "{answer}"
        );
    }
    let (status, _) = money
        .ask(Method::PUT, "/control", &json!({"latency": 1}))
        .await;
    assert_eq!(StatusCode::UNPROCESSABLE_ENTITY, status);
    assert_eq!(
        StatusCode::NOT_FOUND,
        money.ask(Method::GET, "/", &Value::Null).await.0
    );
}
