//! The gateway's `openapi.json`, as a validator of others sees it.

use std::{fs, process::Command};

use gantry_harness::{process::get, system::System, tools, wait};
use serde_json::Value;

/// Goal: the document is `OpenAPI` 3.1, and has what the shop is spelled as.
/// Method: the validator of openapi-spec-validator, in Python; the paths that are agreed.
#[tokio::test]
async fn the_document_of_the_shop_is_valid() {
    let Some(python) = tools::find("python/bin/python") else {
        return;
    };
    let system = System::up(&[]);
    let gateway = system.address("gateway").parse().expect("an address");
    let document = wait::until("the shop to be described", wait::SOON, async || {
        let answer = get(gateway, "/openapi.json").await?;
        let (_, document) = answer.split_once("\r\n\r\n")?;
        let services = [
            "AccountsService",
            "CatalogService",
            "NotificationsService",
            "OrdersService",
        ];
        let whole = services.iter().all(|it| document.contains(it));
        whole.then(|| document.to_owned())
    })
    .await;
    let file = system.folder().join("openapi.json");
    fs::write(&file, &document).expect("there is room");
    let mut validator = Command::new(python);
    tools::run(
        validator
            .args(["-m", "openapi_spec_validator", "--schema", "3.1.0"])
            .arg(&file),
    );

    let document: Value = serde_json::from_str(&document).expect("JSON");
    for (path, method) in [
        ("/v1/accounts:register", "post"),
        ("/v1/accounts:login", "post"),
        ("/v1/products", "get"),
        ("/v1/products:import", "post"),
        ("/v1/notifications", "get"),
        ("/v1/notifications:watch", "get"),
        ("/v1/orders", "post"),
        ("/v1/orders", "get"),
        ("/v1/orders/{order_id}", "get"),
        ("/v1/orders/{order_id}:cancel", "post"),
        ("/v1/orders/{order_id}:watch", "get"),
    ] {
        let operation = &document["paths"][path][method];
        assert!(
            operation["description"].is_string(),
            "{method} {path}: {operation}"
        );
    }
}
