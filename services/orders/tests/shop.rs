//! The shop as its callers see it: accounts, the catalog and two replicas of orders, over real
//! connections.

// Helpers of tests fail like tests.
#![allow(clippy::unwrap_used)]

#[path = "shop/running.rs"]
mod running;

use std::time::Duration;

use gantry_harness::database::Place;
use gantry_store::Timestamp;
use running::{Shop, Tokened as _, code, place, state};
use shop_proto::{
    accounts::v1::{LoginRequest, RegisterRequest},
    catalog::v1::UpdateStockRequest,
    orders::v1::{
        CancelOrderRequest, CancelReason, GetOrderRequest, ListOrdersRequest, NewOrderLine,
        OrderState, PlaceOrderRequest, WatchOrderRequest,
    },
};
use tokio::time;
use tokio_stream::StreamExt as _;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;

gantry_harness::on_both! {
    an_order_lives_across_replicas, a_request_id_stands_for_one_order,
    impossible_orders_are_cancelled_with_the_reason, only_the_account_sees_its_orders,
    invalid_requests_are_told_everything, lines_of_one_product_are_bounded_together,
    pages_of_orders_join, orders_complete_after_their_window, orders_wait_for_the_catalog,
    nothing_is_held_for_ever, watches_are_bounded, a_drain_ends_watches,
    a_drain_ends_changes_of_stock, logins_tell_nothing
}

/// Goal: an order placed at one replica is read, listed and watched at the other, and its whole
/// life is seen: confirmed, then cancelled, with the stock back.
/// Method: place at the first, watch at the second, cancel at the first; compare stock throughout.
async fn an_order_lives_across_replicas(at: Place) {
    let shop = Shop::open(at, "").await;
    let ada = shop.person("ada@example.org").await;
    assert_eq!(10, shop.available("TEA").await);

    let order = shop
        .place(0, &ada, "r-1", &[("TEA", 2), ("TEA", 1)])
        .await
        .unwrap();
    assert_eq!(OrderState::Confirmed, state(&order));
    assert_eq!(1_497, order.total.as_ref().unwrap().minor_units);
    assert_eq!(7, shop.available("TEA").await);

    let id = order.order_id.clone();
    let get = GetOrderRequest {
        order_id: id.clone(),
    };
    let read = shop.orders(1).get_order(get.by(&ada)).await.unwrap();
    assert_eq!(Some(&order), read.into_inner().order.as_ref());
    let list = ListOrdersRequest::default();
    let listed = shop.orders(1).list_orders(list.by(&ada)).await.unwrap();
    assert_eq!(vec![order], listed.into_inner().orders);

    let watch = WatchOrderRequest {
        order_id: id.clone(),
    };
    let watch = shop.orders(1).watch_order(watch.by(&ada)).await.unwrap();
    let mut watch = watch.into_inner();
    let first = watch.message().await.unwrap().unwrap().order.unwrap();
    assert_eq!(OrderState::Confirmed, state(&first));

    for _ in 0..2 {
        let cancel = CancelOrderRequest {
            order_id: id.clone(),
        };
        let cancelled = shop.orders(0).cancel_order(cancel.by(&ada)).await.unwrap();
        let cancelled = cancelled.into_inner().order.unwrap();
        assert_eq!(OrderState::Cancelled, state(&cancelled));
        assert_eq!(CancelReason::Requested, cancelled.cancel_reason());
        assert_eq!(10, shop.available("TEA").await);
    }
    let ended = watch.message().await.unwrap().unwrap().order.unwrap();
    assert_eq!(OrderState::Cancelled, state(&ended));
    assert_eq!(
        None,
        watch.message().await.unwrap(),
        "a final state ends the watch"
    );
}

