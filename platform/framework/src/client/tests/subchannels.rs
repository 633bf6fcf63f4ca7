//! What a connection's state does to calls.

mod limits;
mod short;

use hyper_util::rt::{TokioExecutor, TokioIo};

use super::{
    net::addr,
    peer::{Manners, Peer},
    raw::{self, MAX_CONCURRENT_STREAMS, Raw},
    *,
};

/// Goal: 600 calls of 500 ms to a peer that allows 100 streams per connection take little longer
/// than one, over no more connections than needed.
/// Method: all at once, on a paused clock; the time, and the connections the peer saw.
#[tokio::test(start_paused = true)]
async fn more_connections_are_opened_when_streams_run_out() {
    let net = Net::default();
    let manners = Manners {
        latency: 500 * MS,
        streams_max: 100,
    };
    let peer = Peer::start(&net, addr(1), manners);
    let caller = Caller::new(&net, &[addr(1)]);
    let began = Instant::now();
    let calls: Vec<_> = (0..600)
        .map(|number| {
            let mut client = caller.client();
            spawn(async move { check(&mut client, &number.to_string()).await })
        })
        .collect();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    assert!(began.elapsed() < 1_100 * MS, "{:?}", began.elapsed());
    assert_eq!(600, peer.handled_count());
    let most = caller.endpoints()[0].connections;
    assert_eq!(peer.connections(), most);
    // The peak is over: what it needed goes, the first connection stays.
    tokio::time::sleep(Duration::from_mins(2)).await;
    assert_eq!(1, caller.endpoints()[0].connections);
    caller.check("one more").await.unwrap();
    assert!(
        (6..=10).contains(&peer.connections()),
        "{}",
        peer.connections()
    );
    caller.stop().await;
}

/// Goal: connections are opened for calls in line, not for each that joins it.
/// Method: half as many calls again as a connection takes, at a peer that takes its time.
#[tokio::test(start_paused = true)]
async fn no_more_connections_are_opened_than_calls_fill() {
    let net = Net::default();
    let manners = Manners {
        latency: 500 * MS,
        streams_max: 100,
    };
    let peer = Peer::start(&net, addr(1), manners);
    let caller = Caller::new(&net, &[addr(1)]);
    caller.until(addr(1), Connectivity::Ready).await;
    let calls = (0..150).map(|_| caller.check("x"));
    for outcome in futures_util::future::join_all(calls).await {
        outcome.unwrap();
    }
    assert_eq!(2, peer.connections());
    caller.stop().await;
}

/// Goal: the pool of connections is bounded; calls beyond it wait in line and are served.
/// Method: two connections of ten streams at most, a hundred calls.
#[tokio::test(start_paused = true)]
async fn calls_beyond_the_pool_wait_in_line() {
    let net = Net::default();
    let manners = Manners {
        latency: 100 * MS,
        streams_max: 10,
    };
    let peer = Peer::start(&net, addr(1), manners);
    let caller = Caller::with(&net, &[addr(1)], |config| config.connections_max = 2);
    let began = Instant::now();
    let calls: Vec<_> = (0..100)
        .map(|number| {
            let mut client = caller.client();
            spawn(async move { check(&mut client, &number.to_string()).await })
        })
        .collect();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    assert_eq!(2, peer.connections());
    assert_eq!(5, began.elapsed().as_millis() / 100);
    caller.stop().await;
}

/// Goal: the line itself is bounded.
/// Method: one place, room for one in line; the third call is refused at once.
#[tokio::test(start_paused = true)]
async fn a_full_line_refuses() {
    let net = Net::default();
    let manners = Manners {
        latency: 100 * MS,
        streams_max: 1,
    };
    let _peer = Peer::start(&net, addr(1), manners);
    let caller = Caller::with(&net, &[addr(1)], |config| {
        config.connections_max = 1;
        config.waiting_max = 1;
    });
    caller.until(addr(1), Connectivity::Ready).await;
    let began = Instant::now();
    let (first, second, third) = tokio::join!(
        caller.check("first"),
        caller.check("second"),
        caller.check("third")
    );
    assert_eq!([Code::Ok, Code::Ok], [code(&first), code(&second)]);
    let refused = third.unwrap_err();
    assert_eq!(Code::Unavailable, refused.code());
    assert!(refused.message().contains("in line"), "{refused}");
    assert_eq!(
        "1000",
        refused.metadata().get(crate::status::PUSHBACK).unwrap()
    );
    assert!(began.elapsed() < 300 * MS);
    caller.stop().await;
}

