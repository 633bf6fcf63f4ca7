use std::{fs, path::Path, sync::Arc, time::Duration};

use tokio::time::{self, Instant};

use super::{
    MS,
    fake::{Fake, Kind},
    settle, until,
};
use crate::{
    discovery::{
        Directory, Unfound,
        etcd::{self, pages::ENTRIES_MAX},
    },
    journal::Journal,
    shutdown::Tasks,
    testing::telemetry::capture,
};

fn follow(fake: &Fake) -> Directory {
    follow_with(fake, None)
}

fn follow_with(fake: &Fake, snapshots: Option<&Path>) -> Directory {
    let journal = Journal::new();
    let tasks = Tasks::new(journal.clone());
    let snapshots = snapshots.map(Path::to_owned);
    etcd::directory(fake.etcd(), snapshots, &tasks, journal)
}

fn register(fake: &Fake, key: &str, services: &[&str]) {
    let metadata = serde_json::json!({ "services": services });
    let value = serde_json::json!({ "Op": 0, "Addr": "10.0.0.1:1", "Metadata": metadata });
    fake.put(key, &value.to_string());
}

async fn is(directory: &Directory, service: &str, expected: Result<&str, Unfound>) -> Duration {
    let begun = Instant::now();
    until(&format!("{service} to be {expected:?}"), || {
        let found = directory.find(service);
        let found = found.as_ref().map(|name| &**name).map_err(|error| *error);
        (found == expected).then_some(())
    })
    .await;
    begun.elapsed()
}

/// Goal: every service is found under the name of whoever registered it, as instances come and go;
/// what else is in etcd is passed over.
/// Method: two names, one with two instances, beside other layouts and other data; one goes.
#[tokio::test(start_paused = true)]
async fn services_are_found_by_who_registered_them() {
    let fake = Fake::new();
    register(&fake, "orders/10.0.0.1:1", &["shop.Orders", "shop.Returns"]);
    register(&fake, "orders/10.0.0.1:2", &["shop.Orders"]);
    fake.put("orders.rpc/00ff", "10.0.0.1:1");
    fake.put("elsewhere", "{}");
    let directory = follow(&fake);
    assert_eq!(Err(Unfound::Unread), directory.find("shop.Orders"));
    is(&directory, "shop.Orders", Ok("orders")).await;
    is(&directory, "shop.Returns", Ok("orders")).await;
    is(&directory, "shop.Stock", Err(Unfound::Unregistered)).await;
    assert_eq!(2, directory.services().unwrap().len());

    settle().await;
    register(&fake, "a/b/10.0.0.1:3", &["shop.Stock"]);
    is(&directory, "shop.Stock", Ok("a/b")).await;
    fake.delete("orders/10.0.0.1:1");
    is(&directory, "shop.Returns", Err(Unfound::Unregistered)).await;
    is(&directory, "shop.Orders", Ok("orders")).await;
}

/// Goal: however much and however large what else is in etcd may be, every service is found, and
/// followed.
/// Method: more foreign keys than instances are remembered of, some of them of etcd's largest
/// size; a foreign change of each kind over the watch.
#[tokio::test(start_paused = true)]
async fn what_else_is_there_is_not_in_the_way() {
    let fake = Fake::new();
    let large = "x".repeat(3 << 19);
    for number in 0..=ENTRIES_MAX {
        fake.put(&format!("logs/{number:06}"), "{}");
    }
    for number in 0..20 {
        fake.put(&format!("images/{number:02}"), &large);
    }
    register(&fake, "orders/10.0.0.1:1", &["shop.Orders"]);
    let directory = follow(&fake);
    is(&directory, "shop.Orders", Ok("orders")).await;
    settle().await;
    fake.put("logs/000000", "{}");
    fake.put("images/00", &large);
    fake.delete("images/01");
    register(&fake, "stock/10.0.0.1:2", &["shop.Stock"]);
    is(&directory, "shop.Stock", Ok("stock")).await;

    fake.put("orders/10.0.0.1:1", &large);
    is(&directory, "shop.Orders", Err(Unfound::Unregistered)).await;
    assert_eq!(1, fake.asked(Kind::WatchStream), "one watch lasted");
}

