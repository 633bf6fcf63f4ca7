//! The broker is away while people order.

use std::time::Duration;

use gantry_events::broker::Config;
use gantry_harness::{
    broker::Broker,
    load::{Load, Report},
    rabbitmq, tools,
    wait::{self, SOON},
};
use tokio::time::Instant;

use super::{
    audit::Audit,
    desk::{all_consume, counted},
    poison::url_of,
};
use crate::{
    money::Shop,
    shop::SKU,
    support::{move_stock, say},
};

/// Events of an order that is placed, paid and confirmed.
const EVENTS: u64 = 3;

/// How much faster than they come events are drained at least.
const FASTER: u64 = 5;

/// Orders a second: few where the machine may be busy with other tests.
fn rate() -> u64 {
    if tools::timed() { 20 } else { 5 }
}

/// How long people order before, while and after the broker is away, in seconds.
fn seconds() -> [u64; 3] {
    if tools::timed() {
        [60, 300, 60]
    } else {
        [5, 10, 10]
    }
}

/// Goal: while the broker is away every order is answered as before; what is told waits, can be seen to,
/// and is told in its order once the broker is back, several times faster than it came.
/// Method: orders at a steady rate, the local broker killed in their midst and started again; answers and
/// times of each part, the backlog, and a group of our own that has a copy of every event.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_who_orders_notices_a_broker_that_is_away() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    outage(Broker::local(folder.path())).await;
}

/// Goal: the same with RabbitMQ.
/// Method: the same.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_who_orders_notices_a_rabbitmq_that_is_away() {
    if let Some(server) = Broker::rabbit(&[]).await {
        outage(server).await;
    }
}

async fn outage(mut broker: Broker) {
    let [before, during, after] = seconds();
    let audit = Audit::begin(config(&broker)).await;
    let shop = Shop::open(&["--broker", &url_of(&broker)]).await;
    let units = i32::try_from(rate() * (before + during + after)).expect("few");
    move_stock(&shop.system, SKU, units).await;

    all_consume(&shop.system, &url_of(&broker)).await;

    let calm = ended(start(&shop, before)).await;
    let load = start(&shop, during);
    broker.kill().await;
    let away = ended(load).await;
    told_of("before", &calm);
    told_of("while", &away);
    // An order tells of its beginning and its end at least; of the first two seconds some was told before.
    let expected = away.ended_with("OK").saturating_sub(2 * rate()) * 2;
    let backlog = wait::until("events that wait to be counted", SOON, async || {
        let backlog = pending(&shop).await;
        (backlog >= expected).then_some(backlog)
    })
    .await;

    let load = start(&shop, after);
    broker.restart().await;
    let back = Instant::now();
    let drained = drained(&shop, back).await;
    let late = ended(load).await;
    told_of("after", &late);
    let parts = [&calm, &away, &late];
    let answered = parts.iter().map(|report| report.ended_with("OK"));
    let answered = usize::try_from(answered.sum::<u64>()).expect("few");
    wait::until("all to be told", 2 * SOON, async || {
        let (orders, over) = audit.orders().count();
        (orders >= answered && over == orders && pending(&shop).await == 0).then_some(())
    })
    .await;
    let orders = audit.orders();
    assert!(orders.early.is_empty(), "{:?}", orders.early);

    let waited = u32::try_from(backlog).expect("few");
    let (first, told) = audit.told_after(back, waited);
    say(&format!(
        "{waited} events waited; the first came {first:?} after the broker was back, all of them {told:?} after it: \
         {:.0} a second; {drained:?} after it all was done: {:.0} a second; {} came twice",
        f64::from(waited) / told.as_secs_f64(),
        f64::from(waited) / drained.as_secs_f64(),
        orders.duplicates,
    ));
    for report in parts {
        let (calls, fine) = (report.calls(), report.ended_with("OK"));
        assert!(fine * 10 >= calls * 9, "{fine} of {calls} were answered");
    }
    // A machine that is busy with other things answers late, broker or not.
    if tools::timed() {
        for report in parts {
            report.all_ok();
        }
        assert!(away.p99() <= 2 * calm.p99() + Duration::from_millis(50));
        let pace = u32::try_from(rate() * EVENTS * FASTER).expect("few");
        let longest = Duration::from_secs(backlog) / pace;
        assert!(told <= longest, "told within {told:?}, of {longest:?}");
        assert!(
            drained <= longest,
            "done within {drained:?}, of {longest:?}"
        );
    }
}

/// Says how people fared who ordered then.
fn told_of(when: &str, report: &Report) {
    say(&format!(
        "{when} the broker was away: {} orders, {} answered, p99 {:?}",
        report.calls(),
        report.ended_with("OK"),
        report.p99()
    ));
}

fn config(broker: &Broker) -> Config {
    let mut config = Config::to(broker.url().parse().expect("a URL"));
    if let Broker::Rabbit(_) = broker {
        config.user = Some(rabbitmq::USER.to_owned());
        config.password = rabbitmq::PASSWORD.to_owned().into();
    }
    config
}

/// People who order, each another time, for so long.
fn start(shop: &Shop, seconds: u64) -> Load {
    let request =
        format!(r#"{{"requestId": "{{{{uuid}}}}", "lines": [{{"sku": "{SKU}", "quantity": 1}}]}}"#);
    let token = format!("authorization: Bearer {}", shop.customer.token);
    let (gateway, rate) = (shop.system.address("gateway"), rate().to_string());
    let method = "shop.orders.v1.OrdersService/PlaceOrder";
    let call = [&gateway, method, &request, "-H", &token, "--rate", &rate];
    Load::start_as(&call, seconds)
}

async fn ended(load: Load) -> Report {
    // How late calls were sent is of no matter: it is the same before and after.
    load.ended().await.0
}

/// Events that no broker has confirmed, as the service says.
async fn pending(shop: &Shop) -> u64 {
    let counts = counted(&shop.system, "orders", "gantry_events_pending", "").await;
    counts.into_iter().max().expect("a process")
}

/// Waits until no more waits than comes in a second, be it in the outbox or at a consumer; how long that
/// took since the broker was back.
async fn drained(shop: &Shop, back: Instant) -> Duration {
    let few = rate() * EVENTS;
    let sum = async |service: &str, name: &str, label: &str| {
        let counts = counted(&shop.system, service, name, label).await;
        counts.iter().sum::<u64>()
    };
    wait::until("what waited to be done", 10 * SOON, async || {
        let added = sum("orders", "gantry_events_added_total", "").await;
        let mut done = 0;
        for service in ["catalog", "notifications"] {
            let applied = "outcome=\"applied\"";
            done += sum(service, "gantry_events_consumed_total", applied).await;
        }
        // Of three events of an order four are consumed: one by two groups.
        let due = added.saturating_sub(few) / EVENTS * 4;
        (pending(shop).await <= few && done >= due).then_some(())
    })
    .await;
    back.elapsed()
}
