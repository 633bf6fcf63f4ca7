//! Connections that do nothing, and the clients they would keep out.

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
};

use super::*;
use crate::{journal::Kind, transport::wire::until_closed};

/// Where an attacker calls from: not from where everybody else does.
const ATTACKER: &str = "127.0.0.2:0";

/// What a peer that is told to go away first may take to read it.
const FAREWELL: Duration = Duration::from_millis(1_010);

async fn attack(address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(ATTACKER.parse().unwrap()).unwrap();
    socket.connect(address).await.unwrap()
}

/// Eight connections in all; a share keeps nobody from any of them.
fn eight() -> Limits {
    Limits {
        connections_max: 8,
        connections_per_peer_max: 8,
        connections_waiting_max: 8,
        connections_waiting_per_peer_max: 8,
        // Nothing else ends a connection while the test runs.
        first_request_timeout: Duration::from_hours(1),
        ..limits()
    }
}

/// An honest client is let in and served.
async fn honest(address: SocketAddr) -> Wire {
    timeout(Duration::from_secs(10), async {
        let wire = Wire::over(TcpStream::connect(address).await.unwrap()).await;
        let reply = wire.call(Wire::request(PATH), b"").await;
        assert_eq!(200, reply.expect("an answer").status.as_u16());
        wire
    })
    .await
    .expect("in time")
}

/// Goal: who holds every connection without using it keeps nobody out: they are told to go, oldest
/// first; its call in flight goes on, and ends well.
/// Method: an attacker with one call, idle connections of HTTP/2 and silent ones up to the cap; then
/// clients, one after the other.
#[tokio::test]
async fn idle_connections_make_room_for_others() {
    let (address, handle) = on_loopback(&Config::default(), eight());
    let busy = Wire::over(attack(address).await).await;
    let mut call = busy.send(Wire::request(READ_PATH)).await.unwrap();
    let mut idle = Vec::new();
    for _ in 0..4 {
        let wire = Wire::over(attack(address).await).await;
        wire.call(Wire::request(PATH), b"").await.unwrap();
        idle.push(wire);
    }
    let mut silent = Vec::new();
    for _ in 0..3 {
        silent.push(attack(address).await);
    }
    until(|| handle.counts().open == 8 && handle.counts().waiting == 3).await;

    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(honest(address).await);
        // The one on its way out is all that may be of eight.
        until(|| handle.counts().open == 8).await;
    }
    for stream in silent {
        closed(stream).await;
    }
    clients.push(honest(address).await);
    let told = idle[0].ended();
    let told = timeout(Duration::from_secs(10), told).await;
    assert_eq!(Ok(()), told.expect("in time"), "told by GOAWAY");
    until(|| handle.counts().open == 8).await;

    assert_eq!(4, handle.counts().evicted(Evicted::Connections));
    assert_eq!(0, handle.counts().refused(Refused::Connections));
    for client in &clients {
        client.call(Wire::request(PATH), b"").await.unwrap();
    }
    call.requests.send_data(Bytes::new(), true).unwrap();
    assert_eq!(200, call.reply().await.unwrap().status.as_u16());
}

/// Goal: who only has calls in flight keeps its connections, and newcomers are refused.
/// Method: all eight with a call; then a client.
#[tokio::test]
async fn calls_in_flight_are_not_given_up_for_others() {
    let (address, handle) = on_loopback(&Config::default(), eight());
    let mut calls = Vec::new();
    for _ in 0..8 {
        let wire = Wire::over(attack(address).await).await;
        calls.push(wire.send(Wire::request(READ_PATH)).await.unwrap());
    }
    let open = || {
        handle
            .connections()
            .iter()
            .map(|it| it.streams_open)
            .sum::<u64>()
    };
    until(|| open() == 8).await;
    closed(TcpStream::connect(address).await.unwrap()).await;
    assert_eq!(1, handle.counts().refused(Refused::Connections));
    for mut call in calls {
        call.requests.send_data(Bytes::new(), true).unwrap();
        assert_eq!(200, call.reply().await.unwrap().status.as_u16());
    }
}