/// Goal: a service whose last instance went is listed for as long as a restart takes, and not for
/// ever; one that returns stays.
/// Method: delete an instance and put it again; delete it, and wait.
#[tokio::test(start_paused = true)]
async fn one_that_restarts_is_not_forgotten() {
    let fake = Fake::new();
    register(&fake, "orders/10.0.0.1:1", &["shop.Orders"]);
    register(&fake, "stock/10.0.0.1:2", &["shop.Stock"]);
    let directory = follow(&fake);
    is(&directory, "shop.Orders", Ok("orders")).await;
    settle().await;

    fake.delete("orders/10.0.0.1:1");
    time::sleep(Duration::from_secs(4)).await;
    register(&fake, "orders/10.0.0.1:1", &["shop.Orders"]);
    time::sleep(Duration::from_mins(2)).await;
    assert_eq!(Ok(Arc::from("orders")), directory.find("shop.Orders"));

    fake.delete("orders/10.0.0.1:1");
    let took = is(&directory, "shop.Orders", Err(Unfound::Unregistered)).await;
    let grace = Duration::from_secs(5);
    assert!((grace..grace + 5 * MS).contains(&took), "{took:?}");
}

/// Goal: the time that a service is listed without an instance is counted from when the last one
/// went, whatever else comes and goes meanwhile.
/// Method: its last instance goes, and another's comes or goes every half second.
#[tokio::test(start_paused = true)]
async fn others_that_come_and_go_keep_no_service_listed() {
    let fake = Fake::new();
    register(&fake, "orders/10.0.0.1:1", &["shop.Orders"]);
    let directory = follow(&fake);
    is(&directory, "shop.Orders", Ok("orders")).await;
    settle().await;
    register(&fake, "stock/10.0.0.1:2", &["shop.Stock"]);
    is(&directory, "shop.Stock", Ok("stock")).await;

    fake.delete("orders/10.0.0.1:1");
    for _ in 0..6 {
        register(&fake, "stock/10.0.0.1:3", &["shop.Stock"]);
        time::sleep(500 * MS).await;
        fake.delete("stock/10.0.0.1:3");
        time::sleep(500 * MS).await;
    }
    assert_eq!(Err(Unfound::Unregistered), directory.find("shop.Orders"));
}

/// Goal: one that starts while etcd is away finds what was registered when it was last there; what
/// went meanwhile is forgotten soon, unless etcd lost everything.
/// Method: follow two services with a folder; start anew with an etcd that does not answer, let it
/// answer without one of them, then start anew with an empty one.
#[tokio::test(start_paused = true)]
async fn a_start_without_etcd_finds_what_was_registered() {
    let folder = tempfile::tempdir().unwrap();
    let snapshots = Some(folder.path());
    let fake = Fake::new();
    register(&fake, "orders/10.0.0.1:1", &["shop.Orders"]);
    register(&fake, "stock/10.0.0.1:2", &["shop.Stock"]);
    let directory = follow_with(&fake, snapshots);
    is(&directory, "shop.Stock", Ok("stock")).await;
    let written = folder.path().join("services.json");
    until("the snapshot", || written.exists().then_some(())).await;
    drop(directory);

    fake.faults(|faults| faults.unanswered.extend([Kind::Range]));
    let directory = follow_with(&fake, snapshots);
    assert_eq!(Err(Unfound::Unread), directory.find("shop.Orders"));
    let took = is(&directory, "shop.Orders", Ok("orders")).await;
    let first = Duration::from_secs(1);
    assert!((first..first + 5 * MS).contains(&took), "{took:?}");
    time::sleep(Duration::from_mins(5)).await;
    assert_eq!(Ok(Arc::from("stock")), directory.find("shop.Stock"));
    // It may have come meanwhile.
    assert_eq!(Err(Unfound::Unread), directory.find("shop.Returns"));
    fake.delete("stock/10.0.0.1:2");
    fake.faults(|faults| faults.unanswered.clear());
    is(&directory, "shop.Stock", Err(Unfound::Unregistered)).await;
    assert_eq!(Ok(Arc::from("orders")), directory.find("shop.Orders"));
    until("the snapshot", || {
        let text = fs::read_to_string(&written).unwrap();
        (!text.contains("shop.Stock")).then_some(())
    })
    .await;
    drop(directory);

    let directory = follow_with(&Fake::new(), snapshots);
    is(&directory, "shop.Orders", Ok("orders")).await;
    let took = is(&directory, "shop.Orders", Err(Unfound::Unregistered)).await;
    assert!(took > Duration::from_secs(30), "{took:?}");
}

