//! Who is let in while others press at the door.

use std::{
    io,
    sync::atomic::{AtomicUsize, Ordering},
};

use tokio::{io::AsyncReadExt as _, net::TcpStream};

use super::*;

/// Goal: connections that send nothing do not stand in an honest client's way.
/// Method: two hundred of them, then calls.
#[tokio::test]
async fn silent_connections_do_not_stop_others() {
    let (address, handle) = on_loopback(&Config::default(), limits());
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    until(|| handle.counts().waiting == 200).await;

    let wire = Wire::over(TcpStream::connect(address).await.unwrap()).await;
    for _ in 0..10 {
        let reply = wire.call(Wire::request(PATH), b"").await.unwrap();
        assert_eq!(200, reply.status.as_u16());
    }
    assert_eq!(201, handle.counts().open);
    drop(silent);
    until(|| handle.counts().open == 1).await;
}

/// Goal: a connection beyond a cap is closed without a byte, and counted; the others go on, and
/// so does the next once there is room.
/// Method: a cap of two per peer, three connections.
#[tokio::test]
async fn a_connection_beyond_the_cap_is_closed_at_once() {
    let limits = Limits {
        connections_per_peer_max: 2,
        ..limits()
    };
    let (address, handle) = on_loopback(&Config::default(), limits);
    let first = Wire::over(TcpStream::connect(address).await.unwrap()).await;
    let second = Wire::over(TcpStream::connect(address).await.unwrap()).await;
    second.call(Wire::request(PATH), b"").await.unwrap();

    let mut third = TcpStream::connect(address).await.unwrap();
    let mut sent = Vec::new();
    let closed = timeout(Duration::from_secs(5), third.read_to_end(&mut sent)).await;
    drop(closed.expect("in time"));
    assert!(sent.is_empty());
    assert_eq!(1, handle.counts().refused(Refused::Peer));

    first.call(Wire::request(PATH), b"").await.unwrap();
    drop(second);
    until(|| handle.counts().open == 1).await;
    let fourth = Wire::over(TcpStream::connect(address).await.unwrap()).await;
    fourth.call(Wire::request(PATH), b"").await.unwrap();
}

/// Goal: caps change while the listener runs.
/// Method: raise one that refuses, as its only connection has a call.
#[tokio::test]
async fn caps_are_live() {
    let strict = Limits {
        connections_max: 1,
        ..limits()
    };
    let (address, handle) = on_loopback(&Config::default(), strict);
    let first = Wire::over(TcpStream::connect(address).await.unwrap()).await;
    let _open = first.send(Wire::request(NEVER_PATH)).await.unwrap();
    until(|| handle.connections().iter().any(|it| it.streams_open == 1)).await;
    let mut refused = TcpStream::connect(address).await.unwrap();
    assert_eq!(0, refused.read(&mut [0]).await.unwrap_or(0));
    assert_eq!(1, handle.counts().refused(Refused::Connections));

    handle.set_limits(limits());
    let second = Wire::over(TcpStream::connect(address).await.unwrap()).await;
    second.call(Wire::request(PATH), b"").await.unwrap();
}

/// Goal: a listener out of file descriptors waits, longer each time up to a second, and does not
/// burn a core; it stops when asked even then.
/// Method: a socket that always fails so, on the paused clock.
#[tokio::test(start_paused = true)]
async fn exhaustion_is_waited_out() {
    let attempts = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&attempts);
    let listener = Listener {
        source: Source::Scripted(Scripted(Box::new(move || {
            counted.fetch_add(1, Ordering::Relaxed);
            io::Error::from_raw_os_error(rustix::io::Errno::MFILE.raw_os_error())
        }))),
        handle: Handle::new(shared(limits()), None, None),
    };
    let handle = start(listener);
    // 10 + 20 + … + 640 ms for the first seven pauses, then one a second.
    sleep(Duration::from_millis(1_275)).await;
    assert_eq!(8, attempts.load(Ordering::Relaxed));
    sleep(Duration::from_secs(10)).await;
    assert_eq!(18, attempts.load(Ordering::Relaxed));
    assert_eq!(18, handle.counts().accept_failed);

    handle.drain();
    timeout(Duration::from_millis(1), handle.closed())
        .await
        .expect("at once");
}

/// Goal: people can see who is connected and what they do.
/// Method: one connection with an open call and one that ended.
#[tokio::test(start_paused = true)]
async fn connections_are_listed() {
    let (connector, handle) = in_memory(limits());
    let wire = connected(&connector).await;
    wire.call(Wire::request(PATH), b"").await.unwrap();
    let open = wire.send(Wire::request(NEVER_PATH)).await.unwrap();
    sleep(Duration::from_secs(3)).await;

    let listed = handle.connections();
    let [one] = &listed[..] else {
        panic!("{listed:?}");
    };
    assert_eq!(crate::caller::Peer::Memory, one.peer);
    assert_eq!(
        (1, 2, false),
        (one.streams_open, one.streams_total, one.tls)
    );
    assert!(one.age >= Duration::from_secs(3));

    drop(open);
    sleep(Duration::from_millis(1)).await;
    assert_eq!(0, handle.connections()[0].streams_open);
    handle.cut();
    handle.closed().await;
    assert!(handle.connections().is_empty());
}
