//! An etcd that goes, comes back, forgets, compacts and dawdles.

use std::time::Duration;

use gantry_harness::{
    etcd::{self, Data, Etcd, Version},
    load::{Load, Void, valid},
    slow::Slow,
    tools,
    wait::{self, SOON},
};
use gantry_probe::{WaitRequest, probe_service_client::ProbeServiceClient};
use rustix::process::Signal;

use super::fleet::{self, Fleet, Watcher, registers, registration, replica};
use crate::support::channel;

/// How long everybody has to be registered again after etcd came back with nothing.
const AGAIN: Duration = Duration::from_secs(15);
/// How long one has after its key or lease was taken.
const SOON_AGAIN: Duration = Duration::from_secs(3);

/// Goal: an etcd that is away costs no call; back with its data it changes nothing, back with
/// nothing it is filled again and no endpoint is dropped meanwhile.
/// Method: kill it under load, twice; a client that watches, the load's report, the keys.
#[tokio::test(flavor = "multi_thread")]
async fn an_etcd_that_goes_takes_nothing_with_it() {
    valid(an_etcd_that_goes_takes_nothing_with_it_once).await;
}

async fn an_etcd_that_goes_takes_nothing_with_it_once() -> Result<(), Void> {
    let Some(mut fleet) = Fleet::start().await else {
        return Ok(());
    };
    let away = Duration::from_secs(if tools::timed() { 120 } else { 6 });
    let watcher = Watcher::start(&fleet.etcd.url(), 3).await;
    let load = fleet.load(away.as_secs() + 30);

    fleet.etcd.kill();
    tokio::time::sleep(away).await;
    assert_eq!(3, watcher.endpoints().len(), "the last good list stays");
    fleet.etcd.restart(Data::Kept).await;
    for probe in &fleet.probes {
        registers(probe, 1, AGAIN).await;
    }
    assert_eq!(3, watcher.endpoints().len());

    fleet.etcd.kill();
    let all_there = || assert_eq!(3, watcher.endpoints().len(), "dropped meanwhile");
    fleet.etcd.restart(Data::Lost).await;
    wait::until("everybody to be registered again", AGAIN, async || {
        all_there();
        (fleet.keys().len() == 3).then_some(())
    })
    .await;
    all_there();
    load.finish().await?.all_ok();
    Ok(())
}

/// Goal: a lease that is revoked and a key that is deleted are made again.
/// Method: take each from one probe, by etcdctl; the registration and the load.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_taken_is_made_again() {
    valid(what_is_taken_is_made_again_once).await;
}

async fn what_is_taken_is_made_again_once() -> Result<(), Void> {
    let Some(fleet) = Fleet::start().await else {
        return Ok(());
    };
    let load = fleet.load(8);
    let victim = &fleet.probes[0];
    let before = registration(victim).await;
    let lease = format!("{:x}", before.lease_id);
    assert!(
        fleet
            .etcd
            .ctl(&["lease", "revoke", &lease])
            .status
            .success()
    );
    registers(victim, before.made + 1, SOON_AGAIN).await;
    fleet.registered(3, SOON_AGAIN).await;

    let key = fleet::key(victim);
    assert!(fleet.etcd.ctl(&["del", &key]).status.success());
    registers(victim, before.made + 2, SOON_AGAIN).await;
    fleet.registered(3, SOON_AGAIN).await;
    load.finish().await?.all_ok();
    Ok(())
}

/// Goal: a watcher whose place in history is compacted away while it stands still recovers.
/// Method: freeze a process that calls by name; change and compact; let it go on.
#[tokio::test(flavor = "multi_thread")]
async fn a_compacted_watcher_recovers() {
    let Some(mut fleet) = Fleet::start().await else {
        return;
    };
    let caller = caller(&fleet.etcd.url()).start().await;
    call(&caller).await;
    caller.signal(Signal::STOP);
    let gone = fleet.probes.remove(0);
    gone.signal(Signal::TERM);
    fleet.registered(2, SOON).await;
    fleet.probes.push(replica(&fleet.etcd.url()).start().await);
    for _ in 0..20 {
        assert!(fleet.etcd.ctl(&["put", "elsewhere", "x"]).status.success());
    }
    let status = fleet.etcd.ctl(&["endpoint", "status", "-w", "json"]);
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).expect("JSON");
    let revision = status[0]["Status"]["header"]["revision"].to_string();
    let compacted = fleet.etcd.ctl(&["compact", "--physical", &revision]);
    assert!(compacted.status.success(), "{compacted:?}");
    caller.signal(Signal::CONT);

    let fresh = fleet.probes.last().expect("just added").address.to_string();
    wait::until("the new endpoint to be known", SOON, async || {
        endpoints(&caller).await.contains(&fresh).then_some(())
    })
    .await;
    call(&caller).await;
}