/// Goal: an order is placed once however often and wherever it is asked for.
/// Method: sixteen calls with one `request_id` at both replicas at once; then other lines.
async fn a_request_id_stands_for_one_order(at: Place) {
    let shop = Shop::open(at, "").await;
    let ada = shop.person("ada@example.org").await;
    let mut calls = tokio::task::JoinSet::new();
    for call in 0..16 {
        let (mut orders, request) = (shop.orders(call % 2), place("r-1", &[("TEA", 2)]).by(&ada));
        calls.spawn(async move { orders.place_order(request).await });
    }
    let mut ids = std::collections::HashSet::new();
    for placed in calls.join_all().await {
        ids.insert(placed.unwrap().into_inner().order.unwrap().order_id);
    }
    assert_eq!(1, ids.len());
    assert_eq!(8, shop.available("TEA").await);

    let other = shop.place(0, &ada, "r-1", &[("TEA", 3)]).await;
    assert_eq!(Code::AlreadyExists, code(other));
    // Another person's request_id is another one.
    let eve = shop.person("eve@example.org").await;
    let hers = shop.place(0, &eve, "r-1", &[("TEA", 3)]).await.unwrap();
    assert!(!ids.contains(&hers.order_id));
}

/// Goal: what cannot be had is told, holds nothing, and ends the watch at once.
/// Method: too much, no such product, two currencies.
async fn impossible_orders_are_cancelled_with_the_reason(at: Place) {
    let shop = Shop::open(at, "").await;
    let ada = shop.person("ada@example.org").await;
    let cases: [(&[(&str, i32)], CancelReason); 3] = [
        (&[("TEA", 11)], CancelReason::OutOfStock),
        (&[("TEA", 1), ("NONE", 1)], CancelReason::OutOfStock),
        (&[("TEA", 1), ("COFFEE", 1)], CancelReason::MixedCurrencies),
    ];
    for (at, (lines, reason)) in cases.into_iter().enumerate() {
        let order = shop
            .place(0, &ada, &format!("r-{at}"), lines)
            .await
            .unwrap();
        assert_eq!(OrderState::Cancelled, state(&order), "{lines:?}");
        assert_eq!(reason, order.cancel_reason(), "{lines:?}");
        assert_eq!(10, shop.available("TEA").await, "{lines:?}");
        let watch = WatchOrderRequest {
            order_id: order.order_id,
        };
        let watch = shop.orders(1).watch_order(watch.by(&ada)).await.unwrap();
        let mut watch = watch.into_inner();
        assert!(watch.message().await.unwrap().is_some());
        assert!(watch.message().await.unwrap().is_none());
    }
}

/// Goal: orders are their account's business alone, and without a token nobody's.
/// Method: another person tries every rpc; then no token, a broken one, one from elsewhere.
async fn only_the_account_sees_its_orders(at: Place) {
    let shop = Shop::open(at, "").await;
    let (ada, eve) = (
        shop.person("ada@example.org").await,
        shop.person("eve@example.org").await,
    );
    let order = shop.place(0, &ada, "r-1", &[("TEA", 1)]).await.unwrap();
    let order_id = order.order_id;
    let mut orders = shop.orders(1);
    for (token, expected) in [
        (Some(&eve), Code::NotFound),
        (None, Code::Unauthenticated),
        (Some(&"a.b.c".to_owned()), Code::Unauthenticated),
        (Some(&format!("{ada}x")), Code::Unauthenticated),
    ] {
        let order_id = order_id.clone();
        let get = GetOrderRequest {
            order_id: order_id.clone(),
        };
        let get = orders.get_order(get.perhaps(token)).await;
        assert_eq!(expected, code(get), "{token:?}");
        let cancel = CancelOrderRequest {
            order_id: order_id.clone(),
        };
        let cancel = orders.cancel_order(cancel.perhaps(token)).await;
        assert_eq!(expected, code(cancel), "{token:?}");
        let watch = WatchOrderRequest { order_id };
        let watch = orders.watch_order(watch.perhaps(token)).await;
        assert_eq!(expected, code(watch), "{token:?}");
    }
    let list = ListOrdersRequest::default();
    let listed = orders.list_orders(list.by(&eve)).await.unwrap();
    assert!(listed.into_inner().orders.is_empty());
    let listed = orders
        .list_orders(Request::new(ListOrdersRequest::default()))
        .await;
    assert_eq!(Code::Unauthenticated, code(listed));
    assert_eq!(9, shop.available("TEA").await);
}