/// Goal: silent connections up to their cap keep nobody out, over TLS neither, where each is within
/// a handshake.
/// Method: an attacker who connects and says nothing, in plaintext and over TLS.
#[tokio::test]
async fn silent_connections_make_room_for_others() {
    let limits = Limits {
        connections_max: 100,
        connections_waiting_max: 6,
        ..eight()
    };
    let folder = tempfile::tempdir().unwrap();
    let authority = encrypted::Authority::new();
    let tls = encrypted::certify(&authority, folder.path());
    for (config, encrypts) in [(Config::default(), false), (tls, true)] {
        let (address, handle) = on_loopback(&config, limits.clone());
        let mut silent = Vec::new();
        for _ in 0..6 {
            silent.push(attack(address).await);
        }
        until(|| handle.counts().waiting == 6).await;
        for _ in 0..3 {
            if encrypts {
                let stream = encrypted::dial(address, &authority, None).await.unwrap();
                let wire = Wire::over(stream).await;
                wire.call(Wire::request(PATH), b"").await.unwrap();
            } else {
                honest(address).await;
            }
        }
        // The first came into a place that was free once the second had spoken.
        closed(silent.remove(0)).await;
        assert!(handle.counts().evicted(Evicted::Waiting) >= 1);
        assert_eq!(0, handle.counts().refused(Refused::Waiting));
    }
}

/// Goal: idle connections of HTTP/1.1 make room as well; a request under way is answered.
/// Method: an attacker with a request that is answered later and seven that were answered.
#[tokio::test]
async fn idle_connections_of_http1_make_room() {
    let listener = Listener::bind(&Config::default(), eight().live()).unwrap();
    let journal = Journal::new();
    let handle = start_with(listener, Protocols::Http1And2, journal.clone());
    let address = handle.local_addr().unwrap();
    let head = format!("POST {READ_PATH} HTTP/1.1\r\nhost: here\r\ncontent-length: 1\r\n\r\n");
    let mut streams = Vec::new();
    for _ in 0..8 {
        let mut stream = attack(address).await;
        stream.write_all(head.as_bytes()).await.unwrap();
        streams.push(stream);
    }
    let mut busy = streams.remove(0);
    for stream in &mut streams {
        stream.write_all(b"x").await.unwrap();
        answered(stream).await;
    }
    let open = || {
        handle
            .connections()
            .iter()
            .map(|it| it.streams_open)
            .sum::<u64>()
    };
    until(|| open() == 1).await;

    honest(address).await;
    closed(streams.remove(0)).await;
    assert_eq!(1, handle.counts().evicted(Evicted::Connections));
    busy.write_all(b"x").await.unwrap();
    answered(&mut busy).await;
    let entries = journal.watch().0;
    let limits = entries.iter().filter(|it| it.kind == Kind::Limit);
    assert_eq!(1, limits.count(), "{entries:?}");
}

/// Goal: over HTTP/1.1 a request that was on its way as its connection makes room is answered, and the
/// answer says that it is the last.
/// Method: one that is sent once a newcomer has taken the place; on the paused clock.
#[tokio::test(start_paused = true)]
async fn a_request_on_its_way_is_answered() {
    let limits = Limits {
        connections_max: 1,
        ..eight()
    };
    let (connector, incoming) = memory::network();
    let listener = Listener::memory(incoming, limits.live());
    let handle = start_with(listener, Protocols::Http1And2, Journal::new());
    let mut peer = connector.connect().await.unwrap();
    let head = format!("POST {PATH} HTTP/1.1\r\nhost: here\r\ncontent-length: 0\r\n\r\n");
    peer.write_all(head.as_bytes()).await.unwrap();
    let first = answered(&mut peer).await;
    assert!(!first.contains("connection: close"), "{first}");
    let newcomer = connected(&connector).await;
    newcomer.call(Wire::request(PATH), b"").await.unwrap();
    assert_eq!(1, handle.counts().evicted(Evicted::Connections));
    peer.write_all(head.as_bytes()).await.unwrap();
    let last = answered(&mut peer).await;
    assert!(last.contains("\r\nconnection: close\r\n"), "{last}");
    in_time(until_closed(&mut peer)).await.unwrap();
}

/// Waits until the server has closed.
async fn closed(mut stream: TcpStream) {
    let closed = timeout(Duration::from_secs(10), until_closed(&mut stream)).await;
    drop(closed.expect("closed in time"));
}

async fn answered(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut read = Vec::new();
    while !read.ends_with(b"\r\n\r\n") {
        let byte = stream.read_u8().await.expect("an answer");
        read.push(byte);
    }
    assert!(read.starts_with(b"HTTP/1.1 200"), "{read:?}");
    String::from_utf8(read).unwrap()
}