/// Goal: an etcd that takes five seconds for everything, pings and connections included, piles
/// nothing up, costs no call, loses no connection and no registration, and registers whoever begins;
/// one that takes ten piles up nothing either, and is used again once it is faster.
/// Method: a proxy with that delay between etcd and who registers, who begins, and who only watches;
/// what is in flight, calls, connections and the key.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_etcd_piles_nothing_up() {
    let Some(fleet) = Fleet::start().await else {
        return;
    };
    let slow = Slow::to(fleet.etcd.address).await;
    let url = format!("http://{}", slow.address);
    // One that bears such answers, also where others of a test have less.
    let caller = caller(&url).set("REGISTRATION__TTL", "10s").start().await;
    call(&caller).await;
    let before = registration(&caller).await;
    let watcher = Watcher::start(&url, 3).await;
    let connections = slow.accepted();

    slow.delay(Duration::from_secs(5));
    let late = replica(&url).set("REGISTRATION__NAME", "late");
    let late = late.set("REGISTRATION__TTL", "10s").spawn();
    let key = [format!("front/{}", caller.address)];
    // Long enough for a ping to be missed, and for a lease to run out after that.
    for _ in 0..if tools::timed() { 60 } else { 26 } {
        calm(&caller).await;
        assert_eq!(Some(&key[..]), fleet.etcd.keys("front/").as_deref());
    }
    registers(&late, 1, SOON).await;
    let now = registration(&caller).await;
    assert_eq!((before.made, before.lease_id), (now.made, now.lease_id));
    assert_eq!(3, watcher.endpoints().len());
    assert_eq!(1, slow.accepted() - connections, "but for who began");

    slow.delay(Duration::from_secs(10));
    let rounds = if tools::timed() { 30 } else { 12 };
    for _ in 0..rounds {
        calm(&caller).await;
    }
    let further = slow.accepted() - connections;
    assert!(further <= 3 * rounds, "{further} connections in {rounds} s");
    slow.delay(Duration::ZERO);
    registers(&caller, 1, AGAIN).await;
}

/// A second in which one calls, and little waits for etcd.
async fn calm(caller: &gantry_harness::process::Service) {
    tokio::time::sleep(Duration::from_secs(1)).await;
    call(caller).await;
    let waiting = in_flight(caller).await;
    assert!(waiting <= 8, "{waiting} requests wait for etcd");
}

/// Goal: a service that starts while etcd is down serves, is not ready, calls whom it knew last,
/// and registers when etcd comes.
/// Method: let it write its snapshot, take etcd away, start it again.
#[tokio::test(flavor = "multi_thread")]
async fn a_start_without_etcd_uses_what_was_known() {
    let Some(mut fleet) = Fleet::start().await else {
        return;
    };
    let names = tempfile::tempdir().expect("a folder");
    let snapshots = names.path().display().to_string();
    let mut first = caller(&fleet.etcd.url())
        .set("ETCD__SNAPSHOTS", &snapshots)
        .start()
        .await;
    call(&first).await;
    let file = names.path().join("etcd-probe.json");
    wait::until("the snapshot", SOON, async || {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        let all = fleet
            .probes
            .iter()
            .all(|it| text.contains(&it.address.to_string()));
        all.then_some(())
    })
    .await;
    first.signal(Signal::TERM);
    first.ended(SOON).await;
    fleet.etcd.kill();

    let mut second = caller(&fleet.etcd.url())
        .set("ETCD__SNAPSHOTS", &snapshots)
        .spawn();
    wait::until("a call through what was known", SOON, async || {
        let mut client = ProbeServiceClient::new(channel(&[second.address]));
        client.wait(one_hop()).await.ok().map(drop)
    })
    .await;
    let ready = second.get("/readyz").await.expect("the side port answers");
    assert!(ready.starts_with("HTTP/1.1 503"), "{ready}");
    assert!(ready.contains("\"registration\""), "{ready}");

    fleet.etcd.restart(Data::Kept).await;
    second.ready().await;
    assert!(etcd::keys(&fleet.etcd.url(), "front/").is_some_and(|keys| keys.len() == 1));
}

