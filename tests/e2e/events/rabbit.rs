//! The shop with a real RabbitMQ.

use std::{fs, path::Path};

use gantry_harness::{
    collector::{Collector, SpanKind},
    rabbitmq::{PASSWORD, RabbitMq, USER},
    system::System,
    wait::{self, SOON},
};
use serde_json::Value;
use shop_audit::State;

use super::desk::{Desk, Told, all_consume};
use crate::money::Shop;

fn url(server: &RabbitMq, password: &str) -> String {
    format!("amqp://{USER}:{password}@{}", server.address())
}

/// Goal: with the URL of a RabbitMQ and nothing else the shop does what it does with the local broker;
/// a trace goes from the gateway through calls and events to whoever consumes, and nobody but the processes is told the password.
/// Method: orders through the gateway, what comes of them, their spans; every file that is written.
#[tokio::test(flavor = "multi_thread")]
async fn the_shop_runs_on_rabbitmq() {
    let Some(server) = RabbitMq::start().await else {
        return;
    };
    let collector = Collector::start().await;
    let otlp = format!("http://{}", collector.address);
    let broker = url(&server, PASSWORD);
    let shop = Shop::open(&["--broker", &broker, "--otlp", &otlp]).await;
    let desk = Desk::of(&shop.system).await;
    all_consume(&shop.system, &broker).await;
    for number in 0..3 {
        shop.customer.order(number).await;
    }
    let expected = Told {
        notices: 3,
        sold: 1 + 2 + 3,
        orders: [3, 3, 0],
    };
    desk.until(&shop, expected).await;
    shop.customer.settled(3, "by RabbitMQ").await;

    let all = ["gateway", "orders", "payments", "catalog", "notifications"];
    // Each process sends its spans when it likes.
    wait::until("events in the trace of their call", 2 * SOON, async || {
        let trace = collector.trace_over(&all).await;
        let of = |service: &str, name: &str, kind: SpanKind| {
            let mut spans = trace.iter().filter(|it| it.service == service);
            let found = spans.find(|it| it.span.name == name && it.span.kind() == kind);
            found.map(|it| &it.span)
        };
        for (consumer, event) in [
            ("catalog", "shop.orders.v1.OrderPlaced"),
            ("notifications", "shop.orders.v1.OrderConfirmed"),
        ] {
            let created = of("orders", &format!("create {event}"), SpanKind::Producer)?;
            let handled = of(consumer, &format!("process {event}"), SpanKind::Consumer)?;
            let mut links = handled.links.iter();
            links.find(|link| link.span_id == created.span_id)?;
        }
        Some(())
    })
    .await;
    groups_are_known_and_removed_with_care(&shop.system, &broker);
    shows_no_password(&shop.system, PASSWORD);
    for verb in [
        &["ps"][..],
        &["ps", "--output", "json"],
        &["events", "tail", "--count", "1"],
    ] {
        let output = shop.system.gantry(verb);
        let said = [output.stdout, output.stderr].concat();
        assert!(!holds(&said, PASSWORD), "{verb:?}");
    }
}

/// RabbitMQ does not tell its groups, so those of running instances are shown; none is removed that somebody
/// consumes.
fn groups_are_known_and_removed_with_care(system: &System, broker: &str) {
    let all = [
        "dlq", "list", "--all", "--output", "json", "--broker", broker,
    ];
    let listed: Vec<Value> = serde_json::from_slice(&system.gantry(&all).stdout).expect("groups");
    let names: Vec<_> = listed.iter().map(|it| it["group"].as_str()).collect();
    let expected = ["catalog.sales", "catalog.stock", "notifications.notices"];
    assert_eq!(expected.map(Some).as_slice(), names);
    for group in &listed {
        assert!(group["consumers"].as_u64() > Some(0), "{group}");
    }
    let remove = [
        "events",
        "remove",
        "catalog.sales",
        "--yes",
        "--broker",
        broker,
    ];
    let refused = system.gantry(&remove);
    assert_eq!(Some(2), refused.status.code(), "{refused:?}");
}

/// Goal: a RabbitMQ that is not there when the shop starts, and one that does not let it in, is told of
/// by the setting to look at, and waited for; orders do not notice, and what they told is told then.
/// Method: start beside a server that was killed, with a password that is not its own; order; have it
/// come back, then have it take that password.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_away_or_refuses_is_waited_for() {
    let Some(mut server) = RabbitMq::start().await else {
        return;
    };
    let wrong = "another-horse";
    let broker = url(&server, wrong);
    server.kill().await;
    let shop = Shop::open(&["--broker", &broker]).await;
    let desk = Desk::of(&shop.system).await;
    shop.customer.order(0).await;
    let books = shop.customer.settled(1, "without a broker").await;
    assert!(books.orders.values().all(|it| it.state == State::Confirmed));
    until_logged(&shop.system, "settings=broker.url").await;

    server.restart().await;
    until_logged(&shop.system, "settings=\"broker.user and broker.password\"").await;
    let none = Told {
        notices: 0,
        sold: 0,
        orders: [0, 0, 0],
    };
    desk.until(&shop, none).await;
    server.must(&["change_password", USER, wrong]);
    let expected = Told {
        notices: 1,
        sold: 1,
        orders: [1, 1, 0],
    };
    desk.until(&shop, expected).await;
    for row in shop.system.instances() {
        assert_eq!(("SERVING", 0), (&*row.state, row.restarts), "{row:?}");
    }
    shows_no_password(&shop.system, wrong);
}

/// Waits until each service with a broker has printed `words`.
async fn until_logged(system: &System, words: &str) {
    for service in ["orders", "catalog", "notifications"] {
        wait::until(&format!("{service} to say {words}"), SOON, async || {
            let said = system.gantry(&["logs", service, "--tail", "1000"]);
            holds(&said.stdout, words).then_some(())
        })
        .await;
    }
}

/// Looks for `password` in whatever the shop has written, and in what `ps` shows of its processes.
fn shows_no_password(system: &System, password: &str) {
    let looked_at = no_file_holds(&system.folder().join(".gantry"), password);
    assert!(looked_at > 10, "{looked_at} files");
    for row in system.instances() {
        let id = row.pid.expect("it runs");
        let line = fs::read(format!("/proc/{id}/cmdline")).expect("a command line");
        assert!(!holds(&line, password), "{row:?}");
    }
}

fn no_file_holds(folder: &Path, password: &str) -> usize {
    let mut files = 0;
    for entry in fs::read_dir(folder).expect("read a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files += no_file_holds(&path, password);
        } else if let Ok(bytes) = fs::read(&path) {
            assert!(!holds(&bytes, password), "{}", path.display());
            files += 1;
        }
    }
    files
}

fn holds(bytes: &[u8], words: &str) -> bool {
    let mut windows = bytes.windows(words.len());
    windows.any(|window| window == words.as_bytes())
}
