//! Which endpoints of a list are connected, and which of those are preferred.

use super::*;
use crate::{
    discovery::{Attributes, Endpoint},
    transport::subchannel::CONNECTS_MAX,
};

/// Goal: of a long list only a part is connected, the same for as long as that does well; where most
/// of it fails, as many more are connected; and when it does well again, that is all there is.
/// Method: five of thirty peers; three of them die and come back, while calls go on.
#[tokio::test(start_paused = true)]
async fn a_part_of_a_long_list_is_connected() {
    let net = Net::default();
    let numbers: Vec<_> = (1..=30).collect();
    let start = |number: &u16| Peer::start(&net, addr(*number), Manners::default());
    let peers: Vec<_> = numbers.iter().map(start).collect();
    let addrs: Vec<_> = numbers.iter().map(|number| addr(*number)).collect();
    let caller = Caller::with(&net, &addrs, |config| config.balance.subset_size = 5);
    caller.check("x").await.unwrap();
    time::sleep(Duration::from_mins(1)).await;
    assert_eq!(5, net.connected());
    let own: Vec<_> = caller.endpoints().iter().map(|it| it.addr).collect();
    assert_eq!(5, own.len());

    let dying = &own[..3];
    for dead in dying {
        peers[usize::from(dead.port()) - 1].die();
    }
    time::sleep(Duration::from_secs(1)).await;
    assert_eq!(8, net.connected());
    assert_eq!(8, caller.endpoints().len());
    for _ in 0..100 {
        caller.check("x").await.unwrap();
    }

    let _again: Vec<_> = dying.iter().map(|dead| start(&dead.port())).collect();
    for back in dying {
        caller.until(*back, Connectivity::Ready).await;
    }
    time::sleep(Duration::from_secs(11)).await;
    let now: Vec<_> = caller.endpoints().iter().map(|it| it.addr).collect();
    assert_eq!(own, now);
    assert_eq!(8, net.connected());
    caller.check("x").await.unwrap();
    caller.stop().await;
}

/// Goal: an endpoint in another zone counts for half, as the registry says how much it counts for;
/// not where its zone is not known, nor where few are left.
/// Method: the weights of four endpoints, seen from zone a; then three of them die.
#[tokio::test(start_paused = true)]
async fn the_own_zone_is_preferred() {
    let net = Net::default();
    let listed = |number, zone: Option<&str>, weight_percent| Endpoint {
        attributes: Attributes {
            zone: zone.map(Into::into),
            weight_percent,
            ..Attributes::default()
        },
        ..addr(number).into()
    };
    let names = Memory::new();
    let list = [
        listed(1, Some("a"), None),
        listed(2, Some("b"), None),
        listed(3, None, None),
        listed(4, Some("b"), Some(200)),
    ];
    names.set("shop", list);
    let mut caller = Caller::resolving(&net, Arc::new(names), |_| {});
    caller.clients = caller.clients.with_zone(Some("a"));
    let peers = [1, 2, 3, 4].map(|number| Peer::start(&net, addr(number), Manners::default()));
    for number in 1..=4 {
        caller.until(addr(number), Connectivity::Ready).await;
    }
    let weights = || -> Vec<_> { caller.endpoints().iter().map(|it| it.weight).collect() };
    let are = |expected: [f32; 4]| {
        let mut pairs = weights().into_iter().zip(expected);
        pairs.all(|(weight, expected)| (weight - expected).abs() < 1e-6)
    };
    // As they begin slowly.
    time::sleep(Duration::from_secs(31)).await;
    assert!(are([1.0, 0.5, 1.0, 1.0]), "{:?}", weights());
    peers[..3].iter().for_each(Peer::die);
    caller.until(addr(1), Connectivity::TransientFailure).await;
    caller.until(addr(3), Connectivity::TransientFailure).await;
    assert!(are([1.0, 1.0, 1.0, 2.0]), "{:?}", weights());
    caller.stop().await;
}

/// Goal: an endpoint at an address that is new begins slowly; one that was there before does not.
/// Method: long after the first, a second one joins, leaves when its share is whole, and comes back.
#[tokio::test(start_paused = true)]
async fn a_new_address_begins_slowly() {
    let net = Net::default();
    let _peers = [1, 2].map(|number| Peer::start(&net, addr(number), Manners::default()));
    let names = Memory::new();
    names.set("shop", [addr(1)]);
    let caller = Caller::resolving(&net, Arc::new(names.clone()), |_| {});
    caller.until(addr(1), Connectivity::Ready).await;
    time::sleep(31 * SECOND).await;
    let weight = || caller.endpoints().last().unwrap().weight;
    for (pause, expected) in [(0, 0.1), (15, 0.5), (15, 1.0)] {
        names.set("shop", [addr(1), addr(2)]);
        caller.until(addr(2), Connectivity::Ready).await;
        time::sleep(pause * SECOND).await;
        let weight = weight();
        assert!((weight - expected).abs() < 0.01, "{weight}, {expected}");
    }
    names.set("shop", [addr(1)]);
    time::sleep(SECOND).await;
    names.set("shop", [addr(1), addr(2)]);
    caller.until(addr(2), Connectivity::Ready).await;
    assert!((weight() - 1.0).abs() < 0.01, "{}", weight());
    caller.stop().await;
}

/// Goal: however many endpoints a list has, so many connections at most are on their way at once, and
/// one that is reached is reached though hundreds before it are not.
/// Method: a peer behind addresses that swallow connections; count after a second, and call.
#[tokio::test(start_paused = true)]
async fn connections_on_their_way_are_bounded() {
    let net = Net::default();
    let wrong = 2 * u16::try_from(CONNECTS_MAX).unwrap();
    (1..=wrong).for_each(|number| net.swallow(addr(number)));
    let _peer = Peer::start(&net, addr(wrong + 1), Manners::default());
    let names = Memory::new();
    names.set("shop", (1..=wrong + 1).map(addr));
    let caller = Caller::resolving(&net, Arc::new(names), |config| {
        config.balance.subset_size = 0;
    });
    let mut client = caller.client();
    let call = spawn(async move { check(&mut client, "x").await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(CONNECTS_MAX, net.connected());
    caller.until(addr(wrong + 1), Connectivity::Ready).await;
    drop(call.await);
    caller.check("x").await.unwrap();
    caller.stop().await;
}