/// Goal: an invalid request is told every rule it breaks, before anything happens.
/// Method: an order whose every field is wrong, and a token that is none of a list's.
async fn invalid_requests_are_told_everything(at: Place) {
    let shop = Shop::open(at, "").await;
    let ada = shop.person("ada@example.org").await;
    let bad = PlaceOrderRequest {
        request_id: "not a word".to_owned(),
        lines: vec![
            NewOrderLine {
                sku: "tea".to_owned(),
                quantity: 1,
            },
            NewOrderLine {
                sku: "TEA".to_owned(),
                quantity: 0,
            },
        ],
    };
    let error = shop.orders(0).place_order(bad.by(&ada)).await.unwrap_err();
    assert_eq!(Code::InvalidArgument, error.code());
    let details = error.get_details_bad_request().unwrap();
    let mut fields: Vec<&str> = details
        .field_violations
        .iter()
        .map(|it| &*it.field)
        .collect();
    fields.sort_unstable();
    assert_eq!(
        vec!["lines[0].sku", "lines[1].quantity", "request_id"],
        fields
    );

    let list = ListOrdersRequest {
        page_token: "made-up".to_owned(),
        ..ListOrdersRequest::default()
    };
    let error = shop.orders(0).list_orders(list.by(&ada)).await.unwrap_err();
    assert_eq!(Code::InvalidArgument, error.code());
    let details = error.get_details_bad_request().unwrap();
    assert_eq!("page_token", details.field_violations[0].field);
}

/// Goal: more of one product than can be held is refused however it is cut, and by the line that
/// goes beyond; as much as can be held is not.
/// Method: a thousand and one in two lines, nothing of which is then listed; then a thousand.
async fn lines_of_one_product_are_bounded_together(at: Place) {
    let shop = Shop::open(at, "").await;
    let ada = shop.person("ada@example.org").await;
    let lines = [("TEA", 1_000), ("COFFEE", 1), ("TEA", 1)];
    let error = shop.place(0, &ada, "r-1", &lines).await.unwrap_err();
    assert_eq!(Code::InvalidArgument, error.code());
    let details = error.get_details_bad_request().unwrap();
    assert_eq!("lines[2].quantity", details.field_violations[0].field);
    let list = ListOrdersRequest::default();
    let listed = shop.orders(0).list_orders(list.by(&ada)).await.unwrap();
    assert!(listed.into_inner().orders.is_empty());

    let lines = [("TEA", 999), ("TEA", 1)];
    let order = shop.place(0, &ada, "r-2", &lines).await.unwrap();
    assert_eq!(CancelReason::OutOfStock, order.cancel_reason());
}

