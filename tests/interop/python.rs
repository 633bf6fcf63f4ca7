//! Python's grpcio, the C core of gRPC, with code generated from our contracts.

use std::process::Command;

use gantry_harness::{system::System, tools};

/// Goal: a customer in Python gets through all of the shop, over all four kinds of calls.
/// Method: tests/interop/python/customer.py, which fails at the first surprise.
#[tokio::test]
async fn a_python_client_shops() {
    let Some(python) = tools::find("python/bin/python") else {
        return;
    };
    let system = System::up(&[]);
    let told = tools::run(
        Command::new(python)
            .arg(tools::root().join("tests/interop/python/customer.py"))
            .arg(tools::root().join("proto"))
            .args(["accounts", "catalog", "orders"].map(|name| system.address(name))),
    );
    let told: serde_json::Value = serde_json::from_str(&told).expect("JSON");
    assert_eq!(3, told["imported"], "{told}");
    assert_eq!(3, told["listed"], "{told}");
    assert_eq!(serde_json::json!([15, 12]), told["levels"], "{told}");
    assert_eq!("ORDER_STATE_CONFIRMED", told["placed"], "{told}");
    assert_eq!("ORDER_STATE_CANCELLED", told["cancelled"], "{told}");
    assert_eq!(10, told["available_after_cancel"], "{told}");
    let invalid = told["invalid"].as_str().unwrap_or_default();
    assert!(invalid.contains("email"), "{told}");
}
