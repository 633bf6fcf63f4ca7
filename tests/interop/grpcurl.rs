//! grpcurl, by reflection alone.

use std::{
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};

use gantry_harness::{collector::Collector, system::System, tools};
use serde_json::{Value, json};

struct Grpcurl<'a> {
    path: &'a Path,
}

impl Grpcurl<'_> {
    fn raw(&self, arguments: &[&str]) -> String {
        tools::run(Command::new(self.path).arg("-plaintext").args(arguments))
    }

    /// Calls with the messages in `request`; the answers, one JSON value after another.
    fn call(
        &self,
        address: &str,
        method: &str,
        token: Option<&str>,
        request: &[Value],
    ) -> Vec<Value> {
        let mut command = Command::new(self.path);
        command.args(["-plaintext", "-max-time", "20", "-d", "@"]);
        if let Some(token) = token {
            command.args(["-H", &format!("authorization: Bearer {token}")]);
        }
        let mut child = command
            .args([address, method])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("start grpcurl");
        let mut input = child.stdin.take().expect("standard input is piped");
        for message in request {
            writeln!(input, "{message}").expect("grpcurl reads");
        }
        drop(input);
        let output = child.wait_with_output().expect("grpcurl ends");
        assert!(
            output.status.success(),
            "{method}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let values = serde_json::Deserializer::from_slice(&output.stdout).into_iter();
        values.collect::<Result<_, _>>().expect("JSON")
    }
}

/// Goal: every service can be listed, described and used with grpcurl, and one trace tells of it.
/// Method: register, log in, import, list, place and watch; an OTLP receiver collects the spans.
#[tokio::test(flavor = "multi_thread")]
async fn grpcurl_shops_and_one_trace_tells_of_it() {
    let Some(path) = tools::find("grpcurl") else {
        return;
    };
    let collector = Collector::start().await;
    let otlp = format!("http://{}", collector.address);
    let system = System::up(&["--otlp", &otlp]);
    let grpcurl = Grpcurl { path: &path };
    let [accounts, catalog, orders] =
        ["accounts", "catalog", "orders"].map(|name| system.address(name));

    for (address, service) in [
        (&accounts, "shop.accounts.v1.AccountsService"),
        (&catalog, "shop.catalog.v1.CatalogService"),
        (&orders, "shop.orders.v1.OrdersService"),
    ] {
        let listed = grpcurl.raw(&[address, "list"]);
        for name in [service, "grpc.health.v1.Health"] {
            assert!(
                listed.lines().any(|line| line == name),
                "{name} in {listed}"
            );
        }
        let described = grpcurl.raw(&[address, "describe", service]);
        assert!(described.contains("rpc "), "{described}");
    }

    let person = json!({"email": "grpcurl@example.com", "password": "correct horse battery"});
    grpcurl.call(
        &accounts,
        "shop.accounts.v1.AccountsService/Register",
        None,
        std::slice::from_ref(&person),
    );
    let login = grpcurl.call(
        &accounts,
        "shop.accounts.v1.AccountsService/Login",
        None,
        &[person],
    );
    let token = login[0]["token"].as_str().expect("a token");

    let rows: Vec<_> = (0..3)
        .map(|number| json!({"sku": format!("CURL-{number}"), "name": "A thing", "priceMinorUnits": 100, "currencyCode": "EUR", "initialStock": 5}))
        .collect();
    let imported = grpcurl.call(
        &catalog,
        "shop.catalog.v1.CatalogService/ImportProducts",
        None,
        &rows,
    );
    assert_eq!("3", imported[0]["createdCount"], "{imported:?}");
    let listed = grpcurl.call(
        &catalog,
        "shop.catalog.v1.CatalogService/ListProducts",
        None,
        &[json!({"pageSize": 500})],
    );
    let products = listed[0]["products"].as_array().expect("products");
    assert_eq!(
        3,
        products
            .iter()
            .filter(|it| it["sku"]
                .as_str()
                .is_some_and(|sku| sku.starts_with("CURL-")))
            .count()
    );

    let wanted = json!({"requestId": "curl-1", "lines": [{"sku": "CURL-1", "quantity": 2}]});
    let placed = grpcurl.call(
        &orders,
        "shop.orders.v1.OrdersService/PlaceOrder",
        Some(token),
        &[wanted],
    );
    assert_eq!(
        "ORDER_STATE_CONFIRMED", placed[0]["order"]["state"],
        "{placed:?}"
    );
    let id = json!({"orderId": placed[0]["order"]["orderId"]});
    grpcurl.call(
        &orders,
        "shop.orders.v1.OrdersService/CancelOrder",
        Some(token),
        std::slice::from_ref(&id),
    );
    let watched = grpcurl.call(
        &orders,
        "shop.orders.v1.OrdersService/WatchOrder",
        Some(token),
        &[id],
    );
    let last = watched.last().expect("at least the order as it is");
    assert_eq!(
        "ORDER_STATE_CANCELLED", last["order"]["state"],
        "{watched:?}"
    );

    let trace = collector.trace_over(&["orders", "catalog"]).await;
    let kinds: Vec<_> = trace
        .iter()
        .map(|it| (it.service.as_str(), it.span.name.as_str()))
        .collect();
    for (service, name) in [
        ("orders", "shop.orders.v1.OrdersService/PlaceOrder"),
        ("orders", "shop.catalog.v1.CatalogService/Reserve"),
        ("catalog", "shop.catalog.v1.CatalogService/Reserve"),
    ] {
        assert!(
            kinds.contains(&(service, name)),
            "{service} {name} in {kinds:?}"
        );
    }
    let accounts_too = collector.trace_over(&["orders", "accounts"]).await;
    assert!(
        !accounts_too.is_empty(),
        "the first token has orders ask accounts for its keys"
    );
}
