//! Endpoints that fail more than others, and what becomes of them.

use super::*;
use crate::{balance::Reason, breaker::Mode, testing::telemetry::capture_lines};

/// That is what ejections are beside.
fn without_breaker(config: &mut Config) {
    config.throttle.enabled = false;
    config.balance.breaker.state = Mode::Disabled;
}

fn ejected(caller: &Caller) -> usize {
    let endpoints = caller.endpoints().into_iter();
    endpoints.filter(|it| it.ejected.is_some()).count()
}

/// Goal: an endpoint that fails its calls gets none for half a minute, however well it does by then,
/// and comes to its share after that.
/// Method: one of four fails its part of 200 calls; it is well before the look at ten seconds, calls
/// go on for a minute. A trial would reach it after fifteen seconds.
#[tokio::test(start_paused = true)]
async fn one_that_fails_its_calls_is_ejected_for_a_while() {
    fastrand::seed(42);
    let (peers, caller) = peers::<4>(without_breaker).await;
    peers[3].fail(true);
    let failed = burst(&caller, 200).await;
    assert!((30..70).contains(&failed), "{failed}");
    peers[3].fail(false);
    assert_eq!(0, ejected(&caller));

    time::sleep(11 * SECOND).await;
    let endpoints = caller.endpoints();
    let out = endpoints.iter().find(|it| it.addr == addr(4)).unwrap();
    let ejection = out.ejected.expect("it is ejected");
    assert_eq!(Reason::FailurePercentage, ejection.reason);
    assert_eq!(1, ejected(&caller));
    let left = ejection.until - Instant::now();
    assert!(left > 28 * SECOND && left < 33 * SECOND, "{left:?}");

    let before = peers[3].handled_count();
    time::sleep_until(ejection.until - 5 * SECOND).await;
    load(&caller, 2, ejection.until - MS).await;
    assert_eq!(before, peers[3].handled_count());
    load(&caller, 2, ejection.until + SECOND).await;
    assert_eq!(0, ejected(&caller));
    let endpoints = caller.endpoints();
    let out = endpoints.iter().find(|it| it.addr == addr(4)).unwrap();
    assert!(out.weight < 0.2, "it begins slowly: {}", out.weight);
    time::sleep_until(ejection.until + 31 * SECOND).await;
    load(&caller, 2, Instant::now() + SECOND).await;
    let before = peers.each_ref().map(Peer::handled_count);
    load(&caller, 2, Instant::now() + 5 * SECOND).await;
    let shares = [0, 1, 2, 3].map(|peer| peers[peer].handled_count() - before[peer]);
    assert!(shares[3] * 6 > shares.iter().sum(), "{shares:?}");

    let told = told(&caller, Kind::Ejection);
    assert_eq!(2, told.len(), "{told:?}");
    assert!(told[0].contains("100 % of its calls failed"), "{told:?}");
    assert_eq!("over", told[1]);
    caller.stop().await;
}

/// Goal: while half of the endpoints can take calls, only those do; where fewer can, all that are
/// connected do.
/// Method: the reference's ten, of which five fail, then six; all may be ejected, for an hour. They
/// are well before the calls that count.
#[tokio::test(start_paused = true)]
#[allow(clippy::cast_precision_loss, clippy::float_cmp)]
async fn where_few_are_left_all_are_called() {
    for (failing, called) in [(5, 5), (6, 10)] {
        fastrand::seed(42);
        let capture = capture_lines("error".parse().unwrap());
        let (peers, caller) = peers::<10>(|config| {
            without_breaker(config);
            let outlier = &mut config.balance.outlier;
            outlier.ejected_max_percent = 100;
            outlier.ejection_min = 3_600 * SECOND;
            outlier.ejection_max = 3_600 * SECOND;
            // So that only what the calls are counted for makes a difference.
            config.balance.slow_start.window = Duration::ZERO;
        })
        .await;
        peers[..failing].iter().for_each(|peer| peer.fail(true));
        burst(&caller, 500).await;
        for peer in &peers {
            peer.fail(false);
        }
        // So long that even one that failed is worth a trial.
        time::sleep(16 * SECOND).await;
        assert_eq!(failing, ejected(&caller));

        let before = peers.each_ref().map(Peer::handled_count);
        load(&caller, 10, Instant::now() + 5 * SECOND).await;
        let reached = peers
            .iter()
            .zip(before)
            .filter(|(peer, before)| peer.handled_count() > *before);
        assert_eq!(called, reached.count(), "{failing} failed");
        let panic = told(&caller, Kind::Panic);
        let expected = ["4 of 10 endpoints are available"];
        assert_eq!(&expected[..usize::from(failing == 6)], panic, "{failing}");
        let value = |name| capture.value(name, &[("server_address", "peer")]).unwrap();
        assert_eq!(failing as f64, value("gantry_endpoints_ejected"));
        assert_eq!(
            f64::from(u8::from(failing == 6)),
            value("gantry_balancer_panic")
        );
        let picks = value("gantry_balancer_panic_picks_total");
        assert_eq!(failing == 6, picks > 1_000.0, "{picks}");
        let reason = [("reason", Reason::FailurePercentage.as_str())];
        let ejections = capture.value("gantry_endpoint_ejections_total", &reason);
        assert_eq!(Some(failing as f64), ejections);
        caller.stop().await;
    }
}