/// Goal: a cluster that loses its leader loses nobody, while others come and go.
/// Method: three members; kill the leader under load and churn, then look at everybody's keys.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_leader_loses_nobody() {
    valid(a_lost_leader_loses_nobody_once).await;
}

async fn a_lost_leader_loses_nobody_once() -> Result<(), Void> {
    let Some(mut members) = Etcd::cluster(Version::V36, 3).await else {
        return Ok(());
    };
    let urls: Vec<_> = members.iter().map(Etcd::url).collect();
    let urls = urls.join(",");
    let mut probes = Vec::new();
    for _ in 0..3 {
        probes.push(replica(&urls).start().await);
    }
    let load = Load::start("etcd:///probe", &urls, fleet::WAIT, 20);
    let leader = wait::until("a leader", SOON, async || leader(&members)).await;
    members[leader].kill();
    let mut churn = Vec::new();
    for _ in 0..3 {
        let mut going = probes.remove(0);
        probes.push(replica(&urls).spawn());
        probes.last_mut().expect("just added").ready().await;
        going.signal(Signal::TERM);
        going.ended(SOON).await;
        churn.push(going);
    }
    let left = (leader + 1) % members.len();
    wait::until("everybody to be registered", AGAIN, async || {
        let keys = etcd::keys(&members[left].url(), "probe/")?;
        let mine: Vec<_> = probes.iter().map(fleet::key).collect();
        mine.iter().all(|key| keys.contains(key)).then_some(())
    })
    .await;
    load.finish().await?.all_ok();
    Ok(())
}

/// Which member leads.
fn leader(members: &[Etcd]) -> Option<usize> {
    members.iter().position(|member| {
        let status = member.ctl(&["endpoint", "status", "-w", "json"]);
        let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap_or_default();
        let status = &status[0]["Status"];
        status["leader"].is_u64() && status["leader"] == status["header"]["member_id"]
    })
}

/// A probe that hands calls with hops on to whoever is `probe` in the registry, and is `front`
/// there itself.
pub(super) fn caller(url: &str) -> gantry_harness::process::Builder {
    replica(url)
        .set("REGISTRATION__NAME", "front")
        .set("CLIENTS__NEXT__TARGET", "etcd:///probe")
}

fn one_hop() -> WaitRequest {
    WaitRequest {
        millis: 0,
        hops: 1,
        spawned: false,
    }
}

/// Calls through a caller; such a call must not fail.
pub(super) async fn call(caller: &gantry_harness::process::Service) {
    let mut client = ProbeServiceClient::new(channel(&[caller.address]));
    client
        .wait(one_hop())
        .await
        .expect("whom it calls is there");
}

/// The addresses a process knows for `next`.
async fn endpoints(service: &gantry_harness::process::Service) -> Vec<String> {
    let all = list(service).await;
    let next = all.into_iter().filter(|it| it.client == "next");
    next.map(|it| it.address).collect()
}

/// Requests that wait for etcd.
async fn in_flight(service: &gantry_harness::process::Service) -> u64 {
    let all = list(service).await;
    let etcd = all.into_iter().filter(|it| it.client == "etcd");
    etcd.map(|it| it.calls_in_flight).sum()
}

async fn list(service: &gantry_harness::process::Service) -> Vec<gantry_api::admin::v1::Endpoint> {
    use gantry_api::admin::v1::{ListEndpointsRequest, admin_service_client::AdminServiceClient};
    let mut admin = AdminServiceClient::new(channel(&[service.side_address]));
    let answer = admin.list_endpoints(ListEndpointsRequest::default()).await;
    answer
        .expect("the side port answers")
        .into_inner()
        .endpoints
}