/// Goal: a snapshot that cannot be written is told of once, and written when it can be.
/// Method: a file in the place of its folder, and no change of the registry after that goes.
#[tokio::test(start_paused = true)]
async fn a_snapshot_is_written_once_it_can_be() {
    let capture = capture();
    let folder = tempfile::tempdir().unwrap();
    let names = folder.path().join("names");
    fs::write(&names, "").unwrap();
    let fake = Fake::new();
    register(&fake, "orders/10.0.0.1:1", &["shop.Orders"]);
    let directory = follow_with(&fake, Some(&names));
    is(&directory, "shop.Orders", Ok("orders")).await;
    time::sleep(Duration::from_mins(2)).await;
    fs::remove_file(&names).unwrap();
    let written = names.join("services.json");
    until("the snapshot", || written.exists().then_some(())).await;
    let lines = capture.lines();
    let told = lines
        .iter()
        .filter(|it| it.message().contains("cannot be written"));
    assert_eq!(1, told.count());
}

/// Goal: a snapshot that is broken costs a warning, and nothing else.
/// Method: garbage in its place.
#[tokio::test(start_paused = true)]
async fn a_broken_snapshot_is_passed_over() {
    let capture = capture();
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("services.json"), "{").unwrap();
    let fake = Fake::new();
    register(&fake, "orders/10.0.0.1:1", &["shop.Orders"]);
    let directory = follow_with(&fake, Some(folder.path()));
    is(&directory, "shop.Orders", Ok("orders")).await;
    let lines = capture.lines();
    let told = lines.iter().filter(|it| {
        it.message()
            .contains("snapshot of the registry cannot be read")
    });
    assert_eq!(1, told.count());
}

/// Goal: a registry that loses everything takes no service away before its instances had time to
/// come again.
/// Method: restart it empty; one comes again, the other does not.
#[tokio::test(start_paused = true)]
async fn a_registry_that_lost_everything_is_waited_for() {
    let fake = Fake::new();
    register(&fake, "orders/10.0.0.1:1", &["shop.Orders"]);
    register(&fake, "stock/10.0.0.1:2", &["shop.Stock"]);
    let directory = follow(&fake);
    is(&directory, "shop.Stock", Ok("stock")).await;

    fake.restart_empty();
    time::sleep(Duration::from_secs(20)).await;
    register(&fake, "orders/10.0.0.1:1", &["shop.Orders"]);
    let took = is(&directory, "shop.Stock", Err(Unfound::Unregistered)).await;
    assert!(took > Duration::from_secs(30), "{took:?}");
    assert_eq!(Ok(Arc::from("orders")), directory.find("shop.Orders"));
}

/// Goal: what is followed has a bound, and what is left out beyond it is told of, once.
/// Method: as many instances as are listed; then three more over the watch.
#[tokio::test(start_paused = true)]
async fn what_is_left_out_is_told() {
    let capture = capture();
    let fake = Fake::new();
    for number in 1..=ENTRIES_MAX {
        register(&fake, &format!("orders/{number}"), &["shop.Orders"]);
    }
    let directory = follow(&fake);
    is(&directory, "shop.Orders", Ok("orders")).await;
    settle().await;
    for number in 1..=3 {
        register(&fake, &format!("stock/{number}"), &["shop.Stock"]);
    }
    settle().await;
    assert_eq!(Err(Unfound::Unregistered), directory.find("shop.Stock"));
    let lines = capture.lines();
    let told = lines
        .iter()
        .filter(|it| it.message().contains("the registry cannot be read"));
    assert_eq!(1, told.count());
}

