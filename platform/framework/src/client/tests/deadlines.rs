//! When a call's caller stops waiting, everybody learns it.

use super::{
    net::addr,
    raw::{self, Raw, SERVING},
    *,
};
use tonic::Request;

use crate::{
    call::{self, TraceContext},
    config::Publisher,
    deadline,
};

/// A peer that notes the `grpc-timeout` of requests and lets them hang.
fn hanging(net: &Net) -> tokio::sync::mpsc::Receiver<Option<Duration>> {
    let (sender, receiver) = tokio::sync::mpsc::channel(16);
    let mut listener = net.listen(addr(1));
    spawn(async move {
        while let Some(io) = listener.recv().await {
            let mut connection = h2::server::handshake(io).await.unwrap();
            let mut held = Vec::new();
            while let Some(Ok((request, respond))) = connection.accept().await {
                let timeout = request.headers().get(&GRPC_TIMEOUT);
                let timeout = timeout.map(|value| deadline::parse_timeout(value).unwrap());
                sender.send(timeout).await.unwrap();
                held.push((request, respond));
            }
        }
    });
    receiver
}

fn serving(deadline: Option<Deadline>) -> Arc<call::Context> {
    Arc::new(call::Context {
        method: &METHODS[0],
        peer: None,
        deadline,
        trace: TraceContext::root(false),
        previous_attempts: 0,
        criticality: None,
        ended: call::Ended::default(),
    })
}

/// Goal: a unary call whose caller sets no deadline has the default one; a stream has none.
/// Method: both against a peer that never answers.
#[tokio::test(start_paused = true)]
async fn unary_calls_end_by_default_and_streams_do_not() {
    let net = Net::default();
    let mut timeouts = hanging(&net);
    let caller = Caller::new(&net, &[addr(1)]);
    let began = Instant::now();
    assert_eq!(Code::DeadlineExceeded, code(&caller.check("x").await));
    assert_eq!(5, began.elapsed().as_secs());
    let sent = timeouts.recv().await.unwrap().unwrap();
    assert!((4_900 * MS..=5_000 * MS).contains(&sent), "{sent:?}");

    let mut client = caller.client();
    let watch = client.watch(HealthCheckRequest::default());
    let ended = tokio::time::timeout(Duration::from_mins(10), watch).await;
    assert!(ended.is_err());
    assert_eq!(None, timeouts.recv().await.unwrap());
    caller.stop().await;
}

/// Goal: the policy of a method takes the place of the default deadline, cuts a longer one that a
/// caller sets, bounds streams too, and can change between two calls.
/// Method: what a peer is told, with a policy for the service and then with none.
#[tokio::test(start_paused = true)]
async fn a_policy_bounds_calls_and_streams() {
    let net = Net::default();
    let mut timeouts = hanging(&net);
    let mut caller = Caller::new(&net, &[addr(1)]);
    let policy = Policy {
        timeout: Duration::from_secs(2),
        ..Policy::default()
    };
    let table = BTreeMap::from([("grpc.health.v1.Health/*".to_owned(), policy)]);
    let mut publisher = Publisher::new(table);
    caller.clients = caller
        .clients
        .with_policies(Policies::new(&publisher.live()));
    let mut client = caller.client();
    let mut longer = Request::new(HealthCheckRequest::default());
    longer.set_timeout(Duration::from_secs(4));

    for result in [
        caller.check("x").await.map(drop),
        client.check(longer).await.map(drop),
        client.watch(HealthCheckRequest::default()).await.map(drop),
    ] {
        assert_eq!(Code::DeadlineExceeded, code(&result));
        let sent = timeouts.recv().await.unwrap().unwrap();
        assert!((1_900 * MS..=2_000 * MS).contains(&sent), "{sent:?}");
    }

    publisher.publish(BTreeMap::new());
    assert_eq!(Code::DeadlineExceeded, code(&caller.check("x").await));
    let sent = timeouts.recv().await.unwrap().unwrap();
    assert!((4_900 * MS..=5_000 * MS).contains(&sent), "{sent:?}");
    caller.stop().await;
}

