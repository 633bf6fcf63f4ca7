//! What people are told of their orders.

use gantry_harness::{
    process::pid,
    wait::{self, SOON},
};
use rustix::process::Signal;
use shop_proto::notifications::v1::NotificationKind;

use crate::money::Shop;

/// Goal: an account is told once that its order is confirmed, and once that it is cancelled, also
/// where nobody could be told at the time; no order waits for that.
/// Method: an order, and one that is cancelled; the service of notifications is killed before a
/// third, which is confirmed all the same.
#[tokio::test(flavor = "multi_thread")]
async fn people_are_told_what_became_of_their_orders() {
    let shop = Shop::open(&[]).await;
    let told = async |count: usize| {
        wait::until("news of orders", 2 * SOON, async || {
            let news = shop.customer.news().await.ok()?;
            (news.len() >= count).then_some(news)
        })
        .await
    };
    let one = shop.customer.order(0).await;
    let other = shop.customer.order(1).await;
    shop.customer.regret(&other).await;
    told(3).await;

    let rows = shop.system.instances();
    let service = rows.iter().find(|it| it.name == "notifications");
    let id = service.and_then(|it| it.pid).expect("it runs");
    rustix::process::kill_process(pid(id), Signal::KILL).expect("kill a child");
    let third = shop.customer.order(2).await;
    shop.customer.settled(3, "meanwhile").await;
    let mut news = told(4).await;
    news.sort_unstable();
    let confirmed = NotificationKind::OrderConfirmed as i32;
    let cancelled = NotificationKind::OrderCancelled as i32;
    let mut expected = vec![
        (one, confirmed),
        (other.clone(), confirmed),
        (other, cancelled),
        (third, confirmed),
    ];
    expected.sort_unstable();
    assert_eq!(expected, news);
}
