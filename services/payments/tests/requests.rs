//! How payments ask the bank: over how many connections, in whose trace, and for how long.

// Helpers of tests fail like tests.
#![allow(clippy::unwrap_used)]

#[path = "requests/alone.rs"]
mod alone;
#[path = "requests/desk.rs"]
mod desk;

use std::{sync::Arc, time::Duration};

use desk::Desk;
use gantry::{
    app::{Identity, testing::Service},
    breaker::Breaker,
    call::{Context, Ended, Scoped, TraceContext},
    config::Live,
    contract::{Access, Idempotency, Method},
    deadline::Deadline,
    journal::Journal,
    shutdown::Tasks,
};
use gantry_harness::database::Place;
use payments::{
    bank::{Bank, Unanswered},
    config,
    domain::Money,
};
use shop_proto::{
    money::v1::Money as MoneyMessage,
    payments::v1::{
        ChargeRequest, GetPaymentRequest, PaymentState, RefundRequest,
        payments_service_client::PaymentsServiceClient,
    },
};
use tokio::{task::JoinSet, time::Instant};
use tonic::{Code, Request, Status};

/// Requests to the bank at once.
const REQUESTS_MAX: usize = 4;
/// Connections to it that are kept open between requests.
const IDLE_MAX: usize = 16;
/// Charges at once: many more.
const CHARGES: usize = 60;

/// Patience that no test comes to the end of.
const PATIENCE: Duration = Duration::from_mins(1);

type Client = PaymentsServiceClient<gantry::client::Channel>;

/// A call that others are made for.
static CALL: Method = Method {
    path: "/test.v1.TestService/Pay",
    client_streaming: false,
    server_streaming: false,
    idempotency: Idempotency::Idempotent,
    access: Access::Internal,
    role: None,
};

/// Payments over the bank at `desk`, for whose answers they wait long.
async fn payments(place: &Place, desk: &Desk) -> Service {
    payments_with(place, desk, "").await
}

/// The same with further settings of the bank.
async fn payments_with(place: &Place, desk: &Desk, settings: &str) -> Service {
    let identity = Identity {
        name: "payments",
        version: "0.0.0",
        description: "a service inside a test",
    };
    let toml = format!(
        "[database]\nurl = '{}'\n[bank]\nurl = 'http://{}'\ntimeout = '60s'\n\
         requests_max = {REQUESTS_MAX}\nidle_max = {IDLE_MAX}\n{settings}",
        place.url(),
        desk.address,
    );
    let service = Service::start(identity, &toml, payments::start).await;
    service.unwrap()
}

async fn charge(
    mut payments: Client,
    id: String,
    within: Duration,
) -> Result<PaymentState, Status> {
    let mut request = Request::new(ChargeRequest {
        payment_id: id,
        amount: Some(MoneyMessage {
            minor_units: 750,
            currency_code: "EUR".to_owned(),
        }),
    });
    request.set_timeout(within);
    let charged = payments.charge(request).await?;
    Ok(charged.into_inner().payment.unwrap().state())
}

/// Where a payment stands.
async fn known(payments: &Service, id: &str) -> PaymentState {
    let payment_id = id.to_owned();
    let mut payments: Client = payments.client();
    let known = payments.get_payment(GetPaymentRequest { payment_id }).await;
    known.unwrap().into_inner().payment.unwrap().state()
}

/// Whether somebody was told in time that nothing is known.
fn unanswered<T>(outcome: &Result<T, Status>) -> bool {
    let code = outcome.as_ref().err().map(Status::code);
    // The second where the first comes too late over a busy machine.
    matches!(code, Some(Code::Unavailable | Code::DeadlineExceeded))
}

/// A call that began now, in this trace and with this much time.
fn call(trace: TraceContext, left: Option<Duration>) -> Arc<Context> {
    Arc::new(Context {
        method: &CALL,
        peer: None,
        deadline: left.and_then(Deadline::after),
        trace,
        previous_attempts: 0,
        criticality: None,
        ended: Ended::default(),
    })
}