/// Goal: what a handler calls inherits what is left to it, less a margin, and never more than it
/// asks for itself.
/// Method: calls inside a served call with 100 ms, with and without a timeout of their own.
#[tokio::test(start_paused = true)]
async fn the_deadline_of_the_call_being_served_is_inherited() {
    let net = Net::default();
    let mut timeouts = hanging(&net);
    let caller = Caller::new(&net, &[addr(1)]);
    caller.until(addr(1), Connectivity::Ready).await;
    for (own, expected) in [
        (None, 99 * MS),
        (Some(40 * MS), 40 * MS),
        (Some(Duration::from_secs(9)), 99 * MS),
    ] {
        let context = serving(Deadline::after(100 * MS));
        let mut client = caller.client();
        let mut request = tonic::Request::new(HealthCheckRequest::default());
        if let Some(own) = own {
            request.set_timeout(own);
        }
        let began = Instant::now();
        let status = call::Scoped::new(context, client.check(request))
            .await
            .unwrap_err();
        assert_eq!(Code::DeadlineExceeded, status.code());
        // Timers have a resolution of one millisecond.
        let took = began.elapsed();
        assert!(took >= expected && took <= expected + 2 * MS, "{took:?}");
        let sent = timeouts.recv().await.unwrap().unwrap();
        assert!(sent <= expected && sent + 2 * MS >= expected, "{sent:?}");
    }
    caller.stop().await;
}

/// Goal: what is left of a deadline goes along a chain of calls, less what was spent on the way; where
/// nothing is left, nothing is sent.
/// Method: the reference's chain: 100 ms, of which the first service spends 30 and the second 20; then
/// a second that spends all.
#[tokio::test(start_paused = true)]
async fn a_deadline_is_spent_along_the_way() {
    let net = Net::default();
    let mut timeouts = hanging(&net);
    let caller = Caller::new(&net, &[addr(1)]);
    caller.until(addr(1), Connectivity::Ready).await;
    let hop = async |left: Duration, spent: Duration| {
        let context = serving(Deadline::after(left));
        tokio::time::sleep(spent).await;
        let mut client = caller.client();
        let call = client.check(HealthCheckRequest::default());
        let ended = call::Scoped::new(context, call).await;
        assert_eq!(Code::DeadlineExceeded, ended.unwrap_err().code());
    };
    hop(100 * MS, 30 * MS).await;
    let left = timeouts.recv().await.unwrap().unwrap();
    hop(left, 20 * MS).await;
    let third = timeouts.recv().await.unwrap().unwrap();
    assert!(third > 43 * MS && third <= 50 * MS, "{third:?}");
    hop(left, 80 * MS).await;
    assert!(timeouts.try_recv().is_err(), "there was no time left");
    caller.stop().await;
}

/// Goal: a peer that gives up at the deadline is heard as that, also before headers and before
/// our own clock.
/// Method: reset with CANCEL while the call is not looked at, and let the deadline pass.
#[tokio::test(start_paused = true)]
async fn a_reset_at_the_deadline_is_the_deadline() {
    let net = Net::default();
    let mut listener = net.listen(addr(1));
    let (asked, mut was_asked) = tokio::sync::mpsc::channel(1);
    spawn(async move {
        let mut peer = Raw::accept(listener.recv().await.unwrap(), &[]).await;
        let stream = peer.request().await;
        peer.reset(stream, raw::CANCEL).await;
        asked.send(()).await.unwrap();
        peer.next().await;
    });
    let caller = Caller::new(&net, &[addr(1)]);
    caller.until(addr(1), Connectivity::Ready).await;
    let mut client = caller.client();
    let mut request = tonic::Request::new(HealthCheckRequest::default());
    request.set_timeout(100 * MS);
    let mut call = std::pin::pin!(client.check(request));
    assert!(futures_util::poll!(&mut call).is_pending());
    was_asked.recv().await.unwrap();
    tokio::time::sleep(200 * MS).await;

    let status = call.await.unwrap_err();
    assert_eq!(Code::DeadlineExceeded, status.code(), "{status}");
    caller.stop().await;
}

