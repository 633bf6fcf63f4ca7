//! The services of the shop without `gantry up`, for tests that end them in their own way.

use std::{net::SocketAddr, os::unix::process::ExitStatusExt as _};

use gantry_harness::{
    database::Place,
    process::{self, Service},
    turnstile::Turnstile,
    wait::{self, SOON},
};
use rustix::process::Signal;
use shop_audit::Places;
use shop_proto::catalog::v1::{
    ImportProductsRequest, SeedProductsRequest, catalog_service_client::CatalogServiceClient,
};

use crate::{
    shop::{Doors, SKU},
    support::channel,
};

/// The services of the shop, each started by hand.
pub(crate) struct Stand {
    place: Place,
    pub(crate) accounts: Service,
    pub(crate) catalog: Service,
    pub(crate) bank: Service,
    /// Between payments and the bank.
    pub(crate) turnstile: Turnstile,
    pub(crate) payments: Service,
    pub(crate) orders: Service,
}

impl Stand {
    pub(crate) async fn open(place: Place) -> Self {
        let service = |name: &str| {
            let builder = process::service(name);
            builder.set("DATABASE__URL", place.url_of(name))
        };
        let accounts = service("accounts").start().await;
        let catalog = service("catalog");
        let catalog = catalog.set("CLIENTS__ACCOUNTS__TARGET", accounts.address);
        let catalog = catalog.start().await;
        let bank = service("bank").start().await;
        let turnstile = Turnstile::to(bank.address, "/health").await;
        let payments = payments(&place, turnstile.address, None).start().await;
        let peers = [accounts.address, catalog.address, payments.address];
        let orders = orders(&place, peers, None).start().await;
        let product = ImportProductsRequest {
            sku: SKU.to_owned(),
            name: "Earl Grey".to_owned(),
            price_minor_units: 890,
            currency_code: "EUR".to_owned(),
            initial_stock: 10_000,
            ..ImportProductsRequest::default()
        };
        let row = SeedProductsRequest {
            product: Some(product),
        };
        let mut shelves = CatalogServiceClient::new(channel(&[catalog.address]));
        let seeded = shelves.seed_products(tokio_stream::iter([row])).await;
        seeded.expect("a product");
        Self {
            place,
            accounts,
            catalog,
            bank,
            turnstile,
            payments,
            orders,
        }
    }

    pub(crate) fn doors(&self) -> Doors {
        let database = |name: &str| self.place.url_of(name).parse().expect("a database");
        Doors {
            accounts: channel(&[self.accounts.address]),
            orders: channel(&[self.orders.address]),
            bank: self.bank.address,
            books: Places {
                orders: database("orders"),
                payments: database("payments"),
                catalog: database("catalog"),
                bank: self.bank.address.to_string().parse().expect("an address"),
            },
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
    pub(crate) fn arm(&mut self, point: &str) {
        let folder = self.victim(point).folder().join(".gantry/crash");
        std::fs::create_dir_all(&folder).expect("make a folder");
        std::fs::write(folder.join(point), "").expect("write a file");
    }

    /// Waits until a process has ended at `point`, and starts it again where it was.
    pub(crate) async fn crashed(&mut self, point: &str) {
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
            let payments = payments(&self.place, self.turnstile.address, Some(address));
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
