//! Customers in Node, by @grpc/grpc-js, and in a browser, by Connect's client for the web.

use std::{fs, process::Command};

use gantry_harness::{
    process,
    system::System,
    tools,
    wait::{self, SOON},
};
use serde_json::{Value, json};

fn script(name: &str) -> Option<Command> {
    let modules = tools::find("node/node_modules")?;
    let mut node = Command::new("node");
    node.env("NODE_PATH", modules)
        .arg(tools::root().join("tests/interop/node").join(name));
    Some(node)
}

/// Goal: a customer in Node gets through all of the shop at one address, over all four kinds of calls.
/// Method: tests/interop/node/customer.js, which fails at the first surprise.
#[tokio::test]
async fn a_node_client_shops_through_the_gateway() {
    let Some(mut customer) = script("customer.js") else {
        return;
    };
    let system = System::up(&[]);
    let gateway = system.address("gateway");
    customer.arg(tools::root().join("proto")).arg(gateway);
    let told = tools::run(customer.arg(system.address("accounts")));
    let told: Value = serde_json::from_str(&told).expect("JSON");
    let expected = json!({
        "imported": "3",
        "levels": ["15", "12"],
        "listed": 3,
        "placed": "ORDER_STATE_CONFIRMED",
        "cancelled": "ORDER_STATE_CANCELLED",
        "watched": "ORDER_STATE_CANCELLED",
    });
    assert_eq!(expected, told);
}

/// Goal: a page in a real browser shops, by gRPC-Web with its streams, Connect in both codecs and by
/// GET, and JSON; from where it may, and from nowhere else.
/// Method: tests/interop/node/page.html at an origin of its own, in headless Chromium; a gateway that
/// lets it ask, beside the shop's own, which does not.
#[tokio::test(flavor = "multi_thread")]
async fn a_page_in_a_browser_shops() {
    let (Some(mut browse), Some(browser)) = (script("browse.js"), tools::find("chromium")) else {
        return;
    };
    let system = System::up(&[]);
    let page = process::free_address();
    let gateway = process::service("gateway")
        .set("ETCD__ENDPOINTS", system.etcd())
        .set("HTTP__ORIGINS", format!("http://{page}"))
        .set("TOKENS__KEYS", "shop.accounts.v1.AccountsService/GetJwks")
        .set("TOKENS__ISSUER", "shop.accounts")
        .set("TOKENS__AUDIENCE", "shop")
        .start()
        .await;
    wait::until("the shop to be described", SOON, async || {
        let document = process::get(gateway.address, "/openapi.json").await?;
        let services = ["AccountsService", "CatalogService", "OrdersService"];
        services
            .iter()
            .all(|it| document.contains(it))
            .then_some(())
    })
    .await;
    let descriptors = [
        ("accounts", shop_proto::accounts::v1::DESCRIPTORS),
        ("catalog", shop_proto::catalog::v1::DESCRIPTORS),
        ("orders", shop_proto::orders::v1::DESCRIPTORS),
    ];
    for (name, bytes) in descriptors {
        let file = system.folder().join(format!("{name}.binpb"));
        fs::write(file, bytes).expect("there is room");
    }
    let modules = tools::find("node/node_modules").expect("it was there");
    browse.args([&browser, &modules]).arg(system.folder());
    browse.args([
        page.port().to_string(),
        gateway.address.to_string(),
        system.address("gateway"),
    ]);
    let found = tools::run(&mut browse);
    let found: Value = serde_json::from_str(&found).expect("JSON");
    let each = |what: Value| json!({"grpcWeb": what, "connect": what, "connectJson": what, "connectGet": what});
    assert_eq!(each(json!(3)), found["products"], "{found}");
    assert_eq!(each(json!("Unauthenticated")), found["refused"], "{found}");
    // ORDER_STATE_CONFIRMED, and at last ORDER_STATE_CANCELLED.
    let watched = found["watched"].as_array().expect("states");
    assert_eq!(
        (Some(&json!(2)), Some(&json!(4))),
        (watched.first(), watched.last()),
        "{found}"
    );
    assert_eq!(json!(["ORDER_STATE_CANCELLED"]), found["lines"], "{found}");
    assert_eq!("TypeError", found["other"], "{found}");
}
