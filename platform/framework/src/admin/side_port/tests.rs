//! Connections of the side port whose peers do not do their part.

use bytes::Bytes;
use http_body_util::Full;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream},
    time::{Instant, sleep, timeout},
};

use super::*;
use crate::{journal::Journal, transport::wire::until_closed};

const HEAD: &str = "GET / HTTP/1.1\r\nhost: localhost\r\n\r\n";

/// More than the connection holds by itself.
const LONG: usize = 1 << 20;

/// The peer's end of a connection that answers every request with `length` bytes.
fn connected(length: usize) -> DuplexStream {
    let (peer, io) = tokio::io::duplex(1 << 10);
    let tasks = Tasks::new(Journal::new());
    let answer = move |_| async move {
        Response::new(Body::new(Full::new(Bytes::from(vec![b'x'; length]))))
    };
    let from = SocketAddr::from(([127, 0, 0, 1], 1));
    tasks.spawn("connection", connection(io, from, tasks.clone(), answer));
    peer
}

/// Bounds, on the paused clock, what would never end where a defence is missing.
async fn closed_after(began: Instant, peer: &mut DuplexStream) -> Duration {
    let closed = timeout(Duration::from_hours(1), until_closed(peer)).await;
    drop(closed.expect("the connection is cut"));
    began.elapsed()
}

/// Goal: whoever does not send a whole request head in time is cut, the first one and any later.
/// Method: nothing; half a head; a request, read, and half of another; a request and nothing more.
#[tokio::test(start_paused = true)]
async fn a_request_that_does_not_come_is_not_waited_for() {
    let cases = [
        ("nothing", String::new()),
        ("half a head", HEAD[..20].to_owned()),
        ("half of a second", [HEAD, &HEAD[..20]].concat()),
        ("no second", HEAD.to_owned()),
    ];
    for (case, bytes) in cases {
        let mut peer = connected(1);
        let began = Instant::now();
        peer.write_all(bytes.as_bytes()).await.unwrap();
        let took = closed_after(began, &mut peer).await;
        let due = REQUEST_TIMEOUT..REQUEST_TIMEOUT + Duration::from_secs(1);
        assert!(due.contains(&took), "{case}: {took:?}");
    }
}

/// Goal: whoever asks and does not read is cut within seconds; whoever reads slowly is not.
/// Method: an answer longer than what waits in between; nothing of it is read, or a piece of it
/// now and then until it is there.
#[tokio::test(start_paused = true)]
async fn an_answer_that_is_not_read_is_not_waited_for() {
    let mut peer = connected(LONG);
    peer.write_all(HEAD.as_bytes()).await.unwrap();
    sleep(STALL_MAX + Duration::from_millis(100)).await;
    let sent = timeout(Duration::ZERO, until_closed(&mut peer)).await;
    let sent = sent.expect("the connection is cut").unwrap();
    assert!(sent.len() < LONG, "{}", sent.len());

    let mut peer = connected(LONG);
    peer.write_all(HEAD.as_bytes()).await.unwrap();
    let mut read = 0;
    let mut piece = vec![0; LONG / 8];
    for _ in 0..7 {
        sleep(STALL_MAX * 9 / 10).await;
        read += peer.read_exact(&mut piece).await.unwrap();
    }
    let rest = timeout(REQUEST_TIMEOUT * 2, until_closed(&mut peer)).await;
    read += rest.expect("the answer ends").unwrap().len();
    assert!(read > LONG, "{read}");
}
