//! How long another service is waited for.

use std::time::Duration;

use gantry::{breaker::Mode, config::Live};
use gantry_harness::database::Place;
use orders::{
    catalog::Catalog,
    changes::Changes,
    config,
    domain::OrderState,
    payments::Payments,
    placing::{Others, Placing},
};
use tokio::{task::JoinSet, time::Instant};

use crate::{Books, Step};

gantry_harness::on_both!(
    a_hanging_service_is_left_before_the_claim_is_over,
    an_order_waits_while_the_bank_is_left_alone,
);

/// Less than a call takes by itself before it is given up, and twice what a step may take.
const LEASE: Duration = Duration::from_secs(4);

/// Goal: while another service hangs, whoever works at an order lets go of it before the claim on it
/// is over, so nobody goes on with what another has taken up.
/// Method: payments that let a charge hang; the time until the order is put off.
async fn a_hanging_service_is_left_before_the_claim_is_over(place: Place) {
    let (mut books, mut steps) = Books::stepped(place).await;
    let config = config::Orders {
        lease: LEASE,
        ..config::Orders::default()
    };
    let others = Others {
        catalog: Catalog::new(books.service.client()),
        payments: Payments::new(books.service.client()),
    };
    let (store, config) = (books.store.clone(), Live::fixed(config));
    books.placing = Placing::new(store, others, Changes::default(), config);
    books.product("TEA").await;
    books.deliver("TEA", 1).await;
    let (order, claim) = books.place("TEA").await;
    let mut tasks = JoinSet::new();
    books.advance(&order, &claim, &mut tasks);
    steps.pass(&[Step::Reserve, Step::Reserved]).await;
    let held = steps.at(Step::Charge).await;
    let begun = Instant::now();
    tasks.join_all().await;
    assert!(begun.elapsed() < LEASE, "{:?}", begun.elapsed());
    assert_eq!(OrderState::Reserved, books.now(&order).await.state);
    drop((held, steps));
}

/// Goal: while payments leave the bank alone an order waits with its stock, as in any outage, and is
/// paid after it: nobody takes that for a refusal to pay.
/// Method: payments that may not ask the bank, tried three times; then they may.
async fn an_order_waits_while_the_bank_is_left_alone(place: Place) {
    let mut books = Books::open(place, |catalog, payments| (catalog, payments)).await;
    books.product("TEA").await;
    books.deliver("TEA", 1).await;
    let mut settings = (*books.settings.live().load()).clone();
    settings.breaker.state = Mode::ForcedOpen;
    // So long that no client waits for it within a call.
    settings.breaker.pause_max = Duration::from_mins(1);
    books.settings.publish(settings.clone());
    let (order, mut claim) = books.place("TEA").await;
    for tries in 0..3 {
        assert_eq!(tries, claim.tries);
        let now = books.now(&order).await;
        books.placing.advance(now, claim).await.unwrap();
        assert_eq!(OrderState::Reserved, books.now(&order).await.state);
        claim = books.claim_late(&order).await.unwrap();
    }
    assert_eq!(0, books.taken().await);
    settings.breaker.state = Mode::Automatic;
    books.settings.publish(settings);
    let now = books.now(&order).await;
    books.placing.advance(now, claim).await.unwrap();
    assert_eq!(OrderState::Confirmed, books.now(&order).await.state);
    assert!(books.taken().await > 0);
}