/// Goal: a request that HTTP/2 forbids fails alone: its connection goes on for others.
/// Method: a call with each forbidden header, then a good one; the connections the peer saw.
#[tokio::test(start_paused = true)]
async fn a_forbidden_header_costs_no_connection() {
    let net = Net::default();
    let peer = Peer::start(&net, addr(1), Manners::default());
    let caller = Caller::new(&net, &[addr(1)]);
    caller.check("before").await.unwrap();
    for header in [
        "connection",
        "keep-alive",
        "proxy-connection",
        "transfer-encoding",
        "upgrade",
    ] {
        let mut request = tonic::Request::new(HealthCheckRequest::default());
        let value = tonic::metadata::MetadataValue::from_static("x");
        request.metadata_mut().insert(header, value);
        let outcome = caller.client().check(request).await.map(drop);
        assert_eq!(Code::Internal, code(&outcome), "{header}: {outcome:?}");
    }
    let began = Instant::now();
    caller.check("after").await.unwrap();
    assert!(began.elapsed() < MS, "{:?}", began.elapsed());
    assert_eq!(1, peer.connections());
    caller.stop().await;
}

/// Goal: a call that was in line when its connection went waits for the next one.
/// Method: one place, taken; the connection goes after longer than calls wait for an endpoint.
#[tokio::test(start_paused = true)]
async fn a_call_in_line_outlives_its_connection() {
    let net = Net::default();
    let mut listener = net.listen(addr(1));
    spawn(async move {
        let settings = [(MAX_CONCURRENT_STREAMS, 1)];
        let mut peer = Raw::accept(listener.recv().await.unwrap(), &settings).await;
        peer.request().await;
        tokio::time::sleep(Duration::from_secs(10)).await;
        drop(peer);
        let mut peer = Raw::accept(listener.recv().await.unwrap(), &settings).await;
        let stream = peer.request().await;
        peer.answer(stream).await;
        peer.next().await;
    });
    let caller = Caller::with(&net, &[addr(1)], |config| {
        config.connections_max = 1;
        config.timeout_default = Duration::from_mins(1);
    });
    caller.until(addr(1), Connectivity::Ready).await;
    let (first, second) = tokio::join!(caller.check("first"), caller.check("second"));
    assert_eq!(Code::Unavailable, code(&first));
    assert_eq!(Code::Ok, code(&second), "{second:?}");
    caller.stop().await;
}

/// Goal: the peer's limit is followed while it changes.
/// Method: one stream at first, then three; the peer counts what is open at once.
#[tokio::test(start_paused = true)]
async fn a_raised_limit_lets_waiting_calls_go() {
    let net = Net::default();
    let mut listener = net.listen(addr(1));
    let caller = Caller::with(&net, &[addr(1)], |config| config.connections_max = 1);
    let calls: Vec<_> = (0..4)
        .map(|_| {
            let mut client = caller.client();
            spawn(async move { check(&mut client, "x").await })
        })
        .collect();
    let mut peer = Raw::accept(
        listener.recv().await.unwrap(),
        &[(MAX_CONCURRENT_STREAMS, 1)],
    )
    .await;
    let first = peer.request().await;
    let more = tokio::time::timeout(1_000 * MS, peer.next()).await;
    assert!(more.is_err(), "a stream above the limit");

    peer.settings(&[(MAX_CONCURRENT_STREAMS, 3)]).await;
    let (second, third) = (peer.request().await, peer.request().await);
    let more = tokio::time::timeout(1_000 * MS, peer.next()).await;
    assert!(more.is_err(), "a stream above the raised limit");

    peer.answer(first).await;
    let fourth = peer.request().await;
    for stream in [second, third, fourth] {
        peer.answer(stream).await;
    }
    for call in calls {
        call.await.unwrap().unwrap();
    }
    caller.stop().await;
}

