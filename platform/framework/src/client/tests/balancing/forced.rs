//! Breakers that somebody set, by hand or by configuration, and what is seen of them.

use super::*;
use crate::{
    balance::NotSet,
    breaker::{Mode, Order, State},
    testing::telemetry::capture,
};

const OPEN: Order = Order::Mode(Mode::ForcedOpen);

fn set(caller: &Caller, number: u16, order: Order, time: Option<Duration>) {
    let until = time.map(|time| Instant::now() + time);
    let set = caller
        .clients
        .set_breakers("peer", Some(addr(number)), order, until);
    set.unwrap();
}

fn states(caller: &Caller) -> Vec<State> {
    let breakers = caller.clients.breakers().into_iter();
    breakers.map(|(_, _, breaker)| breaker.state).collect()
}

/// Failures of the second of two open its breaker, and nothing else is held against it.
fn sensitive(config: &mut Config) {
    config.throttle.enabled = false;
    config.bulkhead.calls_max = 10_000;
    config.balance.outlier.ejected_max_percent = 0;
    config.balance.breaker.pause_min = 60 * SECOND;
    config.balance.breaker.pause_jitter = 0.0;
}

/// Goal: one that somebody wants to have no calls gets none at once and for good, not even where the
/// others fail; and all that come to its share again when it is taken back.
/// Method: the second of two, by hand; then the breaker of the first opens, which is panic.
#[tokio::test(start_paused = true)]
async fn one_forced_open_gets_no_call_in_panic() {
    fastrand::seed(7);
    let (peers, caller) = peers::<2>(sensitive).await;
    set(&caller, 2, OPEN, None);
    assert_eq!([State::Closed, State::ForcedOpen], *states(&caller));
    for _ in 0..40 {
        caller.check("x").await.unwrap();
    }
    assert_eq!([40, 0], peers.each_ref().map(Peer::handled_count));

    peers[0].fail(true);
    for _ in 0..40 {
        assert_eq!(Code::Internal, code(&caller.check("x").await));
    }
    assert_eq!([80, 0], peers.each_ref().map(Peer::handled_count));
    let panic = told(&caller, Kind::Panic);
    assert_eq!(vec!["0 of 2 endpoints are available"], panic);

    set(&caller, 2, Order::Release, None);
    time::sleep(MS).await;
    assert_eq!(0, burst(&caller, 10).await);
    assert_eq!(10, peers[1].handled_count());
    assert_eq!(
        [
            "forced_open: set by hand",
            "open for 1m at most: 5 failures in a row",
            "closed: set by hand",
        ],
        *told(&caller, Kind::BreakerChanged)
    );
    caller.stop().await;
}

/// Goal: where the configuration wants no calls at all none is made, however many endpoints there are,
/// and that is no panic; calls go on when it changes its mind.
/// Method: two and twenty endpoints, of which two are connected; the setting is published anew.
#[tokio::test(start_paused = true)]
async fn a_target_forced_open_gets_no_call() {
    let net = Net::default();
    let numbers: [u16; 22] = std::array::from_fn(|index| u16::try_from(index).unwrap() + 1);
    let peers = numbers.map(|number| Peer::start(&net, addr(number), Manners::default()));
    let mut caller = Caller::new(&net, &numbers.map(addr));
    let target = numbers.map(|number| addr(number).to_string()).join(",");
    let mut config = Config {
        health: false,
        ..Config::to(target)
    };
    config.balance.breaker.state = Mode::ForcedOpen;
    config.balance.subset_size = 2;
    let configs = |config: &Config| BTreeMap::from([("peer".to_owned(), config.clone())]);
    let mut publisher = crate::config::Publisher::new(configs(&config));
    caller.clients = Clients::new(
        configs(&config),
        caller.tasks.clone(),
        caller.journal.clone(),
    )
    .with_connector(Arc::new(net.clone()))
    .following(publisher.live());
    let outcome = caller.check("x").await;
    let message = outcome.unwrap_err().message().to_owned();
    assert!(message.contains("breaker forced open"), "{message}");
    assert_eq!(2, caller.endpoints().len(), "nobody is connected in vain");
    assert!(told(&caller, Kind::Panic).is_empty());
    assert!(!caller.clients.channel("peer", &METHODS).is_ready());

    config.balance.breaker.state = Mode::Automatic;
    publisher.publish(configs(&config));
    time::sleep(MS).await;
    caller.check("x").await.unwrap();
    let handled: usize = peers.iter().map(Peer::handled_count).sum();
    assert_eq!(1, handled);
    let changes = told(&caller, Kind::BreakerChanged);
    assert_eq!(vec!["closed: set by the configuration"; 2], changes);
    caller.stop().await;
}

