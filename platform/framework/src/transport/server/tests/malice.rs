//! Peers that send nothing, too little, too much, or something else.

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream},
    time::Instant,
};

use super::*;
use crate::transport::wire::until_closed;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const FIRST_REQUEST: Duration = Duration::from_secs(10);

/// What a peer that is told to go away first may take to read it.
const FAREWELL: Duration = Duration::from_millis(1_010);

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const ENHANCE_YOUR_CALM: u8 = 11;

/// POST / over http, by the static table.
const HEAD: &[u8] = &[0x83, 0x84, 0x86];

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// Kind, stream and payload of each frame.
fn frames(mut bytes: &[u8]) -> Vec<(u8, u32, Vec<u8>)> {
    let mut found = Vec::new();
    while let [a, b, c, kind, _, s0, s1, s2, s3, rest @ ..] = bytes {
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        let stream = u32::from_be_bytes([*s0, *s1, *s2, *s3]);
        found.push((*kind, stream, rest[..length].to_vec()));
        bytes = &rest[length..];
    }
    found
}

/// The reason of the last GOAWAY.
fn goaway(bytes: &[u8]) -> Option<u8> {
    let frames = frames(bytes);
    let last = frames.iter().rfind(|(kind, ..)| *kind == GOAWAY)?;
    Some(last.2[7])
}

async fn opened(connector: &memory::Connector) -> DuplexStream {
    connector.connect().await.unwrap()
}

