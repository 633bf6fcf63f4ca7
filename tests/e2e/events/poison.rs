//! Orders that a consumer cannot take in.

use std::{collections::BTreeSet, fs, path::Path};

use gantry_harness::{
    broker::Broker,
    collector::{Collector, Received},
    rabbitmq::{PASSWORD, USER},
    wait::{self, SOON},
};
use shop_proto::{
    catalog::v1::ImportProductsRequest,
    orders::v1::{NewOrderLine, PlaceOrderRequest},
};

use super::desk::{Desk, Told, all_consume, counted, dead_letters};
use crate::{money::Shop, support::by};

/// What the catalog forgets.
const SKU: &str = "TEA-FORGOTTEN";
const GROUP: &str = "catalog.stock";

/// How often and how patiently it is tried here.
const SETTINGS: &str = "
[events.consumer]
attempts_max = 4
attempts_in_place = 2
pause = \"200ms\"
";
const ATTEMPTS: u64 = 4;

/// Goal: an order that a consumer cannot take in becomes a dead letter after exactly its attempts, while
/// other consumers have it and later events of the order go on; once the cause is mended it is put back
/// and has its effect once, in a trace that links to the first.
/// Method: a product, a backup of the catalog from before it, two orders of it of which one is cancelled,
/// told while the broker is away; the backup in the catalog's place, the broker back. Then the product
/// again, and `gantry dlq redrive`.
#[tokio::test(flavor = "multi_thread")]
async fn a_poison_order_is_put_back_once_it_can_be_done() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    poison(Broker::local(folder.path())).await;
}

/// Goal: the same on RabbitMQ.
/// Method: the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_poison_order_is_put_back_once_it_can_be_done_on_rabbitmq() {
    if let Some(server) = Broker::rabbit(&[]).await {
        poison(server).await;
    }
}

/// Where the broker is, and who logs in, where it asks.
pub(super) fn url_of(broker: &Broker) -> String {
    match broker {
        Broker::Local(_) => broker.url(),
        Broker::Rabbit(server) => format!("amqp://{USER}:{PASSWORD}@{}", server.address()),
    }
}

async fn poison(mut broker: Broker) {
    let url = url_of(&broker);
    let collector = Collector::start().await;
    let otlp = format!("http://{}", collector.address);
    let arguments = ["--broker", &url, "--otlp", &otlp];
    let shop = Shop::open(&arguments).await;
    let settings = shop.system.folder().join("config/catalog.toml");
    let backup = tempfile::tempdir().expect("a temporary folder");
    let shop = closed_and_again(shop, &arguments, |data| {
        let text = fs::read_to_string(&settings).unwrap_or_default();
        fs::write(&settings, text + SETTINGS).expect("write a file");
        copy(data, backup.path());
    })
    .await;
    let desk = Desk::of(&shop.system).await;
    import(&desk).await;
    all_consume(&shop.system, &url).await;
    broker.kill().await;
    order(&shop, "kept", 1).await;
    let cancelled = order(&shop, "cancelled", 2).await;
    shop.customer.regret(&cancelled).await;

    let shop = closed_and_again(shop, &arguments, |data| copy(backup.path(), data)).await;
    let desk = desk.by_other(&shop.system);
    broker.restart().await;
    let system = &shop.system;
    let letters = wait::until("two dead letters", 4 * SOON, async || {
        let letters = dead_letters(system, &url, GROUP);
        (letters.len() == 2).then_some(letters)
    })
    .await;
    for letter in &letters {
        assert_eq!("shop.orders.v1.OrderConfirmed", letter["topic"], "{letter}");
        assert_eq!("attempts_used_up", letter["reason"], "{letter}");
        assert_eq!(ATTEMPTS, letter["attempts"], "{letter}");
    }
    let told = |sold| Told {
        notices: 3,
        sold,
        orders: [2, 2, 1],
    };
    desk.until_of(&shop, SKU, told(0)).await;
    let of = format!("messaging_consumer_group_name=\"{GROUP}\"");
    let stock = async |metric: &str| {
        let counts = counted(system, "catalog", metric, &of).await;
        counts.iter().sum::<u64>()
    };
    assert_eq!(
        2 * ATTEMPTS,
        stock("gantry_events_attempts_failed_total").await
    );
    assert_eq!(2, stock("gantry_events_dead_letters_total").await);

    import(&desk).await;
    let redrive = ["dlq", "redrive", GROUP, "--all", "--broker", &url];
    let redriven = system.gantry(&redrive);
    assert!(redriven.status.success(), "{redriven:?}");
    // One stays cancelled, whatever comes after that.
    desk.until_of(&shop, SKU, told(1)).await;
    assert_eq!(2, linked(&collector).await.len());
    order(&shop, "later", 4).await;
    let later = Told {
        notices: 4,
        sold: 5,
        orders: [3, 3, 1],
    };
    desk.until_of(&shop, SKU, later).await;
    assert!(dead_letters(system, &url, GROUP).is_empty());
}

/// Drains the shop, does something to its data, and opens it again.
async fn closed_and_again(
    mut shop: Shop,
    arguments: &[&str],
    meanwhile: impl FnOnce(&Path),
) -> Shop {
    let stopped = shop.system.gantry(&["stop"]);
    assert!(stopped.status.success(), "{stopped:?}");
    shop.system.ended(SOON).await;
    meanwhile(&shop.system.folder().join(".gantry/data"));
    shop.again(arguments).await
}

/// Copies the database of the catalog.
fn copy(from: &Path, to: &Path) {
    for end in ["", "-wal", "-shm"] {
        let name = format!("catalog.db{end}");
        let (from, to) = (from.join(&name), to.join(&name));
        if from.exists() {
            fs::copy(from, to).expect("copy a file");
        } else if to.exists() {
            fs::remove_file(to).expect("remove a file");
        }
    }
}

async fn import(desk: &Desk) {
    let product = ImportProductsRequest {
        sku: SKU.to_owned(),
        name: "A tea that was forgotten".to_owned(),
        price_minor_units: 500,
        currency_code: "EUR".to_owned(),
        initial_stock: 100,
        ..ImportProductsRequest::default()
    };
    let products = by(&desk.token, tokio_stream::iter([product]));
    let imported = desk.catalog.clone().import_products(products).await;
    imported.expect("a product");
}

/// Places an order; its name.
async fn order(shop: &Shop, name: &str, quantity: i32) -> String {
    let request = PlaceOrderRequest {
        request_id: name.to_owned(),
        lines: vec![NewOrderLine {
            sku: SKU.to_owned(),
            quantity,
        }],
    };
    let placed = wait::until("an order to be taken", SOON, async || {
        shop.customer.place(request.clone()).await.ok()
    });
    placed.await.order_id
}

/// Spans of what was put back: in traces of their own, which link to those of the orders.
async fn linked(collector: &Collector) -> Vec<Received> {
    wait::until("traces that link to the first", SOON, async || {
        let spans = collector.spans();
        let placed = spans
            .iter()
            .filter(|it| it.span.name.ends_with("OrdersService/PlaceOrder"));
        let placed: BTreeSet<_> = placed.map(|it| it.span.trace_id.clone()).collect();
        let is = |it: &Received| {
            let mut links = it.span.links.iter();
            it.service == "catalog"
                && it.span.name.contains("OrderConfirmed")
                && !placed.contains(&it.span.trace_id)
                && links.any(|link| placed.contains(&link.trace_id))
        };
        let found: Vec<_> = spans.iter().filter(|it| is(it)).cloned().collect();
        (found.len() >= 2).then_some(found)
    })
    .await
}