/// Goal: however many charges there are at once, the bank is asked a few at a time over a bounded
/// number of connections; the others wait for their turn, and no longer than their deadline.
/// Method: many charges of a bank that answers nobody, and one more with little time, which is not
/// sent; then it answers all.
#[tokio::test(flavor = "multi_thread")]
async fn charges_wait_for_their_turn_at_the_bank() {
    let (place, desk) = (Place::file(), Desk::open().await);
    let payments = payments(&place, &desk).await;
    let mut charges = JoinSet::new();
    for at in 0..CHARGES {
        charges.spawn(charge(
            payments.client_without_retries(),
            format!("charge-{at}"),
            PATIENCE,
        ));
    }
    desk.until(|seen| seen.heads.len() >= REQUESTS_MAX).await;
    let hurried = Duration::from_millis(500);
    let late = charge(
        payments.client_without_retries(),
        "late".to_owned(),
        hurried,
    )
    .await;
    assert!(unanswered(&late), "{late:?}");
    let seen = desk.seen();
    assert_eq!(REQUESTS_MAX, seen.heads.len(), "{seen:?}");
    assert_eq!(REQUESTS_MAX, seen.open.1, "{seen:?}");

    desk.take(2 * CHARGES);
    for charged in charges.join_all().await {
        assert_eq!(PaymentState::Charged, charged.unwrap());
    }
    let seen = desk.seen();
    assert_eq!(CHARGES, seen.heads.len(), "the late one was never sent");
    assert_eq!(REQUESTS_MAX, seen.waiting.1, "{:?}", seen.waiting);
    assert!(seen.open.1 <= REQUESTS_MAX + IDLE_MAX, "{:?}", seen.open);
}

/// Goal: what is known to be settled is not asked of the bank again, which may be slow, away, or count.
/// Method: a charge and a refund, each asked for twice; what the bank was asked.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_settled_is_not_asked_for_again() {
    let (place, desk) = (Place::file(), Desk::open().await);
    let service = payments(&place, &desk).await;
    desk.take(2);
    desk.give_back(2);
    for _ in 0..2 {
        let charged = charge(service.client(), "one".to_owned(), PATIENCE).await;
        assert_eq!(PaymentState::Charged, charged.unwrap());
    }
    assert_eq!(1, desk.seen().heads.len());
    for _ in 0..2 {
        let payment_id = "one".to_owned();
        let mut payments: Client = service.client();
        payments.refund(RefundRequest { payment_id }).await.unwrap();
    }
    assert_eq!(2, desk.seen().heads.len());
}

/// Goal: whoever follows a trace sees what was asked of the bank in it, as a step of its own.
/// Method: a charge and a refund made for a call of a known trace; what the bank was told.
#[tokio::test(flavor = "multi_thread")]
async fn the_bank_is_told_the_trace() {
    let (place, desk) = (Place::file(), Desk::open().await);
    let service = payments(&place, &desk).await;
    desk.take(1);
    desk.give_back(1);
    let trace = TraceContext {
        state: Some("vendor=1".parse().unwrap()),
        ..TraceContext::root(true)
    };
    let (trace_id, span_id) = (trace.trace_id, trace.span_id);
    let work = async {
        let charged = charge(service.client(), "one".to_owned(), PATIENCE).await;
        let at_charge = desk.seen();
        let payment_id = "one".to_owned();
        let mut payments: Client = service.client();
        payments.refund(RefundRequest { payment_id }).await.unwrap();
        (charged, at_charge)
    };
    let (charged, at_charge) = Scoped::new(call(trace, None), work).await;
    assert_eq!(PaymentState::Charged, charged.unwrap());
    let mut spans = vec![format!("{span_id:016x}")];
    for seen in [at_charge, desk.seen()] {
        let told = seen.last("traceparent").expect("the header").to_owned();
        let parts: Vec<_> = told.split('-').collect();
        let [version, trace, span, flags] = parts[..] else {
            panic!("{told}");
        };
        assert_eq!(("00", "01"), (version, flags), "{told}");
        assert_eq!(format!("{trace_id:032x}"), trace);
        assert!(!spans.iter().any(|known| known == span), "{told}");
        assert_eq!(Some("vendor=1"), seen.last("tracestate"));
        spans.push(span.to_owned());
    }
}