/// Goal: one that leaves the list while it is ejected is no longer counted, and is as long out when
/// it comes back as if it had stayed.
/// Method: one of four, out for 30 s, leaves for five seconds and comes back.
#[tokio::test(start_paused = true)]
async fn an_ejection_is_not_left_by_leaving() {
    fastrand::seed(42);
    let capture = capture_lines("error".parse().unwrap());
    let counted = || {
        let labels = [("server_address", "peer")];
        capture.value("gantry_endpoints_ejected", &labels)
    };
    let net = Net::default();
    let manners = Manners {
        latency: 10 * MS,
        ..Manners::default()
    };
    let peers = [1, 2, 3, 4].map(|number| Peer::start(&net, addr(number), manners));
    let names = Memory::new();
    names.set("shop", (1..=4).map(addr));
    let caller = Caller::resolving(&net, Arc::new(names.clone()), without_breaker);
    for number in 1..=4 {
        caller.until(addr(number), Connectivity::Ready).await;
    }
    peers[3].fail(true);
    burst(&caller, 200).await;
    time::sleep(11 * SECOND).await;
    let until = |caller: &Caller| {
        let mut endpoints = caller.endpoints().into_iter();
        let found = endpoints.find(|it| it.addr == addr(4));
        found.and_then(|it| it.ejected).map(|it| it.until)
    };
    let ends = until(&caller).expect("it is ejected");

    names.set("shop", (1..=3).map(addr));
    time::sleep(MS).await;
    assert_eq!(Some(0.0), counted(), "between two looks at them");
    time::sleep(5 * SECOND).await;
    assert_eq!((3, 0), (caller.endpoints().len(), ejected(&caller)));
    names.set("shop", (1..=4).map(addr));
    caller.until(addr(4), Connectivity::Ready).await;
    assert_eq!(Some(ends), until(&caller));
    assert_eq!(Some(1.0), counted());
    time::sleep_until(ends + MS).await;
    assert_eq!((None, Some(0.0)), (until(&caller), counted()));
    caller.stop().await;
}

/// Goal: of three one that fails is out while it does, and back after that.
/// Method: the reference's numbers: a look every 50 ms, out for 100 ms, a third may be, from five calls
/// on; who gets calls before, while it is out, and once it is back.
#[tokio::test(start_paused = true)]
async fn calls_go_to_three_then_to_two_then_to_three() {
    fastrand::seed(42);
    let (peers, caller) = peers::<3>(|config| {
        without_breaker(config);
        let outlier = &mut config.balance.outlier;
        outlier.interval = 50 * MS;
        outlier.ejection_min = 100 * MS;
        outlier.ejection_jitter_percent = 0;
        outlier.ejected_max_percent = 33;
        outlier.failure_calls_min = 5;
    })
    .await;
    let counts = || peers.each_ref().map(Peer::handled_count);
    let shares = async |time: Duration| {
        let before = counts();
        load(&caller, 4, Instant::now() + time).await;
        let after = counts();
        [0, 1, 2].map(|peer| after[peer] - before[peer])
    };
    let all = shares(80 * MS).await;
    assert!(all.iter().all(|share| *share > 0), "{all:?}");

    peers[2].fail(true);
    let failed = burst(&caller, 60).await;
    assert!(failed >= 5, "{failed}");
    peers[2].fail(false);
    until_ejected(&caller, 1).await;
    let two = shares(80 * MS).await;
    assert_eq!(0, two[2], "{two:?}");
    assert!(two[0] > 0 && two[1] > 0, "{two:?}");

    until_ejected(&caller, 0).await;
    // It begins slowly, and what it failed is forgotten.
    time::sleep(31 * SECOND).await;
    let three = shares(5 * SECOND).await;
    assert!(three.iter().all(|share| *share > 0), "{three:?}");
    caller.stop().await;
}

