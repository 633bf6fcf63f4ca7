//! How long another service is waited for.

use std::time::Duration;

use gantry::config::Live;
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

gantry_harness::on_both!(a_hanging_service_is_left_before_the_claim_is_over);

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
