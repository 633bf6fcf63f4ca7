//! One replica of three has a bad day, and hardly anybody who calls them notices.

use std::net::SocketAddr;

use gantry_harness::{
    load::{Load, RATE, Report, Void, valid},
    system::{Instance, System},
    tools,
};
use rustix::process::{Pid, Signal};
use tokio::time::{self, Duration};

use crate::support::say;

/// Idempotent, and answered from the store once it was paid.
const CHARGE: &str = "shop.payments.v1.PaymentsService/Charge";
const REQUEST: &str =
    r#"{"paymentId":"one-of-three","amount":{"minorUnits":"100","currencyCode":"EUR"}}"#;

/// The load runs for so long before anything happens.
const BEFORE: u64 = 3;

/// How long after it happened calls may still fail.
const REACTION: u64 = 2;

/// How long the replica's day is bad, in seconds.
fn bad() -> u64 {
    if tools::timed() { 60 } else { 6 }
}

/// How long the load goes on after that; where it is long enough, an endpoint that was ejected is back
/// in the second half of it.
fn after() -> u64 {
    if tools::timed() { 80 } else { 2 }
}

/// Three replicas of payments in a shop.
struct Shop {
    system: System,
    victim: Instance,
}

impl Shop {
    fn open() -> Self {
        let system = System::up(&["--replicas", "payments=3"]);
        let paid = system.gantry(&["call", "payments", CHARGE, REQUEST]);
        assert!(paid.status.success(), "{paid:?}");
        let instances = system.instances().into_iter();
        let mut payments = instances.filter(|it| it.name == "payments");
        let victim = payments.next().expect("three of payments");
        Self { system, victim }
    }

    fn load(&self) -> Load {
        let seconds = BEFORE + bad() + after();
        let retry = ["--retry", "UNAVAILABLE,INTERNAL"];
        let etcd = self.system.etcd();
        Load::start_with(
            &retry,
            "etcd:///payments",
            &etcd,
            [CHARGE, REQUEST],
            seconds,
        )
    }

    /// Has calls to the victim meet a fault until it is switched off.
    fn fault(&self, arguments: &[&str]) {
        let mut all = vec!["fault", self.victim.instance.as_str()];
        all.extend(arguments);
        let done = self.system.gantry(&all);
        assert!(done.status.success(), "{done:?}");
    }

    fn signal(&self, signal: Signal) {
        let id = self.victim.pid.expect("it runs");
        let id = i32::try_from(id).ok().and_then(Pid::from_raw);
        let id = id.expect("an id of a process");
        rustix::process::kill_process(id, signal).expect("signal it");
    }

    fn address(&self) -> SocketAddr {
        self.victim.address.parse().expect("an address")
    }

    /// Calls that replicas began to serve, as far as they tell.
    async fn served(&self) -> f64 {
        let mut all = 0.0;
        for instance in self.system.instances() {
            if instance.name == "payments" {
                let side = instance.side_address.parse().expect("an address");
                all += served_by(side).await;
            }
        }
        all
    }
}

async fn served_by(side: SocketAddr) -> f64 {
    let metrics = gantry_harness::process::get(side, "/metrics").await;
    let metrics = metrics.unwrap_or_default();
    let line = format!("grpc_server_call_started_total{{grpc_method=\"{CHARGE}\"}} ");
    let counts = metrics.lines().filter_map(|it| it.strip_prefix(&line));
    counts.filter_map(|count| count.parse::<f64>().ok()).sum()
}

/// What a run is compared with that nothing happens in; none where times are not looked at.
async fn undisturbed(shop: &Shop) -> Result<Option<Duration>, Void> {
    if !tools::timed() {
        return Ok(None);
    }
    let report = shop.load().finish().await?;
    report.all_ok();
    Ok(Some(report.p99()))
}