/// Goal: whoever has not sent a whole request head in time is cut, however far it got, and counted.
/// Method: nothing; half a preface; a preface byte by byte; a preface alone; half a head.
#[tokio::test(start_paused = true)]
async fn a_peer_without_a_first_request_is_cut_in_time() {
    let opening = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
    let half_head = frame(HEADERS, 0, 1, &HEAD[..1]);
    let cases: [(&str, Vec<u8>, Duration); 5] = [
        ("nothing", Vec::new(), Duration::ZERO),
        ("half a preface", PREFACE[..12].to_vec(), Duration::ZERO),
        ("a slow preface", PREFACE.to_vec(), Duration::from_secs(1)),
        ("no request", opening.clone(), Duration::ZERO),
        ("half a head", [opening, half_head].concat(), Duration::ZERO),
    ];
    for (case, bytes, pause) in cases {
        let (connector, handle) = in_memory(limits());
        let began = Instant::now();
        let (mut read, mut write) = tokio::io::split(opened(&connector).await);
        let sending = async {
            for byte in bytes {
                if write.write_all(&[byte]).await.is_err() {
                    break;
                }
                sleep(pause).await;
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = sending => {}
            closed = in_time(until_closed(&mut read)) => drop(closed),
        }
        let took = began.elapsed();
        let bound = FIRST_REQUEST..FIRST_REQUEST + FAREWELL;
        assert!(bound.contains(&took), "{case}: {took:?}");
        assert_eq!(1, handle.counts().refused(Refused::FirstRequest), "{case}");
        assert_eq!(0, handle.counts().open, "{case}");
    }
}

/// Goal: a peer that opened HTTP/2 and asked for nothing is told to go away before it is cut.
/// Method: read what it is sent.
#[tokio::test(start_paused = true)]
async fn an_honest_peer_without_a_request_is_told() {
    let (connector, _handle) = in_memory(limits());
    let mut peer = settled(&connector).await;
    let sent = in_time(until_closed(&mut peer)).await.unwrap();
    assert_eq!(Some(0), goaway(&sent));
}

/// A peer that has opened HTTP/2 and asked for nothing.
pub(super) async fn settled(connector: &memory::Connector) -> DuplexStream {
    let mut peer = opened(connector).await;
    peer.write_all(PREFACE).await.unwrap();
    peer.write_all(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
    peer
}

/// The first call of a connection, for `path`.
pub(super) fn call_for(path: &str) -> Vec<u8> {
    let length = u8::try_from(path.len()).unwrap();
    let head = [&HEAD[..1], &[0x04, length], path.as_bytes(), &HEAD[2..]].concat();
    frame(HEADERS, END_HEADERS | END_STREAM, 1, &head)
}

/// Room for an answer to that call, so that nothing but the stream under it holds it up.
pub(super) fn room(bytes: usize) -> Vec<u8> {
    let bytes = u32::try_from(bytes).unwrap().to_be_bytes();
    let update = |stream| frame(WINDOW_UPDATE, 0, stream, &bytes);
    [update(0), update(1)].concat()
}

/// Whether that call was reset.
pub(super) fn is_reset(sent: &[u8]) -> bool {
    let reset = |(kind, stream, _): &(u8, u32, _)| (*kind, *stream) == (RST_STREAM, 1);
    frames(sent).iter().any(reset)
}

/// How much of the answer to that call was sent.
pub(super) fn data(sent: &[u8]) -> usize {
    let data = frames(sent).into_iter();
    let data = data.filter(|(kind, stream, _)| (*kind, *stream) == (DATA, 1));
    data.map(|(.., payload)| payload.len()).sum()
}

/// Whether that call was.
pub(super) fn answered(sent: &[u8]) -> bool {
    let answer = |(kind, stream, _): &(u8, u32, _)| (*kind, *stream) == (HEADERS, 1);
    frames(sent).iter().any(answer)
}

/// A peer that sends its first call, for `path`, once it was told to go away and before it is cut.
async fn crossing(path: &str, limits: Limits) -> (DuplexStream, Handle) {
    let (connector, handle) = in_memory(limits);
    let mut peer = settled(&connector).await;
    sleep(FIRST_REQUEST + FAREWELL / 2).await;
    assert_eq!(1, handle.counts().refused(Refused::FirstRequest));
    peer.write_all(&call_for(path)).await.unwrap();
    (peer, handle)
}

/// Goal: a first call that crosses the farewell is finished, within the grace.
/// Method: a slow one.
#[tokio::test(start_paused = true)]
async fn a_call_that_crosses_the_farewell_is_finished() {
    let (mut peer, _handle) = crossing(SLOW_PATH, limits()).await;
    let sent = in_time(until_closed(&mut peer)).await.unwrap();
    assert!(answered(&sent), "{sent:?}");
}

/// Goal: a call that crosses the farewell and does not end is cut after the grace, not before.
/// Method: one that is never answered; its peer is asked for no sign of life.
#[tokio::test(start_paused = true)]
async fn a_call_that_crosses_the_farewell_does_not_hold_the_connection() {
    let grace = Duration::from_secs(20);
    let limits = Limits {
        connection_age_grace: grace,
        keepalive_interval: Duration::from_hours(10),
        ..limits()
    };
    let began = Instant::now();
    let (mut peer, handle) = crossing(NEVER_PATH, limits).await;
    drop(in_time(until_closed(&mut peer)).await);
    let took = began.elapsed();
    let end = FIRST_REQUEST + grace;
    assert!((end..end + FAREWELL * 2).contains(&took), "{took:?}");
    assert_eq!(0, handle.counts().open);
}

/// Goal: the time to the first request is no limit on what comes after.
/// Method: a call, a pause longer than that time, a call.
#[tokio::test(start_paused = true)]
async fn a_connection_that_was_used_stays() {
    let (connector, handle) = in_memory(limits());
    let wire = connected(&connector).await;
    wire.call(Wire::request(PATH), b"").await.unwrap();
    sleep(FIRST_REQUEST * 3).await;
    wire.call(Wire::request(PATH), b"").await.unwrap();
    assert_eq!(0, handle.counts().refused(Refused::FirstRequest));
}

/// Goal: what is not HTTP/2 is closed at once, and counted.
/// Method: a request of HTTP/1, a TLS hello, and noise.
#[tokio::test(start_paused = true)]
async fn garbage_is_closed_at_once() {
    let cases: [&[u8]; 3] = [
        b"GET / HTTP/1.1\r\nHost: here\r\n\r\n",
        &[
            0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03, 1, 2, 3, 4, 5, 6, 7,
            8, 9,
        ],
        &[0xff; 100],
    ];
    for bytes in cases {
        let (connector, handle) = in_memory(limits());
        let began = Instant::now();
        let mut peer = opened(&connector).await;
        peer.write_all(bytes).await.unwrap();
        drop(in_time(until_closed(&mut peer)).await);
        assert!(began.elapsed() < Duration::from_millis(2), "{bytes:?}");
        assert_eq!(1, handle.counts().refused(Refused::Protocol), "{bytes:?}");
    }
}

/// Goal: the limits a peer is told are those configured.
/// Method: read the first frames.
#[tokio::test(start_paused = true)]
async fn limits_are_announced() {
    let (connector, _handle) = in_memory(limits());
    let mut peer = settled(&connector).await;
    let sent = in_time(until_closed(&mut peer)).await.unwrap();

    let frames = frames(&sent);
    let (_, _, settings) = frames.iter().find(|it| it.0 == SETTINGS).unwrap();
    let setting = |wanted: u16| {
        let found = settings
            .chunks(6)
            .find(|it| it[..2] == wanted.to_be_bytes());
        found.map(|it| u32::from_be_bytes([it[2], it[3], it[4], it[5]]))
    };
    assert_eq!(Some(100), setting(3), "streams");
    assert_eq!(Some(256 * 1_024), setting(4), "bytes ahead on a stream");
    assert_eq!(Some(16 * 1_024), setting(6), "header list");
    let (_, _, more) = frames
        .iter()
        .find(|(kind, stream, _)| *kind == WINDOW_UPDATE && *stream == 0)
        .unwrap();
    let window = 65_535 + u32::from_be_bytes([more[0], more[1], more[2], more[3]]);
    assert_eq!(1_024 * 1_024, window, "bytes ahead on a connection");
}

/// Goal: headers beyond the limit are refused, and cost the caller that call alone.
/// Method: twenty kilobytes of them, then a call of the usual size.
#[tokio::test(start_paused = true)]
async fn a_large_header_list_is_refused() {
    let (connector, _handle) = in_memory(limits());
    let wire = connected(&connector).await;
    let mut large = Wire::request(PATH);
    let value = "x".repeat(20_000).parse().unwrap();
    large.headers_mut().insert("large", value);
    if let Ok(reply) = wire.call(large, b"").await {
        assert_eq!(431, reply.status.as_u16());
    }
    let reply = wire.call(Wire::request(PATH), b"").await.unwrap();
    assert_eq!(200, reply.status.as_u16());
}

async fn flood(limits: Limits, attack: Vec<u8>) -> Option<u8> {
    let (connector, _handle) = in_memory(limits);
    let (mut read, mut write) = tokio::io::split(opened(&connector).await);
    let attack = [PREFACE.to_vec(), frame(SETTINGS, 0, 0, &[]), attack].concat();
    let sending = async {
        drop(write.write_all(&attack).await);
        std::future::pending::<()>().await;
    };
    let mut sent = Vec::new();
    tokio::select! {
        () = sending => {}
        read = in_time(read.read_to_end(&mut sent)) => drop(read),
    }
    goaway(&sent)
}

/// Goal: calls opened and cancelled in a loop end the connection (Rapid Reset).
/// Method: more of them in one write than may be pending.
#[tokio::test(start_paused = true)]
async fn a_loop_of_resets_ends_the_connection() {
    let attack = (0..1_000_u32).flat_map(|call| {
        let stream = 2 * call + 1;
        let reset = frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes());
        [frame(HEADERS, END_HEADERS, stream, HEAD), reset].concat()
    });
    let attack: Vec<u8> = attack.collect();
    assert_eq!(
        Some(ENHANCE_YOUR_CALM),
        flood(limits(), attack.clone()).await
    );

    // The limit is the configured one: with a larger one the same attack is borne.
    let lenient = Limits {
        streams_reset_pending_max: 2_000,
        ..limits()
    };
    assert_eq!(Some(0), flood(lenient, attack).await);
}

/// Begins so many calls and gives up those of `given_up` once they run, or waits for the answer.
async fn call_and_give_up(calls: u32, given_up: impl Fn(u32) -> bool, pause: Duration) -> Handle {
    let (connector, handle) = in_memory(limits());
    let wire = connected(&connector).await;
    until(|| handle.counts().open == 1).await;
    for call in 0..calls {
        let path = if given_up(call) { NEVER_PATH } else { PATH };
        let Ok(sent) = wire.send(Wire::request(path)).await else {
            break;
        };
        let begun = u64::from(call) + 1;
        let is = |condition: fn(&ConnectionInfo, u64) -> bool| {
            let connections = handle.connections();
            connections.first().is_none_or(|it| condition(it, begun))
        };
        if given_up(call) {
            until(|| is(|it, begun| it.streams_total == begun)).await;
            drop(sent);
            until(|| is(|it, _| it.streams_open == 0)).await;
        } else {
            sent.reply().await.unwrap();
        }
        sleep(pause).await;
    }
    handle
}

/// Goal: a peer that begins calls only to give them up is cut; one that does it slowly, or among
/// calls that it lets end, is not.
/// Method: more than allowed, each given up once it runs: at once, over some seconds, and every
/// third one.
#[tokio::test(start_paused = true)]
async fn calls_given_up_in_a_loop_end_the_connection() {
    let all = |_| true;
    let handle = call_and_give_up(251, all, Duration::ZERO).await;
    until(|| handle.counts().open == 0).await;

    let slow = call_and_give_up(600, all, Duration::from_millis(10)).await;

    assert_eq!(1, slow.counts().open, "slowly");

    let every_third = |call| call % 3 == 0;
    let mixed = call_and_give_up(900, every_third, Duration::ZERO).await;
    assert_eq!(1, mixed.counts().open, "every third");
}

/// Goal: callers that stop waiting when their time is over, all at once, are no attack.
/// Method: a full connection of calls, given up in the second half of the time they gave, and in the
/// first.
#[tokio::test(start_paused = true)]
async fn calls_given_up_at_their_deadline_are_let_be() {
    for (waited, open) in [(PATIENCE / 2, 1), (PATIENCE / 3, 0)] {
        let limits = Limits {
            streams_abandoned_max: 50,
            ..limits()
        };
        let (connector, handle) = in_memory(limits);
        let wire = connected(&connector).await;
        let mut calls = Vec::new();
        for _ in 0..100 {
            calls.push(wire.send(Wire::request(PATIENT_PATH)).await.unwrap());
        }
        let begun = |it: &ConnectionInfo| it.streams_open == 100;
        until(|| handle.connections().first().is_some_and(begun)).await;
        sleep(waited).await;
        drop(calls);
        until(|| {
            let connections = handle.connections();
            connections.iter().all(|it| it.streams_open == 0)
        })
        .await;
        // The cut itself comes a turn later.
        until(|| handle.counts().open == open).await;
        let counted = handle.counts().refused(Refused::GivenUp);
        assert_eq!(1 - open as u64, counted, "{waited:?}");
    }
}

/// Goal: errors that make us reset calls end the connection beyond the limit (`MadeYouReset`).
/// Method: windows that overflow, one call after the other.
#[tokio::test(start_paused = true)]
async fn forced_resets_end_the_connection() {
    let attack = (0..60_u32).flat_map(|call| {
        let stream = 2 * call + 1;
        let overflow = frame(WINDOW_UPDATE, 0, stream, &0x7fff_ffff_u32.to_be_bytes());
        [frame(HEADERS, END_HEADERS, stream, HEAD), overflow].concat()
    });
    let attack: Vec<u8> = attack.collect();
    let strict = Limits {
        streams_reset_max: 10,
        ..limits()
    };
    assert_eq!(Some(ENHANCE_YOUR_CALM), flood(strict, attack.clone()).await);
    assert_ne!(Some(ENHANCE_YOUR_CALM), flood(limits(), attack).await);
}

/// Goal: a head that never ends is cut off by its size, not by memory.
/// Method: CONTINUATION frames without end.
#[tokio::test(start_paused = true)]
async fn an_endless_head_ends_the_connection() {
    let mut attack = frame(HEADERS, 0, 1, HEAD);
    for _ in 0..1_000 {
        attack.extend(frame(CONTINUATION, 0, 1, &[0x00, 0x01, b'a', 0x01, b'b']));
    }
    let reason = flood(limits(), attack).await;
    assert_eq!(Some(ENHANCE_YOUR_CALM), reason);
}

/// Goal: a peer that vanished without a word is noticed.
/// Method: a call that stays open, from a client that then answers nothing.
#[tokio::test(start_paused = true)]
async fn a_vanished_peer_is_noticed() {
    let (connector, handle) = in_memory(limits());
    let io = opened(&connector).await;
    let (send, mut connection) = h2::client::handshake(io).await.unwrap();
    let call = async {
        let mut send = send.ready().await.unwrap();
        let call = send.send_request(Wire::request(NEVER_PATH), true).unwrap();
        while handle
            .connections()
            .first()
            .is_none_or(|it| it.streams_open == 0)
        {
            sleep(Duration::from_millis(1)).await;
        }
        (send, call)
    };
    let _held = tokio::select! {
        held = call => held,
        _ = &mut connection => panic!("the server is there"),
    };
    let began = Instant::now();
    in_time(async {
        while handle.counts().open > 0 {
            sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
    let took = began.elapsed();
    let due = Duration::from_secs(75)..Duration::from_secs(85);
    assert!(due.contains(&took), "{took:?}");
}
