//! Rolling restarts of everything, under load from clients that discover.

use std::time::Duration;

use gantry_harness::{
    http_load::HttpLoad,
    load::{Load, RATE, Void, valid},
    system::{Instance, System},
    tools,
};
use serde_json::{Value, json};
use shop_proto::orders::v1::{WatchOrderRequest, orders_service_client::OrdersServiceClient};
use tokio::task::JoinSet;
use tonic::{Code, Request};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use crate::support::channel;

/// A call of the catalog without effect.
pub(super) const LIST: [&str; 2] = [
    "shop.catalog.v1.CatalogService/ListProducts",
    r#"{"pageSize": 1}"#,
];
const KEYS: [&str; 2] = ["shop.accounts.v1.AccountsService/GetJwks", "{}"];
const HEALTH: [&str; 2] = ["grpc.health.v1.Health/Check", "{}"];

/// Longest a restart of everything may take: each exit has its bound of 28 s, and none needs it.
const ROUND_MAX: Duration = Duration::from_mins(1);

/// A customer who follows an order of theirs.
struct Customer {
    token: String,
    order: String,
}

impl Customer {
    /// Registers, logs in and orders something that there is.
    fn new(system: &System) -> Self {
        let person = json!({"email": "rolling@example.com", "password": "correct horse battery"});
        let login = |method: &str| {
            let method = format!("shop.accounts.v1.AccountsService/{method}");
            call(system, &["accounts", &method, &person.to_string()])
        };
        login("Register");
        let token = text(&login("Login")["token"]);
        let listed = call(system, &["catalog", LIST[0], LIST[1]]);
        let lines = json!([{"sku": listed["products"][0]["sku"], "quantity": 1}]);
        let order = json!({"requestId": "rolling", "lines": lines}).to_string();
        let authorization = format!("authorization: Bearer {token}");
        let place = "shop.orders.v1.OrdersService/PlaceOrder";
        let placed = call(system, &["orders", place, &order, "-H", &authorization]);
        let order = text(&placed["order"]["orderId"]);
        Self { token, order }
    }

    /// Follows the order at one instance; what ends that is how it ended.
    async fn watch(&self, instance: &Instance) -> impl Future<Output = Code> + use<> {
        let address = instance.address.parse().expect("an address");
        let mut client = OrdersServiceClient::new(channel(&[address]));
        let order_id = self.order.clone();
        let mut request = Request::new(WatchOrderRequest { order_id });
        let token = format!("Bearer {}", self.token).parse().expect("a token");
        request.metadata_mut().insert("authorization", token);
        let opened = client.watch_order(request).await;
        let mut watch = opened.expect("a watch").into_inner();
        let first = watch.message().await.expect("the order");
        assert!(first.is_some(), "told at once how it is");
        async move {
            loop {
                match watch.message().await {
                    Ok(Some(_)) => {}
                    Ok(None) => return Code::Ok,
                    Err(status) => return status.code(),
                }
            }
        }
    }
}

/// What `gantry call` answers.
fn call(system: &System, arguments: &[&str]) -> Value {
    let output = system.gantry(&[&["call"], arguments].concat());
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

/// Goal: not one call fails while everything is replaced again and again, also with streams open.
/// Method: two replicas of each service; a load on each, and through the gateway one by gRPC and one
/// by JSON; an open health watch at every instance and an open server stream at each that has one;
/// restart all, round by round.
#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_fails_no_call() {
    valid(a_rolling_restart_fails_no_call_once).await;
}

async fn a_rolling_restart_fails_no_call_once() -> Result<(), Void> {
    let rounds = if tools::timed() { 10 } else { 1 };
    let system = System::up(&["--replicas", "catalog=2", "--replicas", "accounts=2"]);
    let url = system.etcd();
    let customer = Customer::new(&system);
    let seconds = if tools::timed() { 200 } else { 40 };
    let load = |rate, name: &str, call| {
        Load::start_at(rate, &format!("etcd:///{name}"), &url, call, seconds)
    };
    // The machine starts processes all the while, so the full rate is for one of them.
    let loads = [
        load(RATE, "catalog", LIST),
        load(RATE / 4, "accounts", KEYS),
        load(RATE / 4, "orders", HEALTH),
    ];
    // By one address, whose instances take its socket over from each other.
    let gateway = system.address("gateway");
    let through = Load::start_at(RATE / 4, &gateway, &url, LIST, seconds);
    let products = format!("http://{gateway}/v1/products?pageSize=1");
    let by_json = HttpLoad::start(RATE / 4, &products, seconds);
    for round in 0..rounds {
        let mut watches = JoinSet::new();
        for row in system.instances() {
            let address = row.address.parse().expect("an address");
            let mut client = HealthClient::new(channel(&[address]));
            let opened = client.watch(HealthCheckRequest::default()).await;
            let mut watch = opened.expect("a health watch").into_inner();
            watches.spawn(async move { while let Ok(Some(_)) = watch.message().await {} });
            if row.name == "orders" {
                let followed = customer.watch(&row).await;
                // Told to go on at another replica.
                watches.spawn(async move { assert_eq!(Code::Unavailable, followed.await) });
            }
        }
        let started = tokio::time::Instant::now();
        let restarted = system.gantry(&["restart", "--all"]);
        assert!(restarted.status.success(), "round {round}: {restarted:?}");
        assert!(started.elapsed() < ROUND_MAX, "{:?}", started.elapsed());
        let over = async {
            while let Some(watched) = watches.join_next().await {
                watched.expect("ended as it should");
            }
        };
        let ended = tokio::time::timeout(ROUND_MAX, over).await;
        ended.expect("every watch ended with its process");
    }
    assert!(loads[0].second() < seconds, "the load ended first");
    for load in loads {
        let report = load.finish().await?;
        report.all_ok();
        assert!(report.endpoints() > 2, "{} endpoints", report.endpoints());
    }
    through.finish().await?.all_ok();
    by_json.all_ok().await?;
    Ok(())
}