/// Waits until so many are out.
async fn until_ejected(caller: &Caller, count: usize) {
    let out = async {
        while ejected(caller) != count {
            time::sleep(MS).await;
        }
    };
    time::timeout(SECOND, out).await.unwrap();
}

/// Goal: a change of the settings counts at once, and ejects nobody where none may be.
/// Method: one of four is ejected; then none may be.
#[tokio::test(start_paused = true)]
async fn ejections_end_where_there_are_to_be_none() {
    fastrand::seed(42);
    let net = Net::default();
    let numbers = [1, 2, 3, 4];
    let peers = numbers.map(|number| Peer::start(&net, addr(number), Manners::default()));
    let mut caller = Caller::new(&net, &numbers.map(addr));
    let target = numbers.map(|number| addr(number).to_string()).join(",");
    let mut config = Config {
        health: false,
        ..Config::to(target)
    };
    without_breaker(&mut config);
    let configs = |config: &Config| BTreeMap::from([("peer".to_owned(), config.clone())]);
    let mut publisher = crate::config::Publisher::new(configs(&config));
    caller.clients = Clients::new(
        configs(&config),
        caller.tasks.clone(),
        caller.journal.clone(),
    )
    .with_connector(Arc::new(net.clone()))
    .following(publisher.live());
    for number in numbers {
        caller.until(addr(number), Connectivity::Ready).await;
    }
    peers[3].fail(true);
    burst(&caller, 200).await;
    time::sleep(11 * SECOND).await;
    assert_eq!(1, ejected(&caller));

    config.balance.outlier.ejected_max_percent = 0;
    publisher.publish(configs(&config));
    time::sleep(MS).await;
    assert_eq!(0, ejected(&caller));
    caller.stop().await;
}

/// Goal: one whose breaker opened is ejected all the same, and is out for as long as that lasts.
/// Method: one of four fails 100 calls at once; its breaker closes after a second at most.
#[tokio::test(start_paused = true)]
async fn an_open_breaker_does_not_save_from_ejection() {
    fastrand::seed(42);
    let (peers, caller) = peers::<4>(|_| {}).await;
    peers[3].fail(true);
    burst(&caller, 200).await;
    time::sleep(11 * SECOND).await;
    assert_eq!(1, ejected(&caller));
    peers[3].fail(false);
    let before = peers[3].handled_count();
    time::sleep(5 * SECOND).await;
    load(&caller, 2, Instant::now() + 5 * SECOND).await;
    assert_eq!(before, peers[3].handled_count());
    caller.stop().await;
}

/// Goal: the only endpoint that is left takes calls though it is ejected, at once, and is not counted
/// as ejected any more.
/// Method: one of two fails its calls and is ejected; the other leaves the list.
#[tokio::test(start_paused = true)]
async fn the_only_one_left_is_not_ejected() {
    fastrand::seed(42);
    let capture = capture_lines("error".parse().unwrap());
    let net = Net::default();
    let manners = Manners {
        latency: 10 * MS,
        ..Manners::default()
    };
    let peers = [1, 2].map(|number| Peer::start(&net, addr(number), manners));
    let names = Memory::new();
    names.set("shop", [addr(1), addr(2)]);
    let caller = Caller::resolving(&net, Arc::new(names.clone()), without_breaker);
    for number in 1..=2 {
        caller.until(addr(number), Connectivity::Ready).await;
    }
    peers[1].fail(true);
    burst(&caller, 200).await;
    peers[1].fail(false);
    time::sleep(11 * SECOND).await;
    let counted = || {
        let labels = [("server_address", "peer")];
        capture.value("gantry_endpoints_ejected", &labels)
    };
    assert_eq!((1, Some(1.0)), (ejected(&caller), counted()));

    names.set("shop", [addr(2)]);
    time::sleep(MS).await;
    let before = peers[1].handled_count();
    let begun = Instant::now();
    caller.check("x").await.unwrap();
    assert!(begun.elapsed() < SECOND, "{:?}", begun.elapsed());
    assert_eq!(before + 1, peers[1].handled_count());
    assert_eq!((0, Some(0.0)), (ejected(&caller), counted()));
    let told = told(&caller, Kind::Ejection);
    assert_eq!(Some("over"), told.last().map(String::as_str));
    caller.stop().await;
}
