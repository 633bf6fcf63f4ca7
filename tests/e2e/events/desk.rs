//! What the staff and whoever operates the shop see of it.

use gantry::client::Channel;
use gantry_harness::{
    process::get,
    system::System,
    wait::{self, SOON},
};
use serde_json::Value;
use shop_proto::catalog::v1::{
    GetSalesSummaryRequest, ListStockLevelsRequest, SalesOfDay,
    catalog_service_client::CatalogServiceClient,
};

use crate::{
    money::Shop,
    shop::SKU,
    support::{by, channel, say, staff},
};

/// Somebody of the staff, at the gateway.
pub(super) struct Desk {
    pub(super) token: String,
    pub(super) catalog: CatalogServiceClient<Channel>,
}

/// What came of orders, by events alone.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Told {
    /// Notices to the customer.
    pub(super) notices: usize,
    /// Units sold of what everybody orders.
    pub(super) sold: i64,
    /// Orders placed, paid and cancelled.
    pub(super) orders: [i64; 3],
}

impl Desk {
    pub(super) async fn of(system: &System) -> Self {
        let accounts = system.address("accounts").parse().expect("an address");
        Self {
            token: staff(accounts).await,
            catalog: catalog(system),
        }
    }

    /// The same person, where the shop was opened again.
    pub(super) fn by_other(self, system: &System) -> Self {
        Self {
            catalog: catalog(system),
            ..self
        }
    }

    /// Units sold of a product; none where nobody answers, or there is no such product.
    pub(super) async fn sold(&self, sku: &str) -> Option<i64> {
        let levels = by(&self.token, ListStockLevelsRequest::default());
        let levels = self.catalog.clone().list_stock_levels(levels).await.ok()?;
        let levels = levels.into_inner().stock_levels;
        let level = levels.into_iter().find(|it| it.sku == sku);
        level.map(|level| level.sold)
    }

    /// What has come of orders so far; none where somebody does not answer.
    async fn told(&self, shop: &Shop, sku: &str) -> Option<Told> {
        let summary = by(&self.token, GetSalesSummaryRequest::default());
        let days = self.catalog.clone().get_sales_summary(summary).await.ok()?;
        let days = days.into_inner().days;
        let of = |count: fn(&SalesOfDay) -> i64| days.iter().map(count).sum();
        Some(Told {
            notices: shop.customer.news().await.ok()?.len(),
            sold: self.sold(sku).await.unwrap_or(0),
            orders: [
                of(|day| day.placed),
                of(|day| day.paid),
                of(|day| day.cancelled),
            ],
        })
    }

    /// Waits until that has come of orders.
    pub(super) async fn until(&self, shop: &Shop, expected: Told) {
        self.until_of(shop, SKU, expected).await;
    }

    /// The same, where units of another product are counted.
    pub(super) async fn until_of(&self, shop: &Shop, sku: &str, expected: Told) {
        let what = format!("{expected:?}");
        let mut last = None;
        wait::until(&what, 2 * SOON, async || {
            let told = self.told(shop, sku).await;
            let is = told.as_ref() == Some(&expected);
            if told != last {
                say(&format!("so far {told:?}"));
                last = told;
            }
            is.then_some(())
        })
        .await;
    }
}

fn catalog(system: &System) -> CatalogServiceClient<Channel> {
    let gateway = system.address("gateway").parse().expect("an address");
    CatalogServiceClient::new(channel(&[gateway]))
}

/// What each process of a service says of the series of the metric `name` that have a label.
pub(super) async fn counted(system: &System, service: &str, name: &str, label: &str) -> Vec<u64> {
    let mut counts = Vec::new();
    for row in system.instances() {
        if row.name != service {
            continue;
        }
        let side = row.side_address.parse().expect("an address");
        let metrics = get(side, "/metrics").await.expect("metrics");
        let lines = metrics.lines();
        let lines = lines.filter(|line| line.starts_with(name) && line.contains(label));
        // Gauges are written with a fraction.
        let values = lines.filter_map(|line| {
            let value = line.rsplit(' ').next()?;
            value.split('.').next()?.parse::<u64>().ok()
        });
        counts.push(values.sum());
    }
    counts
}

/// Waits until each consumer has made its group known to the broker: it has a copy of what is told from
/// then on.
pub(super) async fn all_consume(system: &System, broker: &str) {
    for group in ["catalog.sales", "catalog.stock", "notifications.notices"] {
        wait::until(&format!("{group} to be known"), SOON, async || {
            let listed = system.gantry(&["dlq", "list", group, "--broker", broker]);
            listed.status.success().then_some(())
        })
        .await;
    }
}

/// The dead letters of a group.
pub(super) fn dead_letters(system: &System, broker: &str, group: &str) -> Vec<Value> {
    let verb = ["dlq", "list", group, "--output", "json", "--broker", broker];
    let listed = system.gantry(&verb);
    // Nobody has told the broker of the group yet.
    serde_json::from_slice(&listed.stdout).unwrap_or_default()
}