/// Goal: after GOAWAY no new call uses the connection, those in flight finish on it, and the
/// endpoint is connected anew.
/// Method: GOAWAY with one call in flight; the next call must come on a second connection.
#[tokio::test(start_paused = true)]
async fn goaway_moves_new_calls_to_a_new_connection() {
    let net = Net::default();
    let mut listener = net.listen(addr(1));
    let caller = Caller::new(&net, &[addr(1)]);
    let mut client = caller.client();
    let in_flight = spawn(async move { check(&mut client, "old").await });
    let mut old = Raw::accept(listener.recv().await.unwrap(), &[]).await;
    let stream = old.request().await;
    // Longer than a connection must live for the next one to be made without a pause.
    tokio::time::sleep(1_500 * MS).await;
    old.goaway(0x7fff_ffff, raw::NO_ERROR).await;

    let began = Instant::now();
    let mut new = Raw::accept(listener.recv().await.unwrap(), &[]).await;
    assert!(began.elapsed() < 10 * MS, "{:?}", began.elapsed());
    let mut client = caller.client();
    let second = spawn(async move { check(&mut client, "new").await });
    let moved = new.request().await;
    new.answer(moved).await;
    second.await.unwrap().unwrap();

    old.answer(stream).await;
    in_flight.await.unwrap().unwrap();
    // With its last stream the old connection ends.
    while old.next().await.is_some() {}
    caller.stop().await;
}

/// Goal: a peer that falls silent is noticed within interval and timeout, with calls in flight and
/// without; one that answers is kept.
/// Method: two peers, one deaf to pings, on a paused clock.
#[tokio::test(start_paused = true)]
async fn a_silent_peer_is_noticed() {
    for answers_pings in [true, false] {
        let net = Net::default();
        let mut listener = net.listen(addr(1));
        let caller = Caller::with(&net, &[addr(1)], |config| {
            config.timeout_default = Duration::from_mins(1);
        });
        let peer = spawn(async move {
            let mut peer = Raw::accept(listener.recv().await.unwrap(), &[]).await;
            peer.answers_pings = answers_pings;
            while peer.next().await.is_some() {}
        });
        let began = Instant::now();
        let outcome = caller.check("x").await;
        let took = began.elapsed();
        if answers_pings {
            assert_eq!(Code::DeadlineExceeded, code(&outcome));
            assert_eq!(60, took.as_secs());
        } else {
            let status = outcome.unwrap_err();
            assert_eq!(Code::Unavailable, status.code());
            assert!(status.message().contains("keepalive"), "{status}");
            assert!(took <= 15_100 * MS, "{took:?}");
        }
        caller.stop().await;
        peer.await.unwrap();
    }
}

/// Goal: a peer that does not say how often it bears pings is pinged as rarely as any gRPC server
/// bears, and one that is dead is noticed all the same.
/// Method: a silent peer that answers no ping; when it is given up.
#[tokio::test(start_paused = true)]
async fn a_peer_that_says_nothing_is_pinged_rarely() {
    let net = Net::default();
    let mut listener = net.listen(addr(1));
    let caller = Caller::with(&net, &[addr(1)], |config| {
        config.timeout_default = Duration::from_mins(10);
        config.keepalive_always = false;
    });
    let peer = spawn(async move {
        let mut peer = Raw::accept(listener.recv().await.unwrap(), &[]).await;
        peer.answers_pings = false;
        while peer.next().await.is_some() {}
    });
    let began = Instant::now();
    let status = caller.check("x").await.unwrap_err();
    assert!(status.message().contains("keepalive"), "{status}");
    let took = began.elapsed();
    assert!((305..330).contains(&took.as_secs()), "{took:?}");
    caller.stop().await;
    peer.await.unwrap();
}

/// Goal: any byte is a sign of life: a peer that sends is not pinged, and one whose pong is late
/// is kept.
/// Method: a stream with a message every three seconds from a peer that answers no ping; silence
/// for longer than the interval; messages again.
#[tokio::test(start_paused = true)]
async fn a_peer_that_sends_is_alive() {
    let net = Net::default();
    let mut listener = net.listen(addr(1));
    let caller = Caller::new(&net, &[addr(1)]);
    let mut client = caller.client();
    let watching = spawn(async move { client.watch(HealthCheckRequest::default()).await });
    let mut peer = Raw::accept(listener.recv().await.unwrap(), &[]).await;
    peer.answers_pings = false;
    let stream = peer.request().await;
    peer.begin(stream).await;
    let mut answers = watching.await.unwrap().unwrap().into_inner();

    for pinged in [false, true] {
        for _ in 0..5 {
            peer.data(stream, raw::SERVING, false).await;
            patient(answers.message()).await.unwrap().unwrap();
            let frame = tokio::time::timeout(3_000 * MS, peer.next()).await;
            assert!(frame.is_err(), "{pinged}: {frame:?}");
        }
        if !pinged {
            peer.expect(raw::PING).await;
        }
    }
    caller.stop().await;
}

