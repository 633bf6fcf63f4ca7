//! Bad days of the bank: away, slow, and answering when nobody listens any more.

use std::time::Duration;

use gantry_harness::{
    database::Place,
    tools,
    wait::{self, SOON},
};
use serde_json::json;
use shop_audit::{Books, Order, State};
use tokio::time::{self, Instant};
use tonic::{Code, Status};

use crate::{shop::Customer, stand::Stand};

/// Orders of one bad day.
const ORDERS: usize = 6;

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
        assert!(took < PATIENCE + MARGIN, "{took:?}: {outcome:?}");
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
