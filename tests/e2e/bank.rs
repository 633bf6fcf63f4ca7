//! Bad days of the bank: away, slow, and answering when nobody listens any more.

use std::time::Duration;

use gantry_harness::{
    database::Place,
    tools,
    wait::{self, SOON},
};
use serde_json::json;
use shop_audit::{Books, Order, State};
use shop_proto::{
    money::v1::Money,
    payments::v1::{ChargeRequest, payments_service_client::PaymentsServiceClient},
};
use tokio::{
    task::JoinSet,
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Status, transport};

use crate::{
    shop::Customer,
    stand::Stand,
    support::{ended, plain},
};

const CHARGE: &str = "shop.payments.v1.PaymentsService/Charge";

/// Orders of one bad day.
const ORDERS: usize = 6;

/// Callers at once of those that press.
const CALLERS: usize = 16;

/// How long whoever orders waits for an answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a busy machine may add.
const MARGIN: Duration = Duration::from_secs(1);

/// Orders on a bad day, all at once; each is answered in time, whatever that is.
async fn ordered(customer: &Customer) {
    let order = |number| async move {
        let begun = Instant::now();
        let outcome = customer.order_within(number, PATIENCE).await;
        let took = begun.elapsed();
        assert!(took < PATIENCE + within(MARGIN), "{took:?}: {outcome:?}");
        let late = |status: &Status| status.code() == Code::DeadlineExceeded;
        assert!(outcome.as_ref().err().is_none_or(late), "{outcome:?}");
    };
    tokio::join!(order(0), order(1), order(2), order(3), order(4), order(5));
}

/// Whether all orders were paid once in the end.
fn all_confirmed(books: &Books) -> bool {
    let mut orders = books.orders.values();
    orders.all(|order| order.state == State::Confirmed)
}

/// What payments say of themselves: the head of the answer, and all of it.
async fn readiness(stand: &Stand) -> (String, String) {
    let answer = stand.payments.get("/readyz").await.expect("an answer");
    let head = answer.lines().next().unwrap_or_default().to_owned();
    (head, answer)
}

/// Whether payments ask the bank of all requests, or leave it alone.
async fn bank_is_asked(stand: &Stand, asked: bool) {
    let value = i32::from(asked);
    let line = format!("gantry_breaker_state{{breaker=\"bank\",state=\"closed\"}} {value}\n");
    wait::until(
        "payments to leave the bank alone, or no more",
        SOON,
        async || {
            let metrics = stand.payments.get("/metrics").await?;
            metrics.contains(&line).then_some(())
        },
    )
    .await;
}

/// Goal: while the bank is away it is left alone, orders wait, nobody waits for them, and they are
/// paid once it is back.
/// Method: an outage of seconds, of a minute on a quiet machine; orders in it, and the books after.
#[tokio::test(flavor = "multi_thread")]
async fn an_outage_is_waited_out() {
    let outage = Duration::from_secs(if tools::timed() { 60 } else { 3 });
    let stand = Stand::open(Place::file()).await;
    let customer = Customer::of(stand.doors()).await;
    customer.bank(json!({ "outage": true })).await;
    let over = Instant::now() + outage;
    ordered(&customer).await;
    let books = customer.books().await.expect("books");
    let states: Vec<_> = books.orders.values().map(|order| order.state).collect();
    assert_eq!(vec![State::Reserved; ORDERS], states);
    assert!(books.charges.is_empty(), "{:?}", books.charges);
    bank_is_asked(&stand, false).await;
    time::sleep_until(over).await;
    customer.bank(json!({})).await;
    let books = customer.settled(ORDERS, "after an outage").await;
    assert!(all_confirmed(&books), "{books:#?}");
    bank_is_asked(&stand, true).await;
}

/// Goal: a bank that takes three seconds is waited for by the order and not by its customer, and
/// payments say that it is slow, and stay ready.
/// Method: customers with two seconds each; the health of payments meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_bank_is_paid_all_the_same() {
    let stand = Stand::open(Place::file()).await;
    let customer = Customer::of(stand.doors()).await;
    customer.bank(json!({ "latency_ms": 3_000 })).await;
    ordered(&customer).await;
    wait::until("the bank to be told as slow", SOON, async || {
        let (head, answer) = readiness(&stand).await;
        assert!(head.contains(" 200 "), "{answer}");
        let (_, bank) = answer.split_once("\"name\":\"bank\"")?;
        bank.split('}').next()?.contains("FAILING").then_some(())
    })
    .await;
    let books = customer.settled(ORDERS, "with a slow bank").await;
    assert!(all_confirmed(&books), "{books:#?}");
}

/// Goal: money that was taken while nobody listened any more is not taken again.
/// Method: a bank that answers after every deadline, until it has taken the money; then a quick one.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_comes_too_late_is_asked_for_again() {
    let stand = Stand::open(Place::file()).await;
    let customer = Customer::of(stand.doors()).await;
    customer.bank(json!({ "latency_ms": 7_000 })).await;
    ordered(&customer).await;
    let taken = wait::until("the money to be taken", SOON, async || {
        let books = customer.books().await?;
        (books.charges.len() == ORDERS).then_some(books)
    })
    .await;
    let unpaid = |order: &Order| order.state == State::Reserved;
    assert!(taken.orders.values().all(unpaid), "{taken:#?}");
    customer.bank(json!({})).await;
    let books = customer.settled(ORDERS, "after late answers").await;
    assert!(all_confirmed(&books), "{books:#?}");
    assert_eq!(ORDERS, books.charges.len());
}