/// Goal: pages of orders join, the newest first.
/// Method: five orders over both replicas, walked by twos.
async fn pages_of_orders_join(at: Place) {
    let shop = Shop::open(at, "").await;
    let ada = shop.person("ada@example.org").await;
    for at in 0..5 {
        let order = shop
            .place(at % 2, &ada, &format!("r-{at}"), &[("TEA", 1)])
            .await;
        assert_eq!(1, order.unwrap().lines.len());
    }
    let (mut seen, mut page_token) = (Vec::new(), String::new());
    loop {
        let list = ListOrdersRequest {
            page_size: 2,
            page_token,
        };
        let page = shop.orders(0).list_orders(list.by(&ada)).await.unwrap();
        let page = page.into_inner();
        assert!(page.orders.iter().all(|order| order.lines[0].sku == "TEA"));
        seen.extend(page.orders.into_iter().map(|order| order.request_id));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(vec!["r-4", "r-3", "r-2", "r-1", "r-0"], seen);
}

/// Goal: after its window an order is completed, which ends its watch, and is then too late to
/// cancel.
/// Method: a window of a moment.
async fn orders_complete_after_their_window(at: Place) {
    let shop = Shop::open(at, "cancel_window = '200ms'\nsweep_interval = '20ms'").await;
    let ada = shop.person("ada@example.org").await;
    let order = shop.place(0, &ada, "r-1", &[("TEA", 1)]).await.unwrap();
    let watch = WatchOrderRequest {
        order_id: order.order_id.clone(),
    };
    let watch = shop.orders(1).watch_order(watch.by(&ada)).await.unwrap();
    let mut watch = watch.into_inner();
    let mut states = Vec::new();
    while let Some(message) = watch.message().await.unwrap() {
        states.push(state(&message.order.unwrap()));
    }
    assert_eq!(Some(&OrderState::Completed), states.last());
    assert!(states.len() <= 2, "{states:?}");
    let cancel = CancelOrderRequest {
        order_id: order.order_id,
    };
    let cancel = shop.orders(0).cancel_order(cancel.by(&ada)).await;
    assert_eq!(Code::FailedPrecondition, code(cancel));
    assert_eq!(9, shop.available("TEA").await);
}

/// Goal: an order that is placed while the catalog is away waits, and is finished once it is back; a
/// watcher at another replica sees every step.
/// Method: stop the catalog, place, start it again where it was; watch.
async fn orders_wait_for_the_catalog(at: Place) {
    let mut shop = Shop::open(at, "retry_pause = '50ms'\nsweep_interval = '50ms'").await;
    let ada = shop.person("ada@example.org").await;
    shop.stop_catalog().await;
    let order = shop.place(0, &ada, "r-1", &[("TEA", 4)]).await.unwrap();
    assert_eq!(OrderState::Pending, state(&order));
    assert_eq!(None, order.total);
    let watch = WatchOrderRequest {
        order_id: order.order_id,
    };
    let watch = shop.orders(1).watch_order(watch.by(&ada)).await.unwrap();
    let mut watch = watch.into_inner();
    assert!(watch.message().await.unwrap().is_some());
    shop.start_catalog().await;
    for step in [
        OrderState::Reserved,
        OrderState::Paid,
        OrderState::Confirmed,
    ] {
        let next = time::timeout(Duration::from_secs(30), watch.message()).await;
        let next = next.unwrap().unwrap().unwrap().order.unwrap();
        assert_eq!(step, state(&next), "no step is left out");
        assert_eq!(1_996, next.total.unwrap().minor_units);
    }
    assert_eq!(6, shop.available("TEA").await);
}

/// Goal: an order that cannot be confirmed in time is given up, and one that was cancelled while
/// the catalog was away gives its stock back once it can.
/// Method: confirm one, stop the catalog, cancel it, place another; wait for that to time out,
/// start the catalog and wait for the stock.
async fn nothing_is_held_for_ever(at: Place) {
    let settings = "retry_pause = '50ms'\nsweep_interval = '50ms'\npending_max = '300ms'";
    let mut shop = Shop::open(at, settings).await;
    let ada = shop.person("ada@example.org").await;
    let confirmed = shop.place(0, &ada, "r-1", &[("TEA", 4)]).await.unwrap();
    assert_eq!(6, shop.available("TEA").await);
    shop.stop_catalog().await;
    let cancel = CancelOrderRequest {
        order_id: confirmed.order_id,
    };
    let cancelled = shop.orders(0).cancel_order(cancel.by(&ada)).await.unwrap();
    let cancelled = cancelled.into_inner().order.unwrap();
    assert_eq!(OrderState::Cancelled, state(&cancelled));

    let pending = shop.place(1, &ada, "r-2", &[("TEA", 1)]).await.unwrap();
    let watch = WatchOrderRequest {
        order_id: pending.order_id.clone(),
    };
    let watch = shop.orders(0).watch_order(watch.by(&ada)).await.unwrap();
    let mut watch = watch.into_inner();
    let mut last = pending;
    while let Some(message) = watch.message().await.unwrap() {
        last = message.order.unwrap();
    }
    assert_eq!(CancelReason::TimedOut, last.cancel_reason());

    shop.start_catalog().await;
    let returned = async {
        while shop.available("TEA").await < 10 {
            tokio::task::yield_now().await;
        }
    };
    time::timeout(Duration::from_secs(30), returned)
        .await
        .unwrap();
    // Written down as well, or every sweep would return it again.
    let store = shop.orders_store().await;
    let settled = async {
        let late = Timestamp::now().after(Duration::from_hours(1));
        while !store.unsettled(late).await.unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    time::timeout(Duration::from_secs(30), settled)
        .await
        .unwrap();
}

/// Goal: watches are bounded, and one that ends makes room.
/// Method: one watch where one may be, another, then that one again once the first has gone.
async fn watches_are_bounded(at: Place) {
    let shop = Shop::open(at, "watchers_max = 1").await;
    let ada = shop.person("ada@example.org").await;
    let order = shop.place(0, &ada, "r-1", &[("TEA", 1)]).await.unwrap();
    let watch = async || {
        let order_id = order.order_id.clone();
        let watch = WatchOrderRequest { order_id };
        shop.orders(0).watch_order(watch.by(&ada)).await
    };
    let first = watch().await.unwrap();
    assert_eq!(Code::ResourceExhausted, code(watch().await));
    drop(first);
    let again = async { while watch().await.is_err() {} };
    time::timeout(Duration::from_secs(30), again).await.unwrap();
}

/// Goal: a drain ends an open watch with a code that sends its watcher elsewhere, in time.
/// Method: watch at the second replica, stop it, read on.
async fn a_drain_ends_watches(at: Place) {
    let mut shop = Shop::open(at, "").await;
    let ada = shop.person("ada@example.org").await;
    let order = shop.place(0, &ada, "r-1", &[("TEA", 1)]).await.unwrap();
    let watch = WatchOrderRequest {
        order_id: order.order_id,
    };
    let watch = shop.orders(1).watch_order(watch.by(&ada)).await.unwrap();
    let mut watch = watch.into_inner();
    assert!(watch.message().await.unwrap().is_some());
    let ((), ended) = tokio::join!(
        async {
            let stopped = shop.stop_orders(1);
            time::timeout(Duration::from_secs(10), stopped)
                .await
                .unwrap();
        },
        watch.message(),
    );
    sent_elsewhere(&ended.unwrap_err());
}

/// Asserts that whoever got `status` goes on at another replica, at once.
fn sent_elsewhere(status: &Status) {
    assert_eq!(Code::Unavailable, status.code());
    let pushback = status.metadata().get("grpc-retry-pushback-ms");
    assert_eq!("0", pushback.expect("when to go elsewhere"));
}

/// Goal: as with watches, for changes of stock.
/// Method: read one level over a stream that stays open, stop the catalog, read on.
async fn a_drain_ends_changes_of_stock(at: Place) {
    let mut shop = Shop::open(at, "").await;
    let read = UpdateStockRequest {
        sku: "TEA".to_owned(),
        delta: 0,
    };
    let staff = shop.person_with("staff@example.org", &["staff"]).await;
    let changes = tokio_stream::iter([read]).chain(tokio_stream::pending());
    let changes = changes.by(&staff);
    let levels = shop.catalog().update_stock(changes).await.unwrap();
    let mut levels = levels.into_inner();
    assert!(levels.message().await.unwrap().is_some());
    let stopped = time::timeout(Duration::from_secs(10), shop.stop_catalog());
    let (stopped, ended) = tokio::join!(stopped, levels.message());
    stopped.unwrap();
    sent_elsewhere(&ended.unwrap_err());
}

/// Goal: who logs in wrongly does not learn whether the account exists.
/// Method: a wrong password, no account, no address; compare the answers. Then one registered
/// twice, in other letters.
async fn logins_tell_nothing(at: Place) {
    let shop = Shop::open(at, "").await;
    shop.person("ada@example.org").await;
    let mut answers = Vec::new();
    for (email, password) in [
        ("ada@example.org", "wrong password"),
        ("eve@example.org", "wrong password"),
        ("no address", "wrong password"),
    ] {
        let login = LoginRequest {
            email: email.to_owned(),
            password: password.to_owned(),
        };
        let error = shop.accounts().login(login).await.unwrap_err();
        answers.push((error.code(), error.message().to_owned()));
    }
    assert_eq!(Code::Unauthenticated, answers[0].0);
    assert!(
        answers.iter().all(|answer| *answer == answers[0]),
        "{answers:?}"
    );

    let again = RegisterRequest {
        email: "Ada@Example.org".to_owned(),
        password: "another password".to_owned(),
        display_name: String::new(),
    };
    assert_eq!(
        Code::AlreadyExists,
        code(shop.accounts().register(again).await)
    );
    let bad = RegisterRequest {
        email: "no address".to_owned(),
        password: "short".to_owned(),
        display_name: "n".repeat(101),
    };
    let error = shop.accounts().register(bad).await.unwrap_err();
    let details = error.get_details_bad_request().unwrap();
    assert_eq!(3, details.field_violations.len());
}
