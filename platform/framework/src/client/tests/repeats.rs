//! Requests that provably reached no handler are sent again; others never are.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::{
    net::addr,
    peer::{Manners, Peer},
    raw::{self, MAX_CONCURRENT_STREAMS, Raw},
    *,
};
use crate::discovery::Memory;

/// Starts `count` calls named by their numbers.
fn calls(caller: &Caller, count: usize) -> Vec<tokio::task::JoinHandle<Result<(), Status>>> {
    (0..count)
        .map(|number| {
            let mut client = caller.client();
            spawn(async move { check(&mut client, &number.to_string()).await })
        })
        .collect()
}

async fn outcomes(calls: Vec<tokio::task::JoinHandle<Result<(), Status>>>) -> Vec<Code> {
    let mut codes = Vec::new();
    for call in calls {
        codes.push(code(&call.await.unwrap()));
    }
    codes
}

/// Goal: calls in line for a place are not lost when the connection goes away.
/// Method: a limit of one stream, five calls, GOAWAY while four wait; the next connection serves.
#[tokio::test(start_paused = true)]
async fn calls_in_line_survive_goaway() {
    let net = Net::default();
    let mut listener = net.listen(addr(1));
    let caller = Caller::with(&net, &[addr(1)], |config| config.connections_max = 1);
    let calls = calls(&caller, 5);
    let handled = spawn(async move {
        let limit = [(MAX_CONCURRENT_STREAMS, 1)];
        let mut first = Raw::accept(listener.recv().await.unwrap(), &limit).await;
        let stream = first.request().await;
        first.goaway(stream, raw::NO_ERROR).await;
        first.answer(stream).await;
        let mut second = Raw::accept(listener.recv().await.unwrap(), &[]).await;
        for _ in 0..4 {
            let stream = second.request().await;
            second.answer(stream).await;
        }
        (first, second)
    });

    assert_eq!(vec![Code::Ok; 5], outcomes(calls).await);
    assert_eq!(2, net.connects(addr(1)));
    drop(handled.await.unwrap());
    caller.stop().await;
}

/// Goal: calls in line at an endpoint that goes do not wait for its return.
/// Method: two in line at the only endpoint; another joins, the first one dies for good.
#[tokio::test(start_paused = true)]
async fn calls_in_line_move_to_another_endpoint() {
    let net = Net::default();
    let mut listener = net.listen(addr(1));
    let names = Memory::new();
    names.set("shop", [addr(1)]);
    let caller = Caller::resolving(&net, Arc::new(names.clone()), |config| {
        config.connections_max = 1;
    });
    let calls = calls(&caller, 3);
    let limit = [(MAX_CONCURRENT_STREAMS, 1)];
    let mut first = Raw::accept(listener.recv().await.unwrap(), &limit).await;
    let stream = first.request().await;
    let other = Peer::start(&net, addr(2), Manners::default());
    names.set("shop", [addr(1), addr(2)]);
    caller.until(addr(2), Connectivity::Ready).await;

    let began = Instant::now();
    drop(listener);
    first.goaway(stream, raw::NO_ERROR).await;
    first.answer(stream).await;
    assert_eq!(vec![Code::Ok; 3], outcomes(calls).await);
    assert!(began.elapsed() < 100 * MS, "{:?}", began.elapsed());
    assert_eq!(2, other.handled_count());
    caller.stop().await;
}

/// Goal: requests that a GOAWAY says were not processed are sent again, once; the one that may
/// have been processed is not.
/// Method: five requests, GOAWAY above the first, then the connection closes unanswered.
#[tokio::test(start_paused = true)]
async fn requests_above_the_last_stream_are_sent_again() {
    let net = Net::default();
    let mut listener = net.listen(addr(1));
    let caller = Caller::new(&net, &[addr(1)]);
    let calls = calls(&caller, 5);
    let peers = spawn(async move {
        let mut first = Raw::accept(listener.recv().await.unwrap(), &[]).await;
        let oldest = first.request().await;
        for _ in 0..4 {
            first.request().await;
        }
        first.goaway(oldest, raw::NO_ERROR).await;
        let mut second = Raw::accept(listener.recv().await.unwrap(), &[]).await;
        for _ in 0..4 {
            let stream = second.request().await;
            second.answer(stream).await;
        }
        drop(first);
        second
    });

    let mut codes = outcomes(calls).await;
    codes.sort_by_key(|code| *code as i32);
    let lost = codes.pop();
    assert_eq!(Some(Code::Unavailable), lost);
    assert_eq!(vec![Code::Ok; 4], codes);
    caller.stop().await;
    // Whoever comes now was sent twice.
    assert!(peers.await.unwrap().next().await.is_none());
}

