//! grpcurl, by reflection alone.

use std::{
    collections::BTreeSet,
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};

use gantry_harness::{
    collector::Collector,
    system::System,
    tools,
    wait::{self, SOON},
};
use serde_json::{Value, json};

/// The customer's own trace: every call is part of it, as from a caller that traces.
const TRACE: [u8; 16] = *b"a customer shops";

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
        let trace = format!("{:032x}", u128::from_be_bytes(TRACE));
        command
            .args(["-plaintext", "-max-time", "20", "-d", "@", "-H"])
            .arg(format!("traceparent: 00-{trace}-00000000000000c1-01"));
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

struct Shop {
    accounts: String,
    catalog: String,
    orders: String,
}

/// Goal: every service can be listed, described and used with grpcurl, and one trace tells of it.
/// Method: register, give a role, log in, import, list, place and watch, all within a trace of the caller's; an
/// OTLP receiver collects the spans.
#[tokio::test(flavor = "multi_thread")]
async fn grpcurl_shops_and_one_trace_tells_of_it() {
    let Some(path) = tools::find("grpcurl") else {
        return;
    };
    let collector = Collector::start().await;
    let otlp = format!("http://{}", collector.address);
    let system = System::up(&["--otlp", &otlp]);
    let grpcurl = Grpcurl { path: &path };
    let shop = Shop {
        accounts: system.address("accounts"),
        catalog: system.address("catalog"),
        orders: system.address("orders"),
    };
    everything_is_described(&grpcurl, &shop);
    let token = log_in(&grpcurl, &shop, "grpcurl@example.com", &[]);
    let staff = log_in(&grpcurl, &shop, "clerk@example.com", &["staff"]);
    import_and_list(&grpcurl, &shop, &staff);
    place_and_watch(&grpcurl, &shop, &token);

    let wanted = [
        ("orders", "shop.orders.v1.OrdersService/PlaceOrder"),
        ("orders", "shop.catalog.v1.CatalogService/Reserve"),
        ("catalog", "shop.catalog.v1.CatalogService/Reserve"),
        ("accounts", "shop.accounts.v1.AccountsService/Login"),
    ];
    // Each process sends its spans when it likes, some of a call before the others.
    let trace = wait::until("every span of the trace", 2 * SOON, async || {
        let services = ["orders", "catalog", "accounts"];
        let trace = collector.trace_over(&services).await;
        let spans: BTreeSet<_> = trace
            .iter()
            .map(|it| (it.service.as_str(), it.span.name.as_str()))
            .collect();
        let complete = wanted.iter().all(|span| spans.contains(span));
        complete.then_some(trace)
    })
    .await;
    assert!(
        trace.iter().all(|it| it.span.trace_id == TRACE),
        "the customer's trace"
    );
}

fn everything_is_described(grpcurl: &Grpcurl, shop: &Shop) {
    for (address, service) in [
        (&shop.accounts, "shop.accounts.v1.AccountsService"),
        (&shop.catalog, "shop.catalog.v1.CatalogService"),
        (&shop.orders, "shop.orders.v1.OrdersService"),
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
}

/// The token of somebody new who has these roles.
fn log_in(grpcurl: &Grpcurl, shop: &Shop, email: &str, roles: &[&str]) -> String {
    let call = |method: &str, request: &Value| {
        let method = format!("shop.accounts.v1.AccountsService/{method}");
        grpcurl.call(&shop.accounts, &method, None, std::slice::from_ref(request))
    };
    let person = json!({"email": email, "password": "correct horse battery"});
    let registered = call("Register", &person);
    let account = &registered[0]["account"]["accountId"];
    call("SetRoles", &json!({"accountId": account, "roles": roles}));
    let answer = call("Login", &person);
    answer[0]["token"].as_str().expect("a token").to_owned()
}

fn import_and_list(grpcurl: &Grpcurl, shop: &Shop, token: &str) {
    let row = |number| {
        json!({
            "sku": format!("CURL-{number}"),
            "name": "A thing",
            "priceMinorUnits": 100,
            "currencyCode": "EUR",
            "initialStock": 5,
        })
    };
    let rows: Vec<_> = (0..3).map(row).collect();
    let import = "shop.catalog.v1.CatalogService/ImportProducts";
    let imported = grpcurl.call(&shop.catalog, import, Some(token), &rows);
    assert_eq!("3", imported[0]["createdCount"], "{imported:?}");

    let list = "shop.catalog.v1.CatalogService/ListProducts";
    let listed = grpcurl.call(&shop.catalog, list, None, &[json!({"pageSize": 500})]);
    let products = listed[0]["products"].as_array().expect("products");
    let ours = |product: &&Value| {
        product["sku"]
            .as_str()
            .is_some_and(|sku| sku.starts_with("CURL-"))
    };
    assert_eq!(3, products.iter().filter(ours).count());
}

fn place_and_watch(grpcurl: &Grpcurl, shop: &Shop, token: &str) {
    let call = |method: &str, request: Value| {
        let method = format!("shop.orders.v1.OrdersService/{method}");
        grpcurl.call(&shop.orders, &method, Some(token), &[request])
    };
    let lines = json!([{"sku": "CURL-1", "quantity": 2}]);
    let placed = call("PlaceOrder", json!({"requestId": "curl-1", "lines": lines}));
    assert_eq!(
        "ORDER_STATE_CONFIRMED", placed[0]["order"]["state"],
        "{placed:?}"
    );

    let id = json!({"orderId": placed[0]["order"]["orderId"]});
    call("CancelOrder", id.clone());
    let watched = call("WatchOrder", id);
    let last = watched.last().expect("at least the order as it is");
    assert_eq!(
        "ORDER_STATE_CANCELLED", last["order"]["state"],
        "{watched:?}"
    );
}
