//! The rest of what connections to one endpoint promise.

use super::*;

/// Goal: a peer whose watches fail is not asked without pause.
/// Method: each watch fails at once, for twenty seconds of paused clock.
#[tokio::test(start_paused = true)]
async fn failed_watches_back_off() {
    fastrand::seed(7);
    let net = Net::default();
    let mut listener = net.listen(addr(1));
    let caller = Caller::with(&net, &[addr(1)], |config| config.health = true);
    caller.client();
    let mut peer = Raw::accept(listener.recv().await.unwrap(), &[]).await;
    let mut watches = 0;
    let failing = async {
        loop {
            let watch = peer.request().await;
            watches += 1;
            let headers = [
                (":status", "200"),
                ("content-type", "application/grpc"),
                ("grpc-status", "14"),
            ];
            peer.headers(watch, &headers, true).await;
        }
    };
    let failing = tokio::time::timeout(Duration::from_secs(20), failing);
    assert!(failing.await.is_err());
    // Without jitter: at 0, 1, 2.6, 5.2, 9.3, 15.8 seconds.
    assert!((5..=7).contains(&watches), "{watches}");
    caller.stop().await;
}

/// Goal: a peer without the health service counts as serving, one that does not know the service
/// does not, and one that says nothing stays connecting.
/// Method: the peer answers the watch with a code, or not at all.
#[tokio::test(start_paused = true)]
async fn a_watch_that_fails_is_judged_by_its_code() {
    for (answer, expected) in [
        (Some("12"), Connectivity::Ready),
        (Some("5"), Connectivity::TransientFailure),
        (Some("14"), Connectivity::TransientFailure),
        (None, Connectivity::Connecting),
    ] {
        let net = Net::default();
        let mut listener = net.listen(addr(1));
        let caller = Caller::with(&net, &[addr(1)], |config| config.health = true);
        caller.client();
        let mut peer = Raw::accept(listener.recv().await.unwrap(), &[]).await;
        let stream = peer.request().await;
        if let Some(answer) = answer {
            let headers = [
                (":status", "200"),
                ("content-type", "application/grpc"),
                ("grpc-status", answer),
            ];
            peer.headers(stream, &headers, true).await;
        }
        spawn(async move { while peer.next().await.is_some() {} });
        tokio::time::sleep(100 * MS).await;
        assert_eq!(Some(expected), caller.connectivity(addr(1)), "{answer:?}");
        caller.stop().await;
    }
}

/// Goal: a peer that allows a single stream has it free for calls.
/// Method: such a peer, with health on; the first stream is the call.
#[tokio::test(start_paused = true)]
async fn a_single_stream_is_not_spent_on_health() {
    let net = Net::default();
    let mut listener = net.listen(addr(1));
    let caller = Caller::with(&net, &[addr(1)], |config| config.health = true);
    let mut client = caller.client();
    let call = spawn(async move { check(&mut client, "x").await });
    let limit = [(MAX_CONCURRENT_STREAMS, 1)];
    let mut peer = Raw::accept(listener.recv().await.unwrap(), &limit).await;
    let stream = peer.request().await;
    peer.answer(stream).await;
    call.await.unwrap().unwrap();
    caller.stop().await;
}

/// Goal: a peer that resets because of pings is pinged less.
/// Method: count the pings between two connections of an idle peer that wants calm.
#[tokio::test(start_paused = true)]
async fn a_peer_that_wants_calm_gets_it() {
    let net = Net::default();
    let mut listener = net.listen(addr(1));
    let caller = Caller::new(&net, &[addr(1)]);
    caller.client();
    let mut pauses = Vec::new();
    for _ in 0..2 {
        let mut peer = Raw::accept(listener.recv().await.unwrap(), &[]).await;
        peer.answers_pings = false;
        // The first interval begins with what set-up said; the second is silence throughout.
        let began = Instant::now();
        peer.expect(raw::PING).await;
        pauses.push(began.elapsed().as_secs());
        peer.goaway(0, 11).await;
    }
    assert!(pauses[1] >= 2 * pauses[0], "{pauses:?}");
    caller.stop().await;
}