/// Goal: a call that meets one endpoint after the other just as it goes is answered by the next, and
/// not tried for ever.
/// Method: connections that go in good order before they take the request, so many and one more; each
/// is made at once.
#[tokio::test(start_paused = true)]
async fn a_call_outlives_several_that_go() {
    for (goes, expected) in [(3, Code::Ok), (4, Code::Unavailable)] {
        let net = Net::default();
        let mut listener = net.listen(addr(1));
        let caller = Caller::new(&net, &[addr(1)]);
        let calls = calls(&caller, 1);
        let began = Instant::now();
        let peers = spawn(async move {
            let mut gone = Vec::new();
            for _ in 0..goes {
                let mut peer = Raw::accept(listener.recv().await.unwrap(), &[]).await;
                peer.request().await;
                peer.goaway(0, raw::NO_ERROR).await;
                gone.push(peer);
            }
            let mut last = Raw::accept(listener.recv().await.unwrap(), &[]).await;
            let sent = tokio::time::timeout(10_000 * MS, last.request()).await;
            if let Ok(stream) = sent {
                last.answer(stream).await;
            }
            (gone, last, sent.is_ok())
        });
        assert_eq!(vec![expected], outcomes(calls).await);
        if expected == Code::Ok {
            assert!(began.elapsed() < 100 * MS, "{:?}", began.elapsed());
        }
        let (.., sent) = peers.await.unwrap();
        assert_eq!(expected == Code::Ok, sent);
        caller.stop().await;
    }
}

/// Goal: a GOAWAY that is no goodbye is a refusal: the request is sent once more.
/// Method: a peer that says at every request that it is asked too much.
#[tokio::test(start_paused = true)]
async fn a_complaint_is_no_goodbye() {
    let net = Net::default();
    let mut listener = net.listen(addr(1));
    let caller = Caller::new(&net, &[addr(1)]);
    let peers = spawn(async move {
        let mut requests = 0;
        while let Some(io) = listener.recv().await {
            let mut peer = Raw::accept(io, &[]).await;
            if tokio::time::timeout(10_000 * MS, peer.request())
                .await
                .is_err()
            {
                break;
            }
            requests += 1;
            peer.goaway(0, raw::ENHANCE_YOUR_CALM).await;
        }
        requests
    });
    assert_eq!(Code::Unavailable, code(&caller.check("x").await));
    assert_eq!(2, peers.await.unwrap());
    caller.stop().await;
}

/// Goal: a GOAWAY of our own says nothing of what the peer processed: the request is not sent again.
/// Method: a peer that takes a request, then breaks the protocol; what its next connection is sent.
#[tokio::test(start_paused = true)]
async fn a_connection_we_give_up_may_have_been_served() {
    let net = Net::default();
    let mut listener = net.listen(addr(1));
    let caller = Caller::new(&net, &[addr(1)]);
    let calls = calls(&caller, 1);
    let mut first = Raw::accept(listener.recv().await.unwrap(), &[]).await;
    first.request().await;
    // Longer than a connection must live for the next one to be made without a pause.
    tokio::time::sleep(1_500 * MS).await;
    // No stream is 0.
    first.data(0, b"x", false).await;

    let mut second = Raw::accept(listener.recv().await.unwrap(), &[]).await;
    let more = tokio::time::timeout(1_000 * MS, second.next()).await;
    assert!(more.is_err(), "{more:?}");
    assert_eq!(vec![Code::Unavailable], outcomes(calls).await);
    caller.stop().await;
}

