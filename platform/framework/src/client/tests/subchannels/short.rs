//! Connections that do not last.

use tokio::sync::mpsc;

use super::{super::*, net::addr, raw, raw::Raw};

/// Goal: an endpoint that is restarted again and again is connected to at once each time; one that
/// does nothing but end connections is not hammered.
/// Method: GOAWAY 20 ms after the preface, for ten seconds of paused clock; when connections come.
#[tokio::test(start_paused = true)]
async fn connections_that_do_not_last_back_off() {
    let net = Net::default();
    let mut listener = net.listen(addr(1));
    let caller = Caller::new(&net, &[addr(1)]);
    caller.client();
    let began = Instant::now();
    let (sender, mut connects) = mpsc::channel(64);
    spawn(async move {
        while let Some(io) = listener.recv().await {
            sender.try_send(began.elapsed()).unwrap();
            let mut peer = Raw::accept(io, &[]).await;
            // After it counts as connected, not while it is set up.
            tokio::time::sleep(20 * MS).await;
            peer.goaway(0, raw::NO_ERROR).await;
            while peer.next().await.is_some() {}
        }
    });
    tokio::time::sleep(Duration::from_secs(10)).await;
    let mut times = Vec::new();
    while let Ok(time) = connects.try_recv() {
        times.push(time);
    }
    assert!(times[3] < 100 * MS && times[4] > 500 * MS, "{times:?}");
    assert!((6..=10).contains(&times.len()), "{times:?}");
    caller.stop().await;
}

/// Goal: an endpoint that takes calls and ends its connections in good order, as a proxy does after so
/// many, is connected to at once each time.
/// Method: two calls on each connection, many times in less than a second.
#[tokio::test(start_paused = true)]
async fn connections_for_a_few_calls_are_followed_by_the_next() {
    let net = Net::default();
    let mut listener = net.listen(addr(1));
    let caller = Caller::new(&net, &[addr(1)]);
    let began = Instant::now();
    let peer = spawn(async move {
        while let Some(io) = listener.recv().await {
            let mut peer = Raw::accept(io, &[]).await;
            let mut stream = 0;
            for _ in 0..2 {
                stream = peer.request().await;
                peer.answer(stream).await;
            }
            peer.goaway(stream, raw::NO_ERROR).await;
            while peer.next().await.is_some() {}
        }
    });
    for _ in 0..20 {
        caller.check("x").await.unwrap();
    }
    assert!(began.elapsed() < 100 * MS, "{:?}", began.elapsed());
    caller.stop().await;
    peer.abort();
}
