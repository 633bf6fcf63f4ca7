use std::{net::SocketAddr, time::Duration};

use tokio::{
    sync::watch,
    time::{self, Instant},
};

use super::{
    fake::{Fake, Kind, put_at},
    settle, until,
};
use crate::{
    discovery::{
        Layout, Resolution, Resolve,
        etcd::{Resolver, pages::ENTRIES_MAX},
    },
    journal::{self, Journal},
    shutdown::Tasks,
    testing::telemetry::capture,
};

fn resolver(fake: &Fake, journal: &Journal) -> Resolver {
    let tasks = Tasks::new(journal.clone());
    Resolver::new(fake.etcd(), Layout::Etcd, None, tasks, journal.clone())
}

fn value(port: u16) -> String {
    format!(r#"{{"Op":0,"Addr":"10.0.0.1:{port}"}}"#)
}

fn key(port: u16) -> String {
    format!("orders/10.0.0.1:{port}")
}

fn register(fake: &Fake, port: u16) {
    fake.put(&key(port), &value(port));
}

/// Ports, and whether each is held.
fn ports(resolution: &watch::Receiver<Resolution>) -> Vec<(u16, bool)> {
    let resolution = resolution.borrow();
    let endpoints = resolution.endpoints.iter();
    endpoints
        .map(|it| (SocketAddr::port(&it.addr), it.attributes.held))
        .collect()
}

async fn becomes(resolution: &watch::Receiver<Resolution>, expected: &[(u16, bool)]) {
    let what = format!("{expected:?}");
    until(&what, || (ports(resolution) == expected).then_some(())).await;
}

/// Goal: a value of bad form costs its own endpoint alone, and is told once for as long as it is
/// there, however often it is listed or written.
/// Method: one bad value among good ones; list again, write it again, mend it, spoil it.
#[tokio::test(start_paused = true)]
async fn a_bad_value_is_passed_over_and_told_once() {
    let capture = capture();
    let warnings = || {
        let lines = capture.lines();
        let told = "a value in the registry is passed over";
        lines.iter().filter(|line| line.message() == told).count()
    };
    let fake = Fake::new();
    register(&fake, 1);
    register(&fake, 2);
    fake.put(&key(9), r#"{"Op":0,"Addr":"nobody"}"#);
    let resolution = resolver(&fake, &Journal::new()).resolve("orders");
    becomes(&resolution, &[(1, false), (2, false)]).await;
    settle().await;
    assert_eq!(1, warnings());

    for round in 0..3 {
        fake.compact();
        let listed = 2 + round;
        until("a list", || {
            (fake.asked(Kind::Range) == listed).then_some(())
        })
        .await;
        settle().await;
        fake.put(&key(9), "not even JSON");
        settle().await;
    }
    register(&fake, 3);
    becomes(&resolution, &[(1, false), (2, false), (3, false)]).await;
    assert_eq!(1, warnings());

    register(&fake, 9);
    becomes(
        &resolution,
        &[(1, false), (2, false), (3, false), (9, false)],
    )
    .await;
    fake.put(&key(9), "spoiled");
    becomes(&resolution, &[(1, false), (2, false), (3, false)]).await;
    assert_eq!(2, warnings());
}

/// Goal: thousands of values of bad form are told of in a few lines, and what is read of one name
/// is bounded, however much is written under it.
/// Method: a watch that tells of 5,000 bad values, then of more good ones than are read.
#[tokio::test(start_paused = true)]
async fn what_is_written_in_masses_is_bounded() {
    let capture = capture();
    let fake = Fake::new();
    register(&fake, 1);
    let resolution = resolver(&fake, &Journal::new()).resolve("orders");
    becomes(&resolution, &[(1, false)]).await;
    settle().await;
    let (bad, good) = (5_000, u32::try_from(ENTRIES_MAX).unwrap());
    let events: Vec<_> = (0..bad + good)
        .map(|number| {
            let host = std::net::Ipv4Addr::from_bits(0x0A01_0000 + number);
            let value = match number {
                bad_one if bad_one < bad => "bad".to_owned(),
                _ => format!(r#"{{"Op":0,"Addr":"{host}:1"}}"#),
            };
            // Messages of 5,000 events, each of a revision of its own.
            let revision = 1_000 + i64::from(number / 5_000);
            put_at(&format!("orders/{host}"), &value, revision)
        })
        .collect();
    for events in events.chunks(5_000) {
        fake.say(events.to_vec());
        settle().await;
    }
    until("the complaint", || {
        let error = resolution.borrow().error.clone();
        error.filter(|error| error.contains("more than 100000 keys under orders/"))
    })
    .await;
    let known = resolution.borrow().endpoints.len();
    assert_eq!(ENTRIES_MAX - bad as usize, known);
    let lines = capture.lines();
    let passed_over = lines
        .iter()
        .filter(|line| line.message().contains("passed over"));
    let passed_over = passed_over.count();
    assert!((4..=15).contains(&passed_over), "{passed_over}");
}

/// Goal: a registry that comes back with nothing takes no endpoint away at once; those that register
/// again are live again, the others go after a minute.
/// Method: restart it empty; let one of three register; wait.
#[tokio::test(start_paused = true)]
async fn a_registry_that_came_back_empty_holds_endpoints() {
    let journal = Journal::new();
    let fake = Fake::new();
    (1..=3).for_each(|port| register(&fake, port));
    let mut resolution = resolver(&fake, &journal).resolve("orders");
    becomes(&resolution, &[(1, false), (2, false), (3, false)]).await;

    fake.restart_empty();
    let restarted = Instant::now();
    resolution.mark_unchanged();
    let (_, mut entries) = journal.watch();
    let anew = async {
        loop {
            let entry = entries.recv().await.unwrap();
            if entry.kind == journal::Kind::Registry && entry.detail.contains("anew") {
                return entry.detail;
            }
            assert_eq!(3, ports(&resolution).len(), "nobody is dropped meanwhile");
        }
    };
    let told = time::timeout(Duration::from_secs(10), anew).await.unwrap();
    assert!(told.ends_with("3 endpoints are held"), "{told}");
    becomes(&resolution, &[(1, true), (2, true), (3, true)]).await;

    register(&fake, 2);
    becomes(&resolution, &[(2, false), (1, true), (3, true)]).await;
    becomes(&resolution, &[(2, false)]).await;
    assert_eq!(60, restarted.elapsed().as_secs());
}

/// Goal: an etcd that takes five seconds for everything has at most one request of a kind under
/// way for a name, however many ask and however much they suspect; what was known stays, and all is
/// well once it answers.
/// Method: ten readers of one name that suspect it each second, for two minutes; count at etcd.
#[tokio::test(start_paused = true)]
async fn a_slow_etcd_piles_nothing_up() {
    let fake = Fake::new();
    register(&fake, 1);
    let resolver = resolver(&fake, &Journal::new());
    let readers: Vec<_> = (0..10).map(|_| resolver.resolve("orders")).collect();
    becomes(&readers[0], &[(1, false)]).await;

    fake.faults(|faults| faults.delay = Duration::from_secs(5));
    fake.compact();
    for _ in 0..120 {
        resolver.refresh("orders");
        time::sleep(Duration::from_secs(1)).await;
        assert_eq!([(1, false)], ports(&readers[9])[..]);
    }
    let most = fake.under_way_most();
    assert!(most.values().all(|most| *most <= 1), "{most:?}");
    let lists = fake.asked(Kind::Range);
    assert!((20..=40).contains(&lists), "{lists}");
    let error = readers[0].borrow().error.clone();
    assert!(error.is_some_and(|it| it.contains("no answer from etcd within 3s")));

    fake.faults(|faults| faults.delay = Duration::ZERO);
    register(&fake, 2);
    becomes(&readers[0], &[(1, false), (2, false)]).await;
    assert_eq!(None, readers[0].borrow().error);
}