/// Goal: a call that is too late is not sent.
/// Method: a served call whose deadline has passed.
#[tokio::test(start_paused = true)]
async fn a_call_that_is_too_late_is_not_sent() {
    let net = Net::default();
    let mut timeouts = hanging(&net);
    let caller = Caller::new(&net, &[addr(1)]);
    caller.until(addr(1), Connectivity::Ready).await;
    let context = serving(Deadline::after(MS));
    let began = Instant::now();
    let outcome = call::Scoped::new(context, caller.check("x")).await;
    assert_eq!(Code::DeadlineExceeded, code(&outcome));
    assert_eq!(Duration::ZERO, began.elapsed());
    caller.stop().await;
    assert!(timeouts.try_recv().is_err());
}

/// Goal: a deadline holds for the body of an answer, and the peer is told.
/// Method: head and a message in time, then nothing; the peer waits for the reset.
#[tokio::test(start_paused = true)]
async fn a_deadline_holds_to_the_end_of_the_body() {
    let net = Net::default();
    let mut listener = net.listen(addr(1));
    let caller = Caller::new(&net, &[addr(1)]);
    let peer = spawn(async move {
        let mut peer = Raw::accept(listener.recv().await.unwrap(), &[]).await;
        let stream = peer.request().await;
        peer.begin(stream).await;
        peer.data(stream, SERVING, false).await;
        let reset = peer.expect(raw::RST_STREAM).await;
        assert_eq!(stream, reset.stream);
        assert_eq!(&raw::CANCEL.to_be_bytes()[..], &reset.payload);
    });
    let mut request = tonic::Request::new(HealthCheckRequest::default());
    request.set_timeout(100 * MS);
    let mut watch = caller.client().watch(request).await.unwrap().into_inner();
    assert!(watch.message().await.unwrap().is_some());
    let status = patient(watch.message()).await.unwrap_err();
    assert_eq!(Code::DeadlineExceeded, status.code());
    peer.await.unwrap();
    caller.stop().await;
}

/// Goal: a peer that gives up because of the deadline looks like the deadline.
/// Method: it resets with CANCEL just after, when the caller's own clock has not been looked at.
#[tokio::test(start_paused = true)]
async fn a_reset_after_the_deadline_is_the_deadline() {
    for (late, expected) in [(false, Code::Cancelled), (true, Code::DeadlineExceeded)] {
        let net = Net::default();
        let mut listener = net.listen(addr(1));
        let caller = Caller::new(&net, &[addr(1)]);
        let peer = spawn(async move {
            let mut peer = Raw::accept(listener.recv().await.unwrap(), &[]).await;
            let stream = peer.request().await;
            peer.begin(stream).await;
            peer.reset(stream, raw::CANCEL).await;
            peer
        });
        let mut request = tonic::Request::new(HealthCheckRequest::default());
        request.set_timeout(100 * MS);
        let mut watch = caller.client().watch(request).await.unwrap().into_inner();
        // Read late, with the reset in hand: the stream's word comes before the timer's.
        tokio::time::sleep(if late { 200 * MS } else { 50 * MS }).await;
        let status = watch.message().await.unwrap_err();
        assert_eq!(expected, status.code());
        drop(peer.await);
        caller.stop().await;
    }
}

/// Goal: a deadline also holds for a stream that never pauses.
/// Method: a peer that sends for as long as it is let.
#[tokio::test]
async fn a_deadline_ends_a_stream_that_never_pauses() {
    let net = Net::default();
    let mut listener = net.listen(addr(1));
    let caller = Caller::new(&net, &[addr(1)]);
    spawn(async move {
        let mut connection = h2::server::handshake(listener.recv().await.unwrap())
            .await
            .unwrap();
        let (_, mut respond) = connection.accept().await.unwrap().unwrap();
        spawn(async move { while connection.accept().await.is_some() {} });
        let head = Response::builder().header("content-type", "application/grpc");
        let mut stream = respond
            .send_response(head.body(()).unwrap(), false)
            .unwrap();
        // Many messages a frame: a flood of tiny frames is cut by HTTP/2 itself.
        let messages = bytes::Bytes::from(SERVING.repeat(100));
        loop {
            stream.reserve_capacity(messages.len());
            let room = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await;
            let Some(Ok(_)) = room else { break };
            if stream.send_data(messages.clone(), false).is_err() {
                break;
            }
        }
    });
    let mut request = tonic::Request::new(HealthCheckRequest::default());
    request.set_timeout(300 * MS);
    let mut watch = caller.client().watch(request).await.unwrap().into_inner();
    let status = loop {
        if let Err(status) = watch.message().await {
            break status;
        }
    };
    assert_eq!(Code::DeadlineExceeded, status.code());
    caller.stop().await;
}