/// Goal: a refused stream is tried once more and then given up.
/// Method: a peer that refuses everything counts the requests; the bytes are the same each time.
#[tokio::test(start_paused = true)]
async fn a_refused_request_is_sent_once_more() {
    let net = Net::default();
    let mut listener = net.listen(addr(1));
    let caller = Caller::new(&net, &[addr(1)]);
    let peer = spawn(async move {
        let mut peer = Raw::accept(listener.recv().await.unwrap(), &[]).await;
        let mut bodies = Vec::new();
        while let Some(frame) = peer.next().await {
            if frame.kind == raw::DATA {
                bodies.push(frame.payload);
                peer.reset(frame.stream, raw::REFUSED_STREAM).await;
            }
        }
        bodies
    });
    assert_eq!(Code::Unavailable, code(&caller.check("again").await));
    caller.stop().await;
    let bodies = peer.await.unwrap();
    assert_eq!(2, bodies.len());
    assert_eq!(bodies[0], bodies[1]);
    assert!(bodies[0].ends_with(b"again"));
}

/// Goal: what is sent again because it reached nobody is no request more, and is not spared where most are.
/// Method: a peer that fails forty calls and then refuses every stream; then a call a second, which goes
/// through whatever becomes of the rest: each is sent twice.
#[tokio::test(start_paused = true)]
async fn what_is_sent_again_is_not_spared() {
    fastrand::seed(7);
    let net = Net::default();
    let mut listener = net.listen(addr(1));
    let (seen, refused) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (all, not_served) = (Arc::clone(&seen), Arc::clone(&refused));
    spawn(async move {
        let io = listener.recv().await.unwrap();
        let mut connection = h2::server::handshake(io).await.unwrap();
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            if all.fetch_add(1, Ordering::SeqCst) >= 40 {
                not_served.fetch_add(1, Ordering::SeqCst);
                respond.send_reset(h2::Reason::REFUSED_STREAM);
                continue;
            }
            let failed = http::Response::builder()
                .header("content-type", "application/grpc")
                .header("grpc-status", "13");
            drop(respond.send_response(failed.body(()).unwrap(), true));
        }
    });
    let policy = Policy {
        retry: crate::retry::Config {
            attempts_max: 1,
            ..crate::retry::Config::default()
        },
        ..Policy::default()
    };
    let caller = Caller::under(&net, &[addr(1)], policy, |config| {
        config.health = false;
        config.balance.breaker.state = crate::breaker::Mode::Disabled;
    });
    caller.until(addr(1), Connectivity::Ready).await;
    while seen.load(Ordering::SeqCst) < 40 {
        drop(caller.check("x").await);
    }
    for _ in 0..20 {
        tokio::time::sleep(1_000 * MS).await;
        assert_eq!(Code::Unavailable, code(&caller.check("x").await));
    }
    assert_eq!(40, refused.load(Ordering::SeqCst));
    caller.stop().await;
}

/// Goal: a request too large to keep is not sent again, and a smaller one is, whole.
/// Method: bodies around the bound, refused at the first try and served at the second.
#[tokio::test(start_paused = true)]
async fn only_requests_that_were_kept_whole_are_sent_again() {
    let kept = crate::transport::subchannel::REPLAY_MAX;
    for (size, expected) in [(kept - 1_000, Code::Ok), (kept + 1_000, Code::Unavailable)] {
        let net = Net::default();
        let mut listener = net.listen(addr(1));
        let caller = Caller::new(&net, &[addr(1)]);
        spawn(async move {
            let mut peer = Raw::accept(listener.recv().await.unwrap(), &[]).await;
            // Room for the whole request at once.
            peer.window(0, 1 << 20).await;
            let mut requests = 0;
            loop {
                let stream = peer.expect(raw::HEADERS).await.stream;
                peer.window(stream, 1 << 20).await;
                requests += 1;
                let mut received = 0;
                loop {
                    let frame = peer.expect(raw::DATA).await;
                    received += frame.payload.len();
                    if frame.flags & raw::END_STREAM != 0 {
                        break;
                    }
                }
                if requests == 1 {
                    peer.reset(stream, raw::REFUSED_STREAM).await;
                } else {
                    assert!(received > size, "{received}");
                    peer.answer(stream).await;
                }
            }
        });
        let name = "x".repeat(size);
        assert_eq!(expected, code(&caller.check(&name).await), "{size}");
        caller.stop().await;
    }
}

