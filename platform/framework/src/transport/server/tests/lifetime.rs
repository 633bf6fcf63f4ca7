//! How long a connection lasts.

use tokio::{io::AsyncWriteExt as _, time::Instant};

use super::*;
use crate::transport::wire::until_closed;

fn aging() -> Limits {
    Limits {
        connection_age_max: Duration::from_secs(100),
        connection_age_grace: Duration::from_secs(20),
        ..limits()
    }
}

/// Goal: an old connection is told to go away within a tenth of its age, its calls are finished,
/// and a client that heeds it loses nothing.
/// Method: calls in a row until the connection takes no more.
#[tokio::test(start_paused = true)]
async fn an_old_connection_finishes_its_calls() {
    let (connector, handle) = in_memory(aging());
    let mut wire = connected(&connector).await;
    let began = Instant::now();
    let refused = loop {
        match wire.call(Wire::request(SLOW_PATH), b"").await {
            Ok(reply) => assert_eq!(200, reply.status.as_u16()),
            Err(error) => break error,
        }
    };
    assert!(refused.is_go_away(), "{refused}");
    assert_eq!(Some(h2::Reason::NO_ERROR), refused.reason());
    let took = began.elapsed();
    let due = Duration::from_secs(90)..Duration::from_secs(110) + SLOW;
    assert!(due.contains(&took), "{took:?}");
    in_time(wire.ended()).await.unwrap();
    assert_eq!(0, handle.counts().open);
}

/// Goal: connections of one moment do not all end in another.
/// Method: the ages at which ten of them end.
#[tokio::test(start_paused = true)]
async fn ages_are_spread() {
    let (connector, _handle) = in_memory(aging());
    let began = Instant::now();
    let mut wires = Vec::new();
    for _ in 0..10 {
        let wire = connected(&connector).await;
        wire.call(Wire::request(PATH), b"").await.unwrap();
        wires.push(wire);
    }
    let ages = futures_util::future::join_all(wires.iter_mut().map(|wire| async {
        in_time(wire.ended()).await.unwrap();
        began.elapsed()
    }))
    .await;
    let (first, last) = (ages.iter().min().unwrap(), ages.iter().max().unwrap());
    assert!(*first >= Duration::from_secs(90), "{ages:?}");
    assert!(*last <= Duration::from_secs(111), "{ages:?}");
    assert!(*last > *first + Duration::from_secs(1), "{ages:?}");
}

/// Goal: a call that does not end is cut off after the grace, not before.
/// Method: one without end.
#[tokio::test(start_paused = true)]
async fn grace_is_finite() {
    let (connector, handle) = in_memory(aging());
    let wire = connected(&connector).await;
    let began = Instant::now();
    let sent = wire.send(Wire::request(NEVER_PATH)).await.unwrap();
    in_time(sent.reply()).await.unwrap_err();
    let took = began.elapsed();
    let due = Duration::from_secs(110)..Duration::from_secs(131);
    assert!(due.contains(&took), "{took:?}");
    until(|| handle.counts().open == 0).await;
}

/// Goal: a connection nobody uses goes away; one with a call, or with calls now and then, stays.
/// Method: three connections and a limit of 80 s.
#[tokio::test(start_paused = true)]
async fn an_idle_connection_goes_away() {
    let limits = Limits {
        connection_idle_max: Duration::from_secs(80),
        connection_age_max: Duration::from_hours(10),
        ..limits()
    };
    let (connector, handle) = in_memory(limits);
    let began = Instant::now();
    let mut idle = connected(&connector).await;
    idle.call(Wire::request(PATH), b"").await.unwrap();
    let waiting = connected(&connector).await;
    let _open = waiting.send(Wire::request(NEVER_PATH)).await.unwrap();
    let busy = connected(&connector).await;
    let calls = async {
        loop {
            busy.call(Wire::request(PATH), b"").await.unwrap();
            sleep(Duration::from_mins(1)).await;
        }
    };
    tokio::select! {
        ended = in_time(idle.ended()) => ended.unwrap(),
        () = calls => {}
    }
    let took = began.elapsed();
    let due = Duration::from_secs(80)..Duration::from_secs(101);
    assert!(due.contains(&took), "{took:?}");
    assert_eq!(2, handle.counts().open);
    sleep(Duration::from_secs(40)).await;
    for wire in [&busy, &waiting] {
        wire.call(Wire::request(PATH), b"").await.unwrap();
    }
    assert_eq!(2, handle.counts().open);
}

/// Goal: a connection of HTTP/1.1 without a request for its time is closed, half a head or none; one
/// with a request now and then stays, and so does an idle one of HTTP/2 beside it.
/// Method: what is sent, when, and when the connection ends; over the default of 75 s, on the paused
/// clock.
#[tokio::test(start_paused = true)]
async fn an_idle_connection_of_http1_is_closed() {
    const REQUEST: &str = "GET / HTTP/1.1\r\nhost: memory\r\n\r\n";
    const HALF: &str = "GET / HTTP/1.1\r\nho";
    let (connector, incoming) = memory::network();
    let listener = Listener::memory(incoming, limits().live());
    let handle = start_with(listener, Protocols::Http1And2, Journal::new());
    let http2 = connected(&connector).await;
    http2.call(Wire::request(PATH), b"").await.unwrap();
    let cases: [(&[(u64, &str)], u64); 5] = [
        (&[(0, REQUEST)], 75),
        (&[(0, REQUEST), (60, HALF)], 75),
        (&[(0, REQUEST), (60, REQUEST)], 135),
        // Until something was asked, that is what counts.
        (&[], 10),
        (&[(5, HALF)], 10),
    ];
    for (sent, due) in cases {
        let began = Instant::now();
        let (mut read, mut write) = tokio::io::split(connector.connect().await.unwrap());
        let sending = async {
            for (at, text) in sent {
                tokio::time::sleep_until(began + Duration::from_secs(*at)).await;
                write.write_all(text.as_bytes()).await.unwrap();
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = sending => {}
            closed = in_time(until_closed(&mut read)) => drop(closed),
        }
        let took = began.elapsed();
        let due = Duration::from_secs(due)..Duration::from_secs(due + 2);
        assert!(due.contains(&took), "{sent:?}: {took:?}");
    }
    http2.call(Wire::request(PATH), b"").await.unwrap();
    assert_eq!(1, handle.counts().open);
}
