//! The end of a server with calls in flight.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tonic::{Code, Response};

use super::probe::{Messages, Probe, STREAM, Served, UNARY};
use crate::{
    server::Stack,
    transport::{
        server::Handle,
        wire::{Wire, framed},
    },
};

const BOUND: Duration = Duration::from_secs(20);

/// How long ended calls and their connections may take to say so.
const FAREWELL: Duration = Duration::from_secs(1);

fn slow(takes: Duration) -> Probe {
    Probe::unary(move |request| async move {
        sleep(takes).await;
        Ok(Response::new(request.into_inner()))
    })
}

async fn wire(served: &Served) -> Wire {
    Wire::over(served.connector.connect().await.unwrap()).await
}

/// As a process does it: nothing new, then the end of the calls that are left, then the cut.
#[allow(clippy::disallowed_methods)]
fn drain(stack: &Stack, listener: &Handle) -> tokio::task::JoinHandle<Duration> {
    let (stack, listener) = (stack.clone(), listener.clone());
    tokio::spawn(async move {
        let began = Instant::now();
        listener.drain();
        if timeout(BOUND, listener.closed()).await.is_err() {
            stack.end_calls();
            if timeout(FAREWELL, listener.closed()).await.is_err() {
                listener.cut();
                listener.closed().await;
            }
        }
        began.elapsed()
    })
}

/// Goal: a drain waits for calls in flight, and no longer.
/// Method: a call of two seconds, begun just before.
#[tokio::test(start_paused = true)]
async fn calls_in_flight_are_finished() {
    let served = Served::probe(slow(Duration::from_secs(2)));
    let wire = wire(&served).await;
    let mut sent = wire.send(Wire::request(UNARY)).await.unwrap();
    sent.requests.send_data(framed(b"one"), true).unwrap();
    sleep(Duration::from_secs(1)).await;

    let drained = drain(&served.stack, &served.listener);
    let reply = sent.reply().await.unwrap();
    assert_eq!(Some(Code::Ok), reply.code());
    let took = drained.await.unwrap();
    assert!(took < Duration::from_millis(1_100), "{took:?}");
    assert_eq!(0, served.listener.counts().open);
}

/// Goal: calls on their way when the drain begins are served, none is lost.
/// Method: a burst of calls is sent in the same moment, before anything of the GOAWAY is read;
/// each is answered or was refused by the client itself for the GOAWAY it had read.
#[tokio::test(start_paused = true)]
async fn calls_that_cross_the_goaway_are_served() {
    let served = Served::probe(slow(Duration::from_millis(50)));
    let wire = wire(&served).await;
    wire.call(Wire::request(UNARY), b"warm").await.unwrap();
    let mut all = Vec::new();
    for number in 0..50_u8 {
        if number == 25 {
            served.listener.drain();
        }
        let mut sent = wire.send(Wire::request(UNARY)).await.unwrap();
        sent.requests.send_data(framed(&[number]), true).unwrap();
        all.push(sent);
    }
    for (number, sent) in (0..).zip(all) {
        let reply = sent.reply().await.expect("none is lost");
        assert_eq!(framed(&[number]), reply.data);
        assert_eq!(Some(Code::Ok), reply.code());
    }
    timeout(Duration::from_secs(1), served.listener.closed())
        .await
        .expect("and then it closes");
}

/// Goal: a connection that waits in the backlog when the drain begins is served or told to go
/// away in good order, so that its client knows that nothing was lost; it is never broken off.
/// Method: connect and drain in one moment, then call.
#[tokio::test(start_paused = true)]
async fn the_backlog_is_taken_in() {
    let served = Served::probe(slow(Duration::ZERO));
    let first = served.connector.connect().await.unwrap();
    let second = served.connector.connect().await.unwrap();
    served.listener.drain();
    for io in [first, second] {
        let wire = Wire::over(io).await;
        match wire.call(Wire::request(UNARY), b"one").await {
            Ok(reply) => assert_eq!(Some(Code::Ok), reply.code()),
            Err(error) => {
                assert!(error.is_go_away() && error.is_remote(), "{error}");
                assert_eq!(Some(h2::Reason::NO_ERROR), error.reason());
            }
        }
    }
    served.listener.closed().await;
    assert!(served.connector.connect().await.is_err(), "nobody listens");
}

/// Goal: a stream that does not end by itself ends at the bound, with a status that sends its
/// caller elsewhere at once.
/// Method: an open stream, drained; and a call that arrives after the bound.
#[tokio::test(start_paused = true)]
async fn streams_end_at_the_bound() {
    let served = Served::probe(Probe::stream(|_| async {
        let messages: Messages = Box::pin(tokio_stream::pending());
        Ok(Response::new(messages))
    }));
    let wire = wire(&served).await;
    let sent = wire.send(Wire::request(STREAM)).await.unwrap();
    let drained = drain(&served.stack, &served.listener);
    let reply = sent.reply().await.unwrap();
    assert_eq!(Some(Code::Unavailable), reply.code());
    assert_eq!("0", reply.trailers["grpc-retry-pushback-ms"]);
    let took = drained.await.unwrap();
    let bound = BOUND..BOUND + Duration::from_millis(100);
    assert!(bound.contains(&took), "{took:?}");
}

/// Goal: a peer that takes no part in the farewell does not hold up the drain.
/// Method: one connection that never said anything, one whose owner reads nothing any more.
#[tokio::test(start_paused = true)]
async fn a_silent_peer_does_not_hold_up_the_drain() {
    let served = Served::probe(slow(Duration::ZERO));
    let _silent = served.connector.connect().await.unwrap();
    sleep(Duration::from_secs(1)).await;
    let took = drain(&served.stack, &served.listener).await.unwrap();
    assert!(took <= Duration::from_millis(1_010), "{took:?}");
}