/// Goal: where a request was before it is sent again is not held against where it goes.
/// Method: two peers, of which the first that is asked refuses after two seconds; the other answers.
#[tokio::test(start_paused = true)]
async fn a_request_sent_again_is_timed_anew() {
    let net = Net::default();
    let refused = Arc::new(AtomicBool::new(false));
    for port in [1, 2] {
        let mut listener = net.listen(addr(port));
        let refused = Arc::clone(&refused);
        spawn(async move {
            let mut peer = Raw::accept(listener.recv().await.unwrap(), &[]).await;
            loop {
                let stream = peer.request().await;
                if refused.swap(true, Ordering::SeqCst) {
                    peer.answer(stream).await;
                } else {
                    tokio::time::sleep(2_000 * MS).await;
                    peer.reset(stream, raw::REFUSED_STREAM).await;
                }
            }
        });
    }
    let caller = Caller::new(&net, &[addr(1), addr(2)]);
    caller.until(addr(1), Connectivity::Ready).await;
    caller.until(addr(2), Connectivity::Ready).await;
    assert_eq!(Code::Ok, code(&caller.check("again").await));
    let endpoints = caller.endpoints();
    let latencies: Vec<_> = endpoints.iter().filter_map(|it| it.latency).collect();
    let least = latencies.iter().min().unwrap();
    assert!(*least < 100 * MS, "{latencies:?}");
    caller.stop().await;
}

/// Goal: a peer that drains under load loses no call, and none runs twice.
/// Method: 200 calls in flight at two peers when one of them drains, then 200 more.
#[tokio::test(start_paused = true)]
async fn a_draining_peer_loses_nothing() {
    let net = Net::default();
    let manners = Manners {
        latency: 50 * MS,
        streams_max: 1_000,
    };
    let (leaving, staying) = (
        Peer::start(&net, addr(1), manners),
        Peer::start(&net, addr(2), manners),
    );
    let caller = Caller::new(&net, &[addr(1), addr(2)]);
    caller.until(addr(1), Connectivity::Ready).await;
    caller.until(addr(2), Connectivity::Ready).await;

    let before = calls(&caller, 200);
    tokio::time::sleep(10 * MS).await;
    let taken = leaving.handled_count();
    assert!(taken > 20, "{taken}");
    leaving.drain();
    let mut client = caller.client();
    for number in 200..400 {
        check(&mut client, &number.to_string()).await.unwrap();
    }
    assert_eq!(vec![Code::Ok; 200], outcomes(before).await);

    let mut handled = leaving.handled();
    for (name, times) in staying.handled() {
        *handled.entry(name).or_default() += times;
    }
    assert_eq!(400, handled.len());
    assert!(handled.values().all(|times| *times == 1));
    caller.stop().await;
}

/// Goal: what the platform says of a request's earlier attempts cannot be said by a caller, as the
/// metadata of the call it serves, passed on.
/// Method: a call that claims to be the fourth try; what the peer reads.
#[tokio::test(start_paused = true)]
async fn earlier_attempts_are_the_platforms_to_tell() {
    let net = Net::default();
    let mut listener = net.listen(addr(1));
    let caller = Caller::new(&net, &[addr(1)]);
    let mut request = tonic::Request::new(HealthCheckRequest::default());
    let claimed = "3".parse().unwrap();
    let name = "grpc-previous-rpc-attempts";
    request.metadata_mut().insert(name, claimed);
    let mut client = caller.client();
    let call = spawn(async move { patient(client.check(request)).await });

    let io = listener.recv().await.unwrap();
    let mut connection = h2::server::handshake(io).await.unwrap();
    let (request, respond) = connection.accept().await.unwrap().unwrap();
    assert_eq!(None, request.headers().get(name));
    drop((respond, connection));
    call.await.unwrap().unwrap_err();
    caller.stop().await;
}
