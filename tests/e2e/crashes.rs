//! What is left of an order when a process ends in the middle of it, at every point there is.

use gantry_harness::{database::Place, tools};
use serde_json::json;
use shop_audit::State;
use tokio::task::{JoinSet, LocalSet};

use crate::{shop::Customer, stand::Stand};

/// Where an order that goes well passes by; see the services for what is before and after.
const ORDERED: [&str; 18] = [
    "orders.row.before",
    "orders.row.after",
    "orders.reserve.before",
    "orders.reserve.after",
    "orders.charge-sent.before",
    "orders.charge-sent.after",
    "orders.charge-answered.before",
    "orders.charge-answered.after",
    "orders.confirm.before",
    "orders.confirm.after",
    "payments.row.before",
    "payments.row.after",
    "payments.charge-sent.before",
    "payments.charge-sent.after",
    "payments.charge-answered.before",
    "payments.charge-answered.after",
    // Again, with a bank that has not yet begun with it.
    "orders.charge-sent.after",
    "payments.charge-sent.after",
];

/// Where one that is cancelled passes by.
const CANCELLED: [&str; 9] = [
    "orders.refund.before",
    "orders.refund.after",
    "orders.release.before",
    "orders.release.after",
    "payments.refund.before",
    "payments.refund-sent.before",
    "payments.refund-sent.after",
    "payments.refund-answered.before",
    "payments.refund.after",
];

/// Goal: wherever orders or payments crash, before or after each step of an order and in the midst
/// of those at the bank, the order is confirmed or cancelled soon after the restart, the money and
/// the stock are where it says, and nothing was charged twice.
/// Method: one point after the other: an order, cancelled where the point lies there, ends the
/// process; it is started again at once. The books at the end, when every order has had its time.
#[tokio::test(flavor = "multi_thread")]
async fn no_crash_costs_anybody_anything() {
    LocalSet::new().run_until(every_crash(Place::file())).await;
}

/// Goal: the same where the books are in PostgreSQL.
/// Method: a schema for each service.
#[tokio::test(flavor = "multi_thread")]
async fn no_crash_costs_anybody_anything_on_postgres() {
    if !tools::timed() {
        return;
    }
    if let Some(place) = Place::server().await {
        LocalSet::new().run_until(every_crash(place)).await;
    }
}

async fn every_crash(place: Place) {
    let mut stand = Stand::open(place).await;
    let customer = Customer::of(stand.doors()).await;
    let mut shoppers = JoinSet::new();
    let points = ORDERED.into_iter().chain(CANCELLED).enumerate();
    for (number, point) in points {
        let again = ORDERED[..number.min(ORDERED.len())].contains(&point);
        // Half before its work: a crash in the midst comes after that, or before.
        let latency = if again { 1_000 } else { 400 };
        customer.bank(json!({ "latency_ms": latency })).await;
        let shopper = customer.clone();
        if CANCELLED.contains(&point) {
            let order = customer.order(number).await;
            stand.arm(point);
            shoppers.spawn_local(async move { shopper.regret(&order).await });
        } else {
            stand.arm(point);
            shoppers.spawn_local(async move { drop(shopper.order(number).await) });
        }
        stand.crashed(point).await;
    }
    shoppers.join_all().await;
    let placed = ORDERED.len() + CANCELLED.len();
    let books = customer.settled(placed, "after all crashes").await;
    let states = books.orders.values().map(|order| order.state);
    let confirmed = states.filter(|state| *state == State::Confirmed).count();
    eprintln!("{confirmed} of {placed} orders confirmed");
    assert_eq!(ORDERED.len(), confirmed, "{:#?}", books.orders);
}