/// Asks for payments over and over, so many callers at once, each with `PATIENCE`. Each is answered
/// in time.
struct Pressing {
    stop: CancellationToken,
    callers: JoinSet<u64>,
}

impl Pressing {
    async fn on(stand: &Stand) -> Self {
        let client = PaymentsServiceClient::new(plain(stand.payments.address).await);
        let stop = CancellationToken::new();
        let mut callers = JoinSet::new();
        for caller in 0..CALLERS {
            let (client, stop) = (client.clone(), stop.clone());
            callers.spawn(async move {
                let mut paid = 0;
                for number in 0.. {
                    if stop.is_cancelled() {
                        break;
                    }
                    let id = format!("pressing-{caller}-{number}");
                    let (outcome, took) = charged(&client, &id, PATIENCE).await;
                    assert!(took < PATIENCE + within(MARGIN), "{took:?}: {outcome:?}");
                    match outcome {
                        Ok(()) => paid += 1,
                        // On a machine that is busy it may take all its time to say so.
                        Err(status) => assert!(
                            [Code::Unavailable, Code::DeadlineExceeded].contains(&status.code()),
                            "{status:?}"
                        ),
                    }
                    time::sleep(Duration::from_millis(20)).await;
                }
                paid
            });
        }
        Self { stop, callers }
    }

    /// Payments that were made.
    async fn end(self) -> u64 {
        self.stop.cancel();
        self.callers.join_all().await.into_iter().sum()
    }
}

/// A payment, and how long it took.
async fn charged(
    client: &PaymentsServiceClient<transport::Channel>,
    id: &str,
    patience: Duration,
) -> (Result<(), Status>, Duration) {
    let amount = Money {
        minor_units: 100,
        currency_code: "EUR".to_owned(),
    };
    let mut request = Request::new(ChargeRequest {
        payment_id: id.to_owned(),
        amount: Some(amount),
    });
    request.set_timeout(patience);
    let begun = Instant::now();
    let outcome = client.clone().charge(request).await;
    (outcome.map(drop), begun.elapsed())
}

/// Goal: of all that would be paid while the bank is away, one payment at a time asks whether it is
/// back; and once it is, all are paid again.
/// Method: many callers of payments; an outage whose answers take their time, and what comes to the
/// bank in it.
#[tokio::test(flavor = "multi_thread")]
async fn one_at_a_time_asks_whether_it_is_back() {
    let outage = Duration::from_secs(if tools::timed() { 60 } else { 4 });
    let stand = Stand::open(Place::file()).await;
    let customer = Customer::of(stand.doors()).await;
    let slow = json!({ "outage": true, "latency_ms": 600 });
    customer.bank(slow).await;
    let pressing = Pressing::on(&stand).await;
    bank_is_asked(&stand, false).await;
    wait::until("those before it to be over", SOON, async || {
        (stand.turnstile.within() == 0).then_some(())
    })
    .await;
    let (most, before) = (stand.turnstile.most(), stand.turnstile.passed());
    assert!(most > 1, "{most} at once is no press");
    time::sleep(outage).await;
    let (most, asked) = (stand.turnstile.most(), stand.turnstile.passed() - before);
    assert_eq!(1, most, "at once, of {asked}");
    // Every three seconds at least, a fifth more or less.
    let seconds = usize::try_from(outage.as_secs()).expect("few");
    assert!((1..=seconds).contains(&asked), "{asked} in {outage:?}");
    customer.bank(json!({})).await;
    bank_is_asked(&stand, true).await;
    let before = stand.turnstile.passed();
    wait::until("payments to be made again", SOON, async || {
        (stand.turnstile.passed() > before + CALLERS).then_some(())
    })
    .await;
    assert!(pressing.end().await > 0);
}

/// How much later than its deadline a call may end: so much where times count. A machine that is busy
/// with other tests may keep anybody waiting.
fn within(timed: Duration) -> Duration {
    if tools::timed() { timed } else { SOON }
}

/// Goal: a call ends at its deadline however long the bank takes, with its handler; one that has the
/// time is paid.
/// Method: a bank that takes two seconds; payments with less time, and one with more.
#[tokio::test(flavor = "multi_thread")]
async fn no_call_outlives_its_deadline() {
    let margin = within(Duration::from_millis(50));
    let stand = Stand::open(Place::file()).await;
    let customer = Customer::of(stand.doors()).await;
    customer.bank(json!({ "latency_ms": 2_000 })).await;
    let client = PaymentsServiceClient::new(plain(stand.payments.address).await);
    let mut calls = JoinSet::new();
    for millis in [100, 500, 1_000, 1_500, 1_900, 3_900] {
        let client = client.clone();
        calls.spawn(async move {
            let patience = Duration::from_millis(millis);
            let id = format!("within-{millis}");
            let (outcome, took) = charged(&client, &id, patience).await;
            assert!(
                took < patience + margin,
                "{took:?} of {patience:?}: {outcome:?}"
            );
            let paid = outcome.is_ok();
            assert_eq!(millis > 2_000, paid, "{millis} ms: {outcome:?}");
        });
    }
    let count = calls.len() as u64;
    calls.join_all().await;
    wait::until("all handlers to have ended", margin, async || {
        let ended = ended(&stand.payments, CHARGE).await;
        (ended.values().sum::<u64>() == count).then_some(())
    })
    .await;
}