/// Goal: a peer that knows no deadline is cut by the caller, also where there is always something
/// to read.
/// Method: it sends ten times as fast as its answer is read, and goes on for twenty times as long
/// as the caller waits.
#[tokio::test(start_paused = true)]
async fn a_peer_that_ignores_the_deadline_is_cut() {
    let net = Net::default();
    let mut listener = net.listen(addr(1));
    let caller = Caller::new(&net, &[addr(1)]);
    let peer = spawn(async move {
        let mut peer = Raw::accept(listener.recv().await.unwrap(), &[]).await;
        let stream = peer.request().await;
        peer.begin(stream).await;
        for _ in 0..2_000 {
            peer.data(stream, SERVING, false).await;
            tokio::time::sleep(MS).await;
        }
        peer.expect(raw::RST_STREAM).await
    });
    let began = Instant::now();
    let mut request = tonic::Request::new(HealthCheckRequest::default());
    request.set_timeout(100 * MS);
    let mut watch = caller.client().watch(request).await.unwrap().into_inner();
    let status = loop {
        match patient(watch.message()).await {
            Ok(message) => assert!(message.is_some()),
            Err(status) => break status,
        }
        tokio::time::sleep(10 * MS).await;
    };
    assert_eq!(Code::DeadlineExceeded, status.code(), "{status}");
    let took = began.elapsed();
    assert!((100 * MS..150 * MS).contains(&took), "{took:?}");
    let reset = peer.await.unwrap();
    assert_eq!(&raw::CANCEL.to_be_bytes()[..], &reset.payload);
    caller.stop().await;
}

/// Goal: a call nobody waits for any more is reset at its peer, at once.
/// Method: dropped while waiting for the head, and while reading the body.
#[tokio::test(start_paused = true)]
async fn a_dropped_call_resets_its_stream() {
    for begun in [false, true] {
        let net = Net::default();
        let mut listener = net.listen(addr(1));
        let caller = Caller::new(&net, &[addr(1)]);
        let mut client = caller.client();
        let waiting = spawn(async move {
            let watch = client.watch(HealthCheckRequest::default()).await;
            let mut watch = watch.unwrap().into_inner();
            watch.message().await
        });
        let mut peer = Raw::accept(listener.recv().await.unwrap(), &[]).await;
        let stream = peer.request().await;
        if begun {
            peer.begin(stream).await;
            tokio::time::sleep(MS).await;
        }
        waiting.abort();
        let began = Instant::now();
        let reset = peer.expect(raw::RST_STREAM).await;
        assert_eq!(&raw::CANCEL.to_be_bytes()[..], &reset.payload);
        assert_eq!(Duration::ZERO, began.elapsed());
        caller.stop().await;
    }
}

/// Goal: a caller in a hurry condemns no endpoint; one that waited long enough does.
/// Method: a deadline far below what the peer's calls take, then one far above.
#[tokio::test(start_paused = true)]
async fn only_a_fair_deadline_counts_against_the_endpoint() {
    let net = Net::default();
    let mut listener = net.listen(addr(1));
    let caller = Caller::new(&net, &[addr(1)]);
    let mut client = caller.client();
    let answered = spawn(async move { check(&mut client, "x").await });
    let mut peer = Raw::accept(listener.recv().await.unwrap(), &[]).await;
    let stream = peer.request().await;
    tokio::time::sleep(100 * MS).await;
    peer.answer(stream).await;
    answered.await.unwrap().unwrap();

    for (timeout, condemned) in [(10 * MS, false), (1_000 * MS, true)] {
        let mut request = tonic::Request::new(HealthCheckRequest::default());
        request.set_timeout(timeout);
        let outcome = patient(caller.client().check(request)).await;
        assert_eq!(Code::DeadlineExceeded, outcome.unwrap_err().code());
        let latency = caller.endpoints()[0].latency.unwrap();
        let penalised = latency > Duration::from_secs(4);
        assert_eq!(condemned, penalised, "{timeout:?}: {latency:?}");
    }
    caller.stop().await;
}
