//! What is left of an order when a process ends in the middle of it, at every point there is.

use std::{net::SocketAddr, os::unix::process::ExitStatusExt as _};

use gantry_harness::{
    database::Place,
    process::{self, Service},
    tools,
    wait::{self, SOON},
};
use rustix::process::Signal;
use serde_json::json;
use shop_proto::{
    catalog::v1::{ImportProductsRequest, catalog_service_client::CatalogServiceClient},
    orders::v1::OrderState,
};
use tokio::task::{JoinSet, LocalSet};

use crate::{
    shop::{Customer, Doors, SKU},
    support::channel,
};

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

/// The services of the shop, each started by hand.
struct Stand {
    place: Place,
    accounts: Service,
    catalog: Service,
    bank: Service,
    payments: Service,
    orders: Service,
}

impl Stand {
    async fn open(place: Place) -> Self {
        let service = |name: &str| {
            let builder = process::service(name);
            builder.set("DATABASE__URL", place.url_of(name))
        };
        let accounts = service("accounts").start().await;
        let catalog = service("catalog").start().await;
        let bank = service("bank").start().await;
        let payments = payments(&place, bank.address, None).start().await;
        let peers = [accounts.address, catalog.address, payments.address];
        let orders = orders(&place, peers, None).start().await;
        let row = ImportProductsRequest {
            sku: SKU.to_owned(),
            name: "Earl Grey".to_owned(),
            price_minor_units: 890,
            currency_code: "EUR".to_owned(),
            initial_stock: 10_000,
            ..ImportProductsRequest::default()
        };
        let mut shelves = CatalogServiceClient::new(channel(&[catalog.address]));
        let imported = shelves.import_products(tokio_stream::iter([row])).await;
        imported.expect("a product");
        Self {
            place,
            accounts,
            catalog,
            bank,
            payments,
            orders,
        }
    }

    fn doors(&self) -> Doors {
        Doors {
            accounts: channel(&[self.accounts.address]),
            catalog: channel(&[self.catalog.address]),
            orders: channel(&[self.orders.address]),
            bank: self.bank.address,
        }
    }

    fn victim(&mut self, point: &str) -> &mut Service {
        if point.starts_with("orders.") {
            &mut self.orders
        } else {
            &mut self.payments
        }
    }

    /// Has the process that comes by `point` next end there.
    fn arm(&mut self, point: &str) {
        let folder = self.victim(point).folder().join(".gantry/crash");
        std::fs::create_dir_all(&folder).expect("make a folder");
        std::fs::write(folder.join(point), "").expect("write a file");
    }

    /// Waits until a process has ended at `point`, and starts it again where it was.
    async fn crashed(&mut self, point: &str) {
        let victim = self.victim(point);
        let file = victim.folder().join(".gantry/crash").join(point);
        let reached = format!("{point} to be reached, in a build with --all-features");
        wait::until(&reached, SOON, async || (!file.exists()).then_some(())).await;
        let status = victim.ended(SOON).await;
        let aborted = status.signal() == Some(Signal::ABORT.as_raw());
        assert!(aborted, "{point}: {status}");
        let address = victim.address;
        if point.starts_with("orders.") {
            let peers = [
                self.accounts.address,
                self.catalog.address,
                self.payments.address,
            ];
            self.orders = orders(&self.place, peers, Some(address)).start().await;
        } else {
            let payments = payments(&self.place, self.bank.address, Some(address));
            self.payments = payments.start().await;
        }
    }
}

fn payments(place: &Place, bank: SocketAddr, at: Option<SocketAddr>) -> process::Builder {
    let builder = process::service("payments")
        .set("DATABASE__URL", place.url_of("payments"))
        .set("BANK__URL", format!("http://{bank}"));
    match at {
        Some(address) => builder.at(address),
        None => builder,
    }
}

fn orders(place: &Place, peers: [SocketAddr; 3], at: Option<SocketAddr>) -> process::Builder {
    let [accounts, catalog, payments] = peers;
    let builder = process::service("orders")
        .set("DATABASE__URL", place.url_of("orders"))
        .set("CLIENTS__ACCOUNTS__TARGET", accounts)
        .set("CLIENTS__CATALOG__TARGET", catalog)
        .set("CLIENTS__PAYMENTS__TARGET", payments);
    match at {
        Some(address) => builder.at(address),
        None => builder,
    }
}

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
    let states = books.orders.values().map(|order| order.0);
    let confirmed = states
        .filter(|state| *state == OrderState::Confirmed)
        .count();
    eprintln!("{confirmed} of {placed} orders confirmed");
    assert_eq!(ORDERED.len(), confirmed, "{:#?}", books.orders);
}