/// Goal: what is set for a time ends by itself; what is set for an address holds though it leaves and
/// returns, and what is set for all holds for who joins, except where one is set otherwise.
/// Method: one of two for ten seconds; a list that changes.
#[tokio::test(start_paused = true)]
async fn what_is_set_holds_for_addresses_and_for_a_time() {
    let net = Net::default();
    let peers = [1, 2, 3].map(|number| Peer::start(&net, addr(number), Manners::default()));
    let names = Memory::new();
    names.set("shop", [addr(1), addr(2)]);
    let caller = Caller::resolving(&net, Arc::new(names.clone()), |_| {});
    for number in [1, 2] {
        caller.until(addr(number), Connectivity::Ready).await;
    }
    set(&caller, 2, OPEN, Some(10 * SECOND));
    let left = || {
        let breakers = caller.clients.breakers().into_iter();
        let mut by_hand = breakers.filter_map(|(_, _, breaker)| breaker.by_hand);
        let until = by_hand.next()?.until;
        until.map(|until| until - Instant::now())
    };
    time::sleep(4 * SECOND).await;
    assert_eq!(Some(6 * SECOND), left());
    names.set("shop", [addr(1)]);
    time::sleep(SECOND).await;
    names.set("shop", [addr(1), addr(2)]);
    caller.until(addr(2), Connectivity::Ready).await;
    for _ in 0..20 {
        caller.check("x").await.unwrap();
    }
    assert_eq!([20, 0, 0], peers.each_ref().map(Peer::handled_count));
    time::sleep(5 * SECOND + MS).await;
    assert_eq!([State::Closed, State::Closed], *states(&caller));
    assert_eq!(None, left());
    let changes = told(&caller, Kind::BreakerChanged);
    let last = "closed: what was set by hand has ended";
    assert_eq!(Some(last), changes.last().map(String::as_str));

    let all = |order| caller.clients.set_breakers("peer", None, order, None);
    all(OPEN).unwrap();
    set(&caller, 1, Order::Release, None);
    names.set("shop", [addr(1), addr(3)]);
    caller.until(addr(3), Connectivity::Ready).await;
    for _ in 0..20 {
        caller.check("x").await.unwrap();
    }
    assert_eq!([40, 0, 0], peers.each_ref().map(Peer::handled_count));
    all(Order::Release).unwrap();
    assert_eq!([State::Closed, State::Closed], *states(&caller));
    let nobody = caller
        .clients
        .set_breakers("peer", Some(addr(9)), OPEN, None);
    assert_eq!(Err(NotSet::Unknown), nobody);
    let nobody = caller.clients.set_breakers("pear", None, OPEN, None);
    assert_eq!(Err(NotSet::Unknown), nobody);
    caller.stop().await;
}

/// Goal: an operator who knows better closes a breaker at once, and what it did before is forgotten.
/// Method: the breaker of the only endpoint, open for a minute; one call.
#[tokio::test(start_paused = true)]
async fn one_that_is_closed_by_hand_takes_calls() {
    let (peers, caller) = peers::<1>(sensitive).await;
    peers[0].fail(true);
    for _ in 0..5 {
        assert_eq!(Code::Internal, code(&caller.check("x").await));
    }
    peers[0].fail(false);
    let (_, _, breaker) = caller.clients.breakers().remove(0);
    assert_eq!((State::Open, 1), (breaker.state, breaker.trips));
    let begun = Instant::now();
    set(&caller, 1, Order::Close, None);
    caller.check("x").await.unwrap();
    assert!(begun.elapsed() < 20 * MS, "{:?}", begun.elapsed());
    let changes = told(&caller, Kind::BreakerChanged);
    assert_eq!(
        Some("closed: set by hand"),
        changes.last().map(String::as_str)
    );
    caller.stop().await;
}

/// Goal: metrics say how many breakers are in each state, and how often one came there.
/// Method: one of two opens, and the other is disabled; then one leaves, and all do.
#[tokio::test(start_paused = true)]
#[allow(clippy::float_cmp)]
async fn breakers_of_endpoints_are_counted() {
    fastrand::seed(7);
    let capture = capture();
    let (peers, caller) = peers::<2>(sensitive).await;
    let value = |name, state| {
        let labels = [("server_address", "peer"), ("state", state)];
        capture.value(name, &labels).unwrap()
    };
    let now = || ["closed", "open", "disabled"].map(|it| value("gantry_endpoint_breakers", it));
    assert_eq!([2.0, 0.0, 0.0], now());
    peers[1].fail(true);
    burst(&caller, 40).await;
    time::sleep(MS).await;
    assert_eq!([1.0, 1.0, 0.0], now());
    set(&caller, 1, Order::Mode(Mode::Disabled), None);
    time::sleep(MS).await;
    assert_eq!([0.0, 1.0, 1.0], now());
    let changes = |state| value("gantry_endpoint_breaker_transitions_total", state);
    assert_eq!([1.0, 1.0, 0.0], ["open", "disabled", "closed"].map(changes));
    caller.stop().await;
    assert_eq!([0.0, 0.0, 0.0], now());
}
