//! What latencies make of each endpoint's share.

use super::*;

/// How many calls each of three peers gets within some seconds of paused clock, seeded.
async fn shares(latencies: [u32; 3], callers: usize, seconds: u64) -> [usize; 3] {
    fastrand::seed(42);
    let net = Net::default();
    let addrs = [addr(1), addr(2), addr(3)];
    let peers = [0, 1, 2].map(|number| {
        let manners = Manners {
            latency: latencies[number] * MS,
            ..Manners::default()
        };
        Peer::start(&net, addrs[number], manners)
    });
    let caller = Caller::new(&net, &addrs);
    load(
        &caller,
        callers,
        Instant::now() + Duration::from_secs(seconds),
    )
    .await;
    caller.stop().await;
    peers.map(|peer| peer.handled_count())
}

/// Goal: an endpoint ten times slower gets under a twentieth of the calls.
/// Method: three peers, one slow; thirty callers, and one for so long that it makes as many calls.
#[tokio::test(start_paused = true)]
async fn a_slow_endpoint_gets_few_calls() {
    for (callers, seconds) in [(30, 3), (1, 30)] {
        let shares = shares([10, 10, 100], callers, seconds).await;
        let total: usize = shares.iter().sum();
        assert!(shares[2] * 20 < total, "{callers}: {shares:?}");
        assert!(shares[2] > 0, "it is still tried: {shares:?}");
        // The fast ones share alike.
        assert!(
            shares[0].abs_diff(shares[1]) * 5 < total,
            "{callers}: {shares:?}"
        );
    }
}

/// Goal: endpoints that are slower by a little are no worse, however few calls are in flight.
/// Method: three peers, a tenth and a fifth slower; one, two and four callers.
#[tokio::test(start_paused = true)]
async fn a_slightly_slower_endpoint_has_its_share() {
    for callers in [1, 2, 4] {
        let shares = shares([10, 11, 12], callers, 5).await;
        let total: usize = shares.iter().sum();
        assert!(
            shares.iter().all(|it| it * 5 > total),
            "{callers}: {shares:?}"
        );
    }
}