/// Goal: an outage is told once, and its end.
/// Method: an etcd that answers nothing for an hour, then all.
#[tokio::test(start_paused = true)]
async fn an_outage_is_told_once() {
    let capture = capture();
    let fake = Fake::new();
    fake.faults(|faults| faults.unanswered.extend([Kind::Range]));
    let directory = follow(&fake);
    time::sleep(Duration::from_hours(1)).await;
    fake.faults(|faults| faults.unanswered.clear());
    register(&fake, "orders/10.0.0.1:1", &["shop.Orders"]);
    is(&directory, "shop.Orders", Ok("orders")).await;
    assert!(fake.asked(Kind::Range) > 100);
    for told in ["the registry cannot be read", "the registry answers again"] {
        let lines = capture.lines();
        let lines = lines.iter().filter(|it| it.message().contains(told));
        assert_eq!(1, lines.count(), "{told}");
    }
}

/// Goal: a service that two names serve is found under the one that had it first, or the lesser of
/// both where they came together, and under the other at once when that goes; the conflict is told
/// once.
/// Method: register it under both, and instances of both come; take the one away, and let it return.
#[tokio::test(start_paused = true)]
async fn a_service_under_two_names_keeps_the_one_it_has() {
    let capture = capture();
    let conflicts = || {
        let lines = capture.lines();
        let told = lines.iter().filter(|it| it.message().contains("two names"));
        told.count()
    };
    let fake = Fake::new();
    register(&fake, "orders/10.0.0.1:2", &["shop.Orders"]);
    register(&fake, "orders-next/10.0.0.1:1", &["shop.Orders"]);
    let directory = follow(&fake);
    is(&directory, "shop.Orders", Ok("orders")).await;
    settle().await;
    fake.delete("orders/10.0.0.1:2");
    let took = is(&directory, "shop.Orders", Ok("orders-next")).await;
    assert!(took < 5 * MS, "{took:?}");
    assert_eq!(1, conflicts());

    for key in [
        "a/10.0.0.1:3",
        "orders/10.0.0.1:2",
        "orders-next/10.0.0.1:4",
    ] {
        register(&fake, key, &["shop.Orders"]);
        settle().await;
        assert_eq!(Ok(Arc::from("orders-next")), directory.find("shop.Orders"));
    }
    fake.delete("orders-next/10.0.0.1:1");
    settle().await;
    assert_eq!(Ok(Arc::from("orders-next")), directory.find("shop.Orders"));
    assert_eq!(2, conflicts());
    fake.delete("orders-next/10.0.0.1:4");
    is(&directory, "shop.Orders", Ok("a")).await;
}

/// Goal: a service whose name was lost by the registry does not go over to another at once.
/// Method: restart it empty; another name registers the service, and the first one comes again, or
/// does not.
#[tokio::test(start_paused = true)]
async fn a_lost_name_is_waited_for() {
    for returns in [true, false] {
        let fake = Fake::new();
        register(&fake, "orders/10.0.0.1:1", &["shop.Orders"]);
        let directory = follow(&fake);
        is(&directory, "shop.Orders", Ok("orders")).await;
        settle().await;
        fake.restart_empty();
        register(&fake, "a/10.0.0.1:3", &["shop.Orders"]);
        time::sleep(Duration::from_secs(20)).await;
        assert_eq!(Ok(Arc::from("orders")), directory.find("shop.Orders"));
        if returns {
            register(&fake, "orders/10.0.0.1:1", &["shop.Orders"]);
        }
        time::sleep(Duration::from_mins(1)).await;
        let expected = if returns { "orders" } else { "a" };
        assert_eq!(Ok(Arc::from(expected)), directory.find("shop.Orders"));
    }
}
