//! Endpoints whose streams are all taken.

use super::{super::peer::OPEN, *};

/// Two peers of two streams each on one connection, calls of 10 ms.
async fn narrow() -> ([Peer; 2], Arc<Caller>) {
    let net = Net::default();
    let manners = Manners {
        latency: 10 * MS,
        streams_max: 2,
    };
    let peers = [1, 2].map(|number| Peer::start(&net, addr(number), manners));
    let caller = Caller::with(&net, &[addr(1), addr(2)], |config| {
        config.connections_max = 1;
        config.health = false;
    });
    for number in [1, 2] {
        caller.until(addr(number), Connectivity::Ready).await;
    }
    (peers, Arc::new(caller))
}

/// A stream that takes a place for as long as it is held.
type Held = tonic::Streaming<tonic_health::pb::HealthCheckResponse>;

/// Takes all places of `full`, and as many of the other as it comes to; who has which.
async fn fill(caller: &Caller, full: &Peer) -> Vec<(usize, Held)> {
    let on_full = || full.handled().get(OPEN).copied().unwrap_or(0);
    let mut held = Vec::new();
    while on_full() < 2 {
        let before = on_full();
        let request = HealthCheckRequest {
            service: OPEN.to_owned(),
        };
        let answers = caller.client().watch(request).await.unwrap();
        let mut answers = answers.into_inner();
        answers.message().await.unwrap();
        held.push((on_full() - before, answers));
    }
    held
}

/// Goal: a call goes to an endpoint that has room for it, past one that has none, however many come.
/// Method: streams that stay take all places of one of two; of the other, those they took are free
/// again; then callers beside each other for three seconds.
#[tokio::test(start_paused = true)]
async fn one_that_is_full_is_passed_by() {
    for callers in [1, 2] {
        fastrand::seed(42);
        let (peers, caller) = narrow().await;
        let mut held = fill(&caller, &peers[0]).await;
        held.retain(|(on_full, _)| *on_full == 1);
        time::sleep(MS).await;
        let until = Instant::now() + 3 * SECOND;
        let calls: Vec<_> = (0..callers)
            .map(|_| {
                let caller = Arc::clone(&caller);
                spawn(async move {
                    while Instant::now() < until {
                        let began = Instant::now();
                        caller.check("x").await.unwrap();
                        let took = began.elapsed();
                        assert!(took < 100 * MS, "it waited: {took:?}");
                    }
                })
            })
            .collect();
        for call in calls {
            call.await.unwrap();
        }
        assert_eq!(None, peers[0].handled().get("x"));
    }
}

/// Goal: a call in line at a full endpoint goes to another one that has room first.
/// Method: streams that stay take all places of both, eight calls come, and the streams of one go.
#[tokio::test(start_paused = true)]
async fn a_line_is_left_for_room_elsewhere() {
    fastrand::seed(42);
    let (peers, caller) = narrow().await;
    let mut held = fill(&caller, &peers[0]).await;
    held.extend(fill(&caller, &peers[1]).await);
    let calls: Vec<_> = (0..8)
        .map(|_| {
            let caller = Arc::clone(&caller);
            spawn(async move { caller.check("x").await })
        })
        .collect();
    time::sleep(SECOND).await;
    assert_eq!(None, peers[0].handled().get("x"));
    assert_eq!(None, peers[1].handled().get("x"));
    held.retain(|(on_full, _)| *on_full == 1);
    let began = Instant::now();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    let took = began.elapsed();
    assert!(took < SECOND, "{took:?}");
}