/// Goal: the bank is waited for as long as the caller waits, less what the answer takes back, and
/// never longer than is configured.
/// Method: a bank that does not answer, the paused clock, and calls with more time, less, and none.
#[tokio::test(start_paused = true)]
async fn the_bank_has_as_long_as_the_caller_waits() {
    let timeout = Duration::from_secs(4);
    for (left, expected) in [
        (Some(Duration::from_secs(10)), timeout),
        (Some(Duration::from_secs(1)), Duration::from_millis(980)),
        (None, timeout),
    ] {
        let desk = Desk::open().await;
        let config = config::Bank {
            url: format!("http://{}", desk.address),
            timeout,
            ..config::Bank::default()
        };
        let journal = Journal::new();
        let tasks = Tasks::new(journal.clone());
        let breaker = Breaker::new("bank", Live::fixed(config.breaker.clone()), journal);
        let bank = Bank::new(Live::fixed(config), tasks, breaker).unwrap();
        let amount = Money {
            minor_units: 750,
            currency_code: "EUR".to_owned(),
        };
        let call = || call(TraceContext::root(false), left);
        let begun = Instant::now();
        let charged = Scoped::new(call(), bank.charge("one", &amount)).await;
        assert!(matches!(charged, Err(Unanswered::TimedOut)), "{charged:?}");
        check_time(begun, expected);
        let begun = Instant::now();
        let refunded = Scoped::new(call(), bank.refund("one")).await;
        assert!(
            matches!(refunded, Err(Unanswered::TimedOut)),
            "{refunded:?}"
        );
        check_time(begun, expected);
    }
}

/// Goal: a connection that is kept for the next request holds up no process that ends.
/// Method: a charge, and then the end of all tasks.
#[tokio::test]
async fn a_connection_that_rests_holds_up_no_end() {
    let desk = Desk::open().await;
    desk.take(1);
    let config = config::Bank {
        url: format!("http://{}", desk.address),
        ..config::Bank::default()
    };
    let journal = Journal::new();
    let tasks = Tasks::new(journal.clone());
    let breaker = Breaker::new("bank", Live::fixed(config.breaker.clone()), journal);
    let bank = Bank::new(Live::fixed(config), tasks.clone(), breaker).unwrap();
    let amount = Money {
        minor_units: 750,
        currency_code: "EUR".to_owned(),
    };
    bank.charge("one", &amount).await.unwrap();
    assert!(tasks.running() > 0, "it is kept");
    let aborted = tasks.stop_within(Duration::from_secs(10)).await;
    assert!(aborted.is_empty(), "{aborted:?}");
}

/// Timers go off within a millisecond.
#[track_caller]
fn check_time(begun: Instant, expected: Duration) {
    let late = begun.elapsed().checked_sub(expected);
    let exact = late.is_some_and(|late| late <= Duration::from_millis(2));
    assert!(exact, "{expected:?}: {:?}", begun.elapsed());
}

/// Goal: nothing is asked of the bank for somebody who has gone; what it did is told to be unknown,
/// and found out by asking again under the same key.
/// Method: a caller with little time, of a bank that does not answer; then one with more.
#[tokio::test(flavor = "multi_thread")]
async fn no_request_outlives_its_caller() {
    let (place, desk) = (Place::file(), Desk::open().await);
    let payments = payments(&place, &desk).await;
    let hurried = Duration::from_millis(500);
    let late = charge(payments.client_without_retries(), "one".to_owned(), hurried).await;
    assert!(unanswered(&late), "{late:?}");
    let seen = desk.until(|seen| seen.given_up == 1).await;
    assert_eq!(Some("one"), seen.last("idempotency-key"));

    assert_eq!(PaymentState::Pending, known(&payments, "one").await);

    desk.take(1);
    let charged = charge(
        payments.client_without_retries(),
        "one".to_owned(),
        PATIENCE,
    )
    .await;
    assert_eq!(PaymentState::Charged, charged.unwrap());
    let seen = desk.seen();
    assert_eq!(2, seen.heads.len());
    assert_eq!(Some("one"), seen.last("idempotency-key"));
}

/// Goal: an answer of the bank that comes after the refund does not make the payment look charged.
/// Method: a charge that the bank holds back, a refund it answers at once; then the charge's yes.
#[tokio::test(flavor = "multi_thread")]
async fn a_late_yes_undoes_no_refund() {
    let (place, desk) = (Place::file(), Desk::open().await);
    let payments = payments(&place, &desk).await;
    let mut charges = JoinSet::new();
    charges.spawn(charge(
        payments.client_without_retries(),
        "one".to_owned(),
        PATIENCE,
    ));
    desk.until(|seen| seen.heads.len() == 1).await;
    desk.give_back(1);
    let payment_id = "one".to_owned();
    let mut client: Client = payments.client();
    client.refund(RefundRequest { payment_id }).await.unwrap();
    assert_eq!(PaymentState::Refunded, known(&payments, "one").await);

    desk.take(1);
    let late = charges.join_next().await.unwrap().unwrap().unwrap_err();
    assert_eq!(Code::FailedPrecondition, late.code(), "{late:?}");
    assert_eq!(PaymentState::Refunded, known(&payments, "one").await);
}
