//! Who may move an order, and what is written down with a step.

use std::collections::BTreeMap;

use gantry::{
    client::{Clients, Config},
    config::Live,
    journal::Journal,
    shutdown::Tasks,
    testing::telemetry,
};
use gantry_harness::database::Place;
use gantry_store::Timestamp;
use orders::{
    catalog::Catalog,
    changes::Changes,
    config,
    domain::{CancelReason, OrderState},
    payments::Payments,
    placing::{Others, Placing},
    store::Step as Move,
};

use crate::{Books, LIFETIME, PRICE};

gantry_harness::on_both!(
    lost_claims_move_nothing,
    tries_are_those_of_the_step_that_is_due,
    what_is_free_is_never_paid_back,
);
gantry_harness::on_both!(() a_waiting_order_is_told_of_once);

/// Goal: whoever has lost an order to another writes nothing down about it, and ends nothing of it.
/// Method: two claims on one order in each of its states; every write by the first, then a step by
/// the second, twice; then the order is cancelled under a third.
async fn lost_claims_move_nothing(place: Place) {
    let books = Books::open(place, |catalog, payments| (catalog, payments)).await;
    books.product("TEA").await;
    let (order, mut lost) = books.place("TEA").await;
    let late = Timestamp::now().after(LIFETIME);
    let way = [
        OrderState::Pending,
        OrderState::Reserved,
        OrderState::Paid,
        OrderState::Confirmed,
    ];
    for (from, to) in way.into_iter().zip(way.into_iter().skip(1)) {
        let claim = books.claim_late(&order).await.unwrap();
        let money_held = true;
        let step = Move {
            from,
            to,
            money_held,
        };
        let moved = books.store.step(&lost, step, &[], late).await;
        assert!(!moved.unwrap(), "{from:?}");
        let reason = CancelReason::TimedOut;
        let given_up = books.store.give_up(&lost, reason, late).await;
        assert!(!given_up.unwrap(), "{from:?}");
        books
            .store
            .put_off(&lost, 1, Timestamp::now())
            .await
            .unwrap();
        let free = books.store.claim(&order.id, Timestamp::now(), late).await;
        assert_eq!(None, free.unwrap(), "{from:?}: it is another's still");
        assert_eq!(from, books.now(&order).await.state);
        let moved = books.store.step(&claim, step, &[], Timestamp::now()).await;
        assert!(moved.unwrap(), "{from:?}");
        let again = books.store.step(&claim, step, &[], Timestamp::now()).await;
        assert!(!again.unwrap(), "{from:?}: it is there no more");
        lost = claim;
    }
    let reason = CancelReason::Requested;
    let claim = books
        .store
        .cancel(&order.id, reason, Timestamp::now())
        .await;
    assert_ne!(Some(&lost), claim.as_ref().unwrap().as_ref());
    books.store.settled(&lost).await.unwrap();
    assert!(
        books.claim_late(&order).await.is_some(),
        "it holds something still"
    );
}

/// Goal: tries are counted for the step that is due, across whoever takes the order up, and from
/// nothing after each step.
/// Method: put off twice, then a step; put off, then given up; put off, then cancelled.
async fn tries_are_those_of_the_step_that_is_due(place: Place) {
    let books = Books::open(place, |catalog, payments| (catalog, payments)).await;
    let late = Timestamp::now().after(LIFETIME);
    let now = Timestamp::now();
    let step = Move {
        from: OrderState::Pending,
        to: OrderState::Reserved,
        money_held: true,
    };
    for way in ["step", "give up", "cancel"] {
        let (order, mut claim) = books.place(way).await;
        for tries in 1..3 {
            books.store.put_off(&claim, tries, now).await.unwrap();
            claim = books.claim_late(&order).await.unwrap();
            assert_eq!(tries, claim.tries, "{way}");
        }
        let reason = CancelReason::Requested;
        let moved = match way {
            "step" => books.store.step(&claim, step, &[], late).await.unwrap(),
            "give up" => books.store.give_up(&claim, reason, late).await.unwrap(),
            _ => {
                let cancelled = books.store.cancel(&order.id, reason, late).await;
                assert_eq!(0, cancelled.unwrap().unwrap().tries);
                true
            }
        };
        assert!(moved, "{way}");
        let next = Timestamp::now().after(2 * LIFETIME);
        let claim = books.store.claim(&order.id, next, next).await.unwrap();
        assert_eq!(0, claim.unwrap().tries, "{way}");
    }
}

/// Goal: it is written down that money may be held where a charge may have been asked for, and
/// nowhere else: nobody asks to have nothing back.
/// Method: an order of something that has a price, and one of something that is free, confirmed and
/// then cancelled.
async fn what_is_free_is_never_paid_back(place: Place) {
    let books = Books::open(place, |catalog, payments| (catalog, payments)).await;
    books.product("TEA").await;
    books.product_for("WATER", 0).await;
    for (sku, held, taken) in [("TEA", true, PRICE), ("WATER", false, 0)] {
        books.deliver(sku, 1).await;
        let (order, claim) = books.place(sku).await;
        books.placing.advance(order.clone(), claim).await.unwrap();
        let order = books.now(&order).await;
        assert_eq!(OrderState::Confirmed, order.state, "{sku}");
        assert_eq!(held, order.money_held, "{sku}");
        assert_eq!(taken, books.taken().await, "{sku}");
        books.placing.cancel(&order).await.unwrap();
        assert_eq!(0, books.taken().await, "{sku}");
        assert_eq!(None, books.claim_late(&order).await, "{sku}: it is settled");
        assert_eq!(1, books.stock(sku).await.on_hand, "{sku}");
    }
}

/// Goal: that an order waits is told once, however often its step is tried and by whomever, and once
/// that it goes on.
/// Method: payments that are not there, tried four times under as many claims, then those that are;
/// what is logged.
async fn a_waiting_order_is_told_of_once(place: Place) {
    let capture = telemetry::capture_lines("info".parse().unwrap());
    let books = Books::open(place, |catalog, payments| (catalog, payments)).await;
    books.product("TEA").await;
    books.deliver("TEA", 1).await;
    let nobody = Config {
        fail_fast: std::time::Duration::ZERO,
        ..Config::to("127.0.0.1:1")
    };
    let journal = Journal::new();
    let clients = BTreeMap::from([("payments".to_owned(), nobody)]);
    let clients = Clients::new(clients, Tasks::new(journal.clone()), journal);
    let others = Others {
        catalog: Catalog::new(books.service.client()),
        payments: Payments::new(clients.client("payments")),
    };
    let (store, config) = (books.store.clone(), config::Orders::default());
    let away = Placing::new(store, others, Changes::default(), Live::fixed(config));
    let (order, mut claim) = books.place("TEA").await;
    for tries in 0..4 {
        assert_eq!(tries, claim.tries);
        let now = books.now(&order).await;
        away.advance(now, claim).await.unwrap();
        claim = books.claim_late(&order).await.unwrap();
    }
    let order = books.now(&order).await;
    assert_eq!(OrderState::Reserved, order.state);
    books.placing.advance(order.clone(), claim).await.unwrap();
    assert_eq!(OrderState::Confirmed, books.now(&order).await.state);
    let lines = capture.lines();
    let lines = lines.iter();
    let own = lines.filter(|line| line.get("order_id").is_some_and(|id| id == order.id));
    let said: Vec<_> = own.map(telemetry::Line::message).collect();
    let expected = [
        "payments did not answer; the order waits",
        "the order goes on",
    ];
    assert_eq!(expected, *said);
}