/// Goal: an endpoint that cannot be reached is tried again with growing pauses, and says why.
/// Method: one that refuses and one that swallows, for a minute of paused clock.
#[tokio::test(start_paused = true)]
async fn failed_connections_back_off() {
    fastrand::seed(7);
    let net = Net::default();
    net.swallow(addr(2));
    let caller = Caller::new(&net, &[addr(1), addr(2)]);
    caller.until(addr(1), Connectivity::TransientFailure).await;
    caller.until(addr(2), Connectivity::TransientFailure).await;
    let errors: Vec<_> = caller
        .endpoints()
        .into_iter()
        .map(|endpoint| endpoint.error.unwrap_or_default().to_string())
        .collect();
    assert!(errors[0].contains("connection refused"), "{errors:?}");
    assert!(errors[1].contains("within 2s"), "{errors:?}");

    tokio::time::sleep(Duration::from_mins(1)).await;
    // Without jitter: at 0, 1, 2.6, 5.2, 9.3, 15.8, 26.3, 43.1 seconds.
    let connects = net.connects(addr(1));
    assert!((7..=9).contains(&connects), "{connects}");
    caller.stop().await;
}

/// Goal: an endpoint comes back by itself.
/// Method: nobody listens at first; a peer starts later; a call waits for it.
#[tokio::test(start_paused = true)]
async fn a_call_waits_for_an_endpoint_that_comes() {
    let net = Net::default();
    let caller = Caller::new(&net, &[addr(1)]);
    caller.until(addr(1), Connectivity::TransientFailure).await;
    let _peer = Peer::start(&net, addr(1), Manners::default());
    caller.check("x").await.unwrap();
    caller.stop().await;
}

/// tonic's health service at `addr`.
fn health_peer(net: &Net, addr: SocketAddr) -> tonic_health::server::HealthReporter {
    let (reporter, service) = tonic_health::server::health_reporter();
    let mut listener = net.listen(addr);
    spawn(async move {
        while let Some(io) = listener.recv().await {
            let service = service.clone();
            let service = hyper::service::service_fn(move |request| {
                let mut service = service.clone();
                async move { service.call(request).await }
            });
            let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(io), service);
            spawn(connection);
        }
    });
    reporter
}

/// Goal: calls go only to endpoints that say they serve.
/// Method: a peer's health goes up and down; the endpoint's state follows.
#[tokio::test(start_paused = true)]
async fn health_decides_who_gets_calls() {
    let net = Net::default();
    let reporter = health_peer(&net, addr(1));
    let down = tonic_health::ServingStatus::NotServing;
    reporter.set_service_status("", down).await;
    let caller = Caller::with(&net, &[addr(1)], |config| config.health = true);

    caller.until(addr(1), Connectivity::TransientFailure).await;
    assert_eq!(Code::Unavailable, code(&caller.check("").await));
    let up = tonic_health::ServingStatus::Serving;
    reporter.set_service_status("", up).await;
    caller.until(addr(1), Connectivity::Ready).await;
    caller.check("").await.unwrap();
    reporter.set_service_status("", down).await;
    caller.until(addr(1), Connectivity::TransientFailure).await;
    // It was the connection's state, not its end.
    assert_eq!(1, net.connects(addr(1)));
    caller.stop().await;
}

/// Goal: an endpoint gets calls only while it says SERVING; not knowing is not serving.
/// Method: one watch that says each status in turn.
#[tokio::test(start_paused = true)]
async fn only_serving_is_serving() {
    let net = Net::default();
    let mut listener = net.listen(addr(1));
    let caller = Caller::with(&net, &[addr(1)], |config| config.health = true);
    caller.client();
    let mut peer = Raw::accept(listener.recv().await.unwrap(), &[]).await;
    let watch = peer.request().await;
    peer.begin(watch).await;
    // UNKNOWN, NOT_SERVING, SERVICE_UNKNOWN.
    for status in [0, 2, 3] {
        peer.data(watch, raw::SERVING, false).await;
        caller.until(addr(1), Connectivity::Ready).await;
        let message = [0, 0, 0, 0, 2, 8, status];
        peer.data(watch, &message, false).await;
        tokio::time::sleep(10 * MS).await;
        let connectivity = caller.connectivity(addr(1));
        let refusing = Some(Connectivity::TransientFailure);
        assert_eq!(refusing, connectivity, "{status}");
    }
    caller.stop().await;
}