/// Hardly a call fails once callers have noticed, and the replica has a share again in the end.
fn judge(report: &Report, second: u64, victim: SocketAddr) {
    let failures = report.failures();
    let late = failures
        .iter()
        .filter(|(at, _)| **at > second + REACTION)
        .map(|(_, count)| count);
    let late: u64 = late.sum();
    // Of those made while it is bad, after that; a short run has too few for a thousandth.
    let calls = if tools::timed() {
        u64::from(RATE) * (bad() - REACTION)
    } else {
        report.calls()
    };
    assert!(
        late * 1_000 <= calls,
        "{failures:?} of {calls}: {}",
        report.errors()
    );
    if !tools::timed() {
        return;
    }
    let end = BEFORE + bad() + after();
    let share = report.share(victim, end - after() / 2, end);
    say(&format!(
        "{late} of {calls} failed, {share:.2} to it in the end"
    ));
    assert!(share > 0.02, "it has {share} of the calls in the end");
}

/// A day in the life of one replica: `begins` makes it bad, `ends` good again. It `forgets` what it
/// served where another process takes its place.
async fn day(begins: impl Fn(&Shop), ends: impl Fn(&Shop), forgets: bool) -> Result<(), Void> {
    let shop = Shop::open();
    let usual = undisturbed(&shop).await?;
    let before = shop.served().await;
    let load = shop.load();
    time::sleep(Duration::from_secs(BEFORE - 1)).await;
    let second = load.second();
    let side = shop.victim.side_address.parse().expect("an address");
    let forgotten = if forgets { served_by(side).await } else { 0.0 };
    begins(&shop);
    time::sleep(Duration::from_secs(bad())).await;
    ends(&shop);
    let report = load.finish().await?;
    judge(&report, second, shop.address());
    if let Some(usual) = usual {
        let p99 = report.p99();
        say(&format!("p99 {p99:?}, undisturbed {usual:?}"));
        assert!(p99 <= 2 * usual, "p99 {p99:?}, undisturbed {usual:?}");
    }
    let attempts = shop.served().await + forgotten - before;
    #[allow(clippy::cast_precision_loss)]
    let calls = report.calls() as f64;
    say(&format!("{attempts} attempts for {calls} calls"));
    assert!(attempts <= 1.25 * calls, "{attempts} for {calls} calls");
    Ok(())
}

const OFF: fn(&Shop) = |shop| shop.fault(&["--off"]);

/// Goal: a replica that is UNAVAILABLE costs no call, hardly a try, and is used again after it.
/// Method: all its answers for a while, under load of a client that retries.
#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_unavailable_is_not_noticed() {
    valid(async || day(|shop| shop.fault(&["--fail", "100"]), OFF, false).await).await;
}

/// Goal: a replica that fails half of its calls costs none where the policy tries INTERNAL again, as
/// that of the shop does.
/// Method: as before; what `gantry explain` says of orders.
#[tokio::test(flavor = "multi_thread")]
async fn one_that_fails_half_is_not_noticed() {
    let begins = |shop: &Shop| {
        let policy = shop.system.gantry(&["explain", "orders", CHARGE]);
        let policy = String::from_utf8_lossy(&policy.stdout).into_owned();
        let mut lines = policy.lines();
        let tried = |it: &str| it.contains("retry.codes") && it.contains("INTERNAL");
        assert!(lines.any(tried), "{policy}");
        shop.fault(&["--fail", "50", "--code", "INTERNAL"]);
    };
    valid(async || day(begins, OFF, false).await).await;
}

/// Goal: a replica that is slow costs no call.
/// Method: its answers come 50 ms late.
#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_slow_is_not_noticed() {
    valid(async || day(|shop| shop.fault(&["--delay", "50ms"]), OFF, false).await).await;
}

/// Goal: a replica that stands still costs the calls it holds and no more.
/// Method: SIGSTOP, and SIGCONT after a while.
#[tokio::test(flavor = "multi_thread")]
async fn one_that_stands_still_is_hardly_noticed() {
    let stops = |shop: &Shop| shop.signal(Signal::STOP);
    let goes_on = |shop: &Shop| shop.signal(Signal::CONT);
    valid(async || day(stops, goes_on, false).await).await;
}

/// Goal: a replica that is killed costs the calls it holds and no more, and its successor is used.
/// Method: SIGKILL; `gantry up` starts it again at its address.
#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_killed_is_hardly_noticed() {
    valid(async || day(|shop| shop.signal(Signal::KILL), |_| {}, true).await).await;
}
