//! Instances that die and stand still, on real etcd.

use std::time::Duration;

use gantry_harness::{
    load::{Void, valid},
    tools, wait,
};
use rustix::process::Signal;
use tokio::time::Instant;

use super::fleet::{self, Fleet};

/// How much longer than its lease an entry may stay.
const SLACK: Duration = Duration::from_secs(2);

/// Goal: whoever dies costs the calls it held and no others, and is gone from the registry with
/// its lease.
/// Method: kill -9 one of three under load; the seconds of failures, and the key.
#[tokio::test(flavor = "multi_thread")]
async fn one_that_dies_is_left_at_once() {
    valid(one_that_dies_is_left_at_once_once).await;
}

async fn one_that_dies_is_left_at_once_once() -> Result<(), Void> {
    let Some(mut fleet) = Fleet::start().await else {
        return Ok(());
    };
    let seconds = 6 + fleet::ttl().as_secs();
    let load = fleet.load(seconds);
    let victim = fleet.probes.remove(0);
    let (killed, second) = (Instant::now(), load.second());
    victim.signal(Signal::KILL);

    let key = fleet::key(&victim);
    wait::until("the key to go", fleet::ttl() + SLACK, async || {
        (!fleet.keys().contains(&key)).then_some(())
    })
    .await;
    assert!(killed.elapsed() <= fleet::ttl() + SLACK + Duration::from_secs(1));
    let report = load.finish().await?;
    let failures = report.failures();
    // The calls of the second in which it died, and of the one after.
    let late: Vec<_> = failures.keys().filter(|it| **it > second + 1).collect();
    assert!(late.is_empty(), "{failures:?}: {}", report.errors());
    let share = report.share(victim.address, second + 2, seconds);
    assert!(share < f64::EPSILON, "{share}");
    Ok(())
}

/// Goal: one that stands still for less than its lease gets hardly a call from the second second
/// on, and is used again.
/// Method: freeze one of three for five seconds under load; its share of the calls.
#[tokio::test(flavor = "multi_thread")]
async fn one_that_stands_still_gets_hardly_a_call() {
    valid(one_that_stands_still_gets_hardly_a_call_once).await;
}

async fn one_that_stands_still_gets_hardly_a_call_once() -> Result<(), Void> {
    let Some(fleet) = Fleet::start().await else {
        return Ok(());
    };
    let load = fleet.load(10);
    let victim = &fleet.probes[0];
    let second = load.second();
    victim.signal(Signal::STOP);
    tokio::time::sleep(Duration::from_secs(5)).await;
    victim.signal(Signal::CONT);
    let report = load.finish().await?;
    let share = report.share(victim.address, second + 2, second + 5);
    assert!(share < 0.02, "{share}");
    Ok(())
}

/// Goal: one that stands still for longer than its lease leaves the registry, and is back soon
/// after it goes on.
/// Method: freeze one of three; the key goes, and comes within three seconds of SIGCONT.
#[tokio::test(flavor = "multi_thread")]
async fn one_that_stood_still_registers_again() {
    valid(one_that_stood_still_registers_again_once).await;
}

async fn one_that_stood_still_registers_again_once() -> Result<(), Void> {
    let Some(fleet) = Fleet::start().await else {
        return Ok(());
    };
    let stands = if tools::timed() { 30 } else { 6 };
    let load = fleet.load(stands + 6);
    let victim = &fleet.probes[0];
    let (key, second) = (fleet::key(victim), load.second());
    let frozen = Instant::now();
    victim.signal(Signal::STOP);
    wait::until("the key to go", fleet::ttl() + SLACK, async || {
        (!fleet.keys().contains(&key)).then_some(())
    })
    .await;
    tokio::time::sleep_until(frozen + Duration::from_secs(stands)).await;
    victim.signal(Signal::CONT);
    fleet.registered(3, Duration::from_secs(3)).await;
    let report = load.finish().await?;
    let failures = report.failures();
    let late: Vec<_> = failures.keys().filter(|it| **it > second + 2).collect();
    assert!(late.is_empty(), "{failures:?}: {}", report.errors());
    Ok(())
}
