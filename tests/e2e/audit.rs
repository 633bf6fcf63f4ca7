//! The program that looks into the books of the shop, `audit`, on a running one.

use std::process::{Command, Output};

use gantry_harness::{
    process::{built, free_address, post},
    tools,
};
use serde_json::{Value, json};

use crate::{money::Shop, shop::SKU, support::move_stock};

/// An `audit` of the shop with further arguments.
fn audit(shop: &Shop, arguments: &[&str]) -> Output {
    let bank = shop.system.address("bank");
    let mut command = Command::new(built("audit"));
    command
        .args(["--bank", &bank])
        .args(arguments)
        .current_dir(shop.system.folder());
    tools::output(&mut command)
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The report of an `audit` that ended with `code`.
fn report(output: &Output, code: i32) -> Value {
    assert_eq!(Some(code), output.status.code(), "{output:?}");
    serde_json::from_slice(&output.stdout).expect("a line of JSON")
}

/// The subject of each fault, and its kind.
fn faults(report: &Value) -> Vec<(&str, &str)> {
    let faults = report["faults"].as_array().expect("an array");
    let faults = faults
        .iter()
        .map(|it| (it["subject"].as_str(), it["kind"].as_str()));
    faults
        .filter_map(|(subject, kind)| subject.zip(kind))
        .collect()
}

async fn asked(shop: &Shop, path: &str, key: &str, body: &Value) {
    let bank = shop.system.address("bank").parse().expect("an address");
    let answer = post(bank, path, key, &body.to_string()).await;
    let taken = answer
        .as_deref()
        .is_some_and(|it| it.starts_with("HTTP/1.1 200"));
    assert!(taken, "{answer:?}");
}

/// Goal: whoever looks into good books is told so, and whoever looks into bad ones is told what is
/// wrong with which order, in both ways to print it.
/// Method: a running shop with an order that is confirmed and one that is cancelled; then the bank
/// takes the money for one again under another key, by its own API, and gives it back; then for an
/// order that is none; then units go missing. A shop whose bank or whose books are not there.
#[tokio::test(flavor = "multi_thread")]
async fn faults_planted_in_a_running_shop_are_found() {
    let shop = Shop::open(&[]).await;
    let (before, file) = (audit(&shop, &["--output", "json"]), "before.json");
    assert!(faults(&report(&before, 0)).is_empty());
    std::fs::write(shop.system.folder().join(file), &before.stdout).expect("write a file");
    let order = shop.customer.order(0).await;
    let regretted = shop.customer.order(1).await;
    shop.customer.regret(&regretted).await;

    let since = ["--since", file, "--output", "json"];
    let good = report(&audit(&shop, &since), 0);
    assert!(faults(&good).is_empty(), "{good}");
    let expected = json!({ "due": 890, "taken": 890, "refunded": 1_780 });
    assert_eq!(expected, good["money"]["EUR"], "{good}");
    let human = audit(&shop, &["--since", file]);
    assert_eq!(Some(0), human.status.code());
    assert!(
        text(&human).contains("The books are good."),
        "{}",
        text(&human)
    );

    let charge = json!({ "amount_minor_units": 890, "currency_code": "EUR", "reference": order });
    asked(&shop, "/charges", "by-hand", &charge).await;
    let bad = report(&audit(&shop, &since), 1);
    assert_eq!(vec![(&*order, "charged_twice")], faults(&bad), "{bad}");
    let human = audit(&shop, &[]);
    assert_eq!(Some(1), human.status.code());
    let told = text(&human);
    let line = told
        .lines()
        .find(|line| line.contains(&*order))
        .expect("a line");
    assert!(
        line.starts_with("charged_twice ") && line.contains("by-hand"),
        "{told}"
    );
    asked(&shop, "/refunds", "back", &json!({ "charge": "by-hand" })).await;
    assert!(faults(&report(&audit(&shop, &since), 0)).is_empty());

    let charge = json!({ "amount_minor_units": 1, "currency_code": "EUR", "reference": "nobody" });
    asked(&shop, "/charges", "by-nobody", &charge).await;
    move_stock(&shop.system, SKU, -3).await;
    let bad = report(&audit(&shop, &since), 1);
    assert_eq!(
        vec![("nobody", "unknown_order"), (SKU, "stock")],
        faults(&bad),
        "{bad}"
    );
    // What was delivered or lost shows beside an earlier report alone.
    let bad = report(&audit(&shop, &since[2..]), 1);
    assert_eq!(vec![("nobody", "unknown_order")], faults(&bad), "{bad}");
    unseen(&shop);
}

/// Goal: an order that nobody goes on with is told of once its time is over.
/// Method: a bank that is away, so that an order waits for it; little patience.
#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_does_not_come_to_rest_is_found() {
    let shop = Shop::open(&[]).await;
    shop.customer.bank(json!({ "outage": true })).await;
    let order = shop.customer.order(0).await;
    let bad = report(&audit(&shop, &["--wait", "2s", "--output", "json"]), 1);
    assert_eq!(vec![(&*order, "unfinished")], faults(&bad), "{bad}");
    shop.customer.bank(json!({})).await;
    assert!(faults(&report(&audit(&shop, &["--output", "json"]), 0)).is_empty());
}

/// Books that are not there are not called good, and what is missing is named.
fn unseen(shop: &Shop) {
    let nowhere = free_address().to_string();
    let cases: [(&[&str], &str); 3] = [
        (&["--data", "elsewhere"], "sqlite:elsewhere/orders.db"),
        (&["--since", "none.json"], "--since none.json"),
        (
            &["--since", "gantry.toml"],
            "--since gantry.toml: expected a report",
        ),
    ];
    for (arguments, words) in cases {
        let unseen = audit(shop, arguments);
        let why = String::from_utf8_lossy(&unseen.stderr);
        assert_eq!(Some(2), unseen.status.code(), "{why}");
        assert!(why.contains(words), "{words}: {why}");
    }
    assert!(!shop.system.folder().join("elsewhere").exists());
    let mut command = Command::new(built("audit"));
    command.args(["--bank", &nowhere, "--wait", "0s"]);
    let unseen = tools::output(command.current_dir(shop.system.folder()));
    let why = String::from_utf8_lossy(&unseen.stderr);
    assert_eq!(Some(2), unseen.status.code(), "{why}");
    assert!(why.contains(&nowhere), "{why}");
}