/// Goal: a peer that does not take its leave has a second, and is closed; a call that comes meanwhile
/// is finished.
/// Method: two idle connections whose peers answer nothing, one of which sends a call then; on the
/// paused clock.
#[tokio::test(start_paused = true)]
async fn who_does_not_take_its_leave_is_closed() {
    let limits = Limits {
        connections_max: 1,
        ..eight()
    };
    for asks in [false, true] {
        let (connector, handle) = in_memory(limits.clone());
        let mut peer = malice::settled(&connector).await;
        until(|| handle.counts().open == 1).await;
        let newcomer = connected(&connector).await;
        newcomer.call(Wire::request(PATH), b"").await.unwrap();
        let began = Instant::now();
        if asks {
            peer.write_all(&malice::call_for(SLOW_PATH)).await.unwrap();
        }
        let sent = in_time(until_closed(&mut peer)).await.unwrap();
        let took = began.elapsed();
        // The peer does not say either that it has been told, so its call has the grace.
        let (least, most) = if asks {
            (SLOW, limits.connection_age_grace + FAREWELL)
        } else {
            (Duration::ZERO, FAREWELL)
        };
        assert!((least..=most).contains(&took), "{asks}: {took:?}");
        assert_eq!(asks, malice::answered(&sent), "{sent:?}");
        until(|| handle.counts().open == 1).await;
        newcomer.call(Wire::request(PATH), b"").await.unwrap();
    }
}

/// Goal: a peer that still reads its last answer has the time for it, however slow it is; one that
/// stops has as long as any.
/// Method: an answer that is handed over whole, and the rest of it read a piece every three seconds, to
/// its end or only at first; a newcomer takes the place meanwhile; on the paused clock.
#[tokio::test(start_paused = true)]
async fn an_answer_on_its_way_is_read_to_its_end() {
    const PAUSE: Duration = Duration::from_secs(3);
    let limits = Limits {
        connections_max: 1,
        ..eight()
    };
    for stops in [false, true] {
        let (connector, handle) = in_memory(limits.clone());
        let mut peer = malice::settled(&connector).await;
        peer.write_all(&malice::call_for(BIG_PATH)).await.unwrap();
        peer.write_all(&malice::room(BIG)).await.unwrap();
        let (mut sent, mut piece) = (Vec::new(), vec![0; 4 << 10]);
        let ended = || {
            let open = handle.connections();
            open.iter()
                .any(|it| it.streams_total == 1 && it.streams_open == 0)
        };
        while !ended() {
            let read = in_time(peer.read(&mut piece)).await.unwrap();
            sent.extend_from_slice(&piece[..read]);
        }
        let newcomer = connected(&connector).await;
        newcomer.call(Wire::request(PATH), b"").await.unwrap();
        let began = Instant::now();
        let rest = BIG - sent.len();
        assert!(rest > 12 * piece.len(), "{rest} are on their way");
        let pieces = if stops { 4 } else { usize::MAX };
        for _ in 0..pieces {
            sleep(PAUSE).await;
            let read = in_time(peer.read(&mut piece)).await.unwrap();
            sent.extend_from_slice(&piece[..read]);
            if read == 0 {
                break;
            }
        }
        if stops {
            // The place of its successor is all there is.
            let until = began + 4 * PAUSE + 2 * limits.write_stall_max;
            while handle.counts().open > 1 {
                assert!(Instant::now() < until, "it is cut");
                sleep(PAUSE).await;
            }
        } else {
            assert_eq!(BIG, malice::data(&sent));
        }
    }
}

/// Goal: a peer that does not read holds no more of a large answer than of many small ones, and for no
/// longer.
/// Method: an answer in one piece, for which there is no room; on the paused clock.
#[tokio::test(start_paused = true)]
async fn a_large_piece_is_held_no_longer_than_small_ones() {
    let (connector, handle) = in_memory(limits());
    let mut peer = malice::settled(&connector).await;
    let began = Instant::now();
    peer.write_all(&malice::call_for(BIG_PATH)).await.unwrap();
    let open = || handle.connections()[0].streams_open;
    until(|| handle.connections().iter().any(|it| it.streams_total == 1)).await;
    while open() > 0 {
        assert!(began.elapsed() < 2 * limits().write_stall_max);
        sleep(Duration::from_secs(1)).await;
    }
    assert!(began.elapsed() >= limits().write_stall_max, "not before");
    handle.drain();
    let sent = in_time(until_closed(&mut peer)).await.unwrap();
    assert!(malice::is_reset(&sent), "{:?}", malice::data(&sent));
}
