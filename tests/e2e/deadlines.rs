//! Deadlines and cancellation over two processes.

use std::time::Duration;

use gantry_harness::{
    process::Service,
    tools,
    wait::{self, SOON},
};
use gantry_probe::{
    CountRequest, CountResponse, HangRequest, WaitRequest, probe_service_client::ProbeServiceClient,
};
use tokio::time::Instant;
use tonic::{Code, Request};

use crate::support::{channel, hop, probe};

/// The deadline of a call over two hops: longer on a busy machine, where a call needs more than
/// 100 ms to get there.
fn deadline() -> Duration {
    Duration::from_millis(if tools::timed() { 100 } else { 1_000 })
}

async fn counts(service: &Service) -> CountResponse {
    let mut client = ProbeServiceClient::new(channel(&[service.address]));
    client
        .count(CountRequest {})
        .await
        .expect("counts")
        .into_inner()
}

/// Waits until every handler that began at `service` was dropped before its end.
async fn all_dropped(service: &Service, begun: u64) {
    wait::until("handlers to be dropped", SOON, async || {
        let counts = counts(service).await;
        assert_eq!(
            0, counts.finished,
            "a handler ran to its end after the deadline"
        );
        (counts.begun == begun && counts.dropped == begun).then_some(())
    })
    .await;
}

fn timed<T>(message: T, deadline: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(deadline);
    request
}

/// Goal: a deadline ends a unary call at both hops, and no work goes on after it.
/// Method: the second hop would wait an hour, in its handler and in a task of the call.
#[tokio::test]
async fn a_deadline_ends_a_call_at_both_hops() {
    let second = probe().start().await;
    let first = hop(&second).start().await;
    let mut client = ProbeServiceClient::new(channel(&[first.address]));
    for spawned in [false, true] {
        let request = timed(
            WaitRequest {
                millis: 3_600_000,
                hops: 1,
                spawned,
            },
            deadline(),
        );
        let started = Instant::now();
        let error = client.wait(request).await.expect_err("the deadline passes");
        assert_eq!(Code::DeadlineExceeded, error.code(), "{error:?}");
        assert!(
            started.elapsed() < Duration::from_secs(5),
            "{:?}",
            started.elapsed()
        );
    }
    all_dropped(&second, 2).await;
    all_dropped(&first, 2).await;
    all_ended(&first, "Wait", 2, &["DEADLINE_EXCEEDED"]).await;
    all_ended(&second, "Wait", 2, codes_beyond()).await;
}

/// How a deadline may end a call at the second hop. The reset of the first comes at the same
/// moment, and on a busy machine it may be seen first.
fn codes_beyond() -> &'static [&'static str] {
    if tools::timed() {
        &["DEADLINE_EXCEEDED"]
    } else {
        &["DEADLINE_EXCEEDED", "CANCELLED"]
    }
}

/// Waits until `count` calls of `method` ended at `service`, and asserts that none ended with
/// another code than these.
async fn all_ended(service: &Service, method: &str, count: u64, codes: &[&str]) {
    let method = format!("ProbeService/{method}\"");
    wait::until("calls to have ended", SOON, async || {
        let metrics = service.get("/metrics").await.expect("metrics");
        let mut ended = 0;
        for line in metrics.lines() {
            let counts = line.starts_with("rpc_server_call_duration_seconds_count");
            if !counts || !line.contains(&method) {
                continue;
            }
            let number = line.rsplit(' ').next().expect("a count");
            let number = number.parse::<u64>().expect("a count");
            let expected = codes.iter().any(|code| line.contains(code));
            assert!(number == 0 || expected, "not {codes:?}: {line}");
            ended += number;
        }
        (ended == count).then_some(())
    })
    .await;
}

/// Goal: a deadline cuts a stream that hangs after its headers and messages.
/// Method: read what is sent, then wait for what never comes, over two hops.
#[tokio::test]
async fn a_deadline_ends_a_hanging_stream_at_both_hops() {
    let second = probe().start().await;
    let first = hop(&second).start().await;
    let mut client = ProbeServiceClient::new(channel(&[first.address]));
    let request = timed(
        HangRequest {
            messages: 2,
            hops: 1,
        },
        deadline(),
    );
    let mut stream = client
        .hang(request)
        .await
        .expect("headers come")
        .into_inner();
    let error = loop {
        match stream.message().await {
            Ok(message) => assert!(message.is_some(), "the stream ended by itself"),
            Err(error) => break error,
        }
    };
    assert_eq!(Code::DeadlineExceeded, error.code(), "{error:?}");
    all_dropped(&second, 1).await;
    all_dropped(&first, 1).await;
    all_ended(&first, "Hang", 1, &["DEADLINE_EXCEEDED"]).await;
    all_ended(&second, "Hang", 1, codes_beyond()).await;
}

/// Goal: a caller that goes away stops the handlers at both hops, before and after headers.
/// Method: drop a call that waits and a stream that hangs; neither has a deadline to end it.
#[tokio::test]
async fn a_dropped_call_stops_the_handlers() {
    let second = probe().start().await;
    let first = hop(&second).start().await;
    let mut client = ProbeServiceClient::new(channel(&[first.address]));

    let mut stream = client
        .hang(HangRequest {
            messages: 1,
            hops: 1,
        })
        .await
        .expect("headers")
        .into_inner();
    stream.message().await.expect("a message");
    drop(stream);
    all_dropped(&second, 1).await;

    let mut other = client.clone();
    let call = other.wait(WaitRequest {
        millis: 3_600_000,
        hops: 1,
        spawned: true,
    });
    let begun = wait::until("the call to arrive", SOON, async || {
        (counts(&second).await.begun == 2).then_some(())
    });
    tokio::select! {
        answer = call => panic!("answered: {answer:?}"),
        () = begun => {}
    }
    all_dropped(&second, 2).await;
    all_dropped(&first, 2).await;
    for service in [&first, &second] {
        for method in ["Hang", "Wait"] {
            all_ended(service, method, 1, &["CANCELLED"]).await;
        }
    }
}

/// Goal: a panic is INTERNAL with an id, told in the log, and the process lives.
/// Method: panic, then call again.
#[tokio::test]
async fn a_panic_is_internal_and_the_process_lives() {
    let service = probe().start().await;
    let mut client = ProbeServiceClient::new(channel(&[service.address]));
    let error = client
        .panic(gantry_probe::PanicRequest {})
        .await
        .expect_err("it panics");
    assert_eq!(Code::Internal, error.code(), "{error:?}");
    assert!(
        !error.message().contains("asked to"),
        "the panic's text stays inside: {error:?}"
    );
    let id = error.message().split_whitespace().last().expect("an id");
    let log = wait::until("the log to name the id", SOON, async || {
        Some(service.output()).filter(|log| log.contains(id))
    });
    let log = log.await;
    assert!(
        !log.contains("asked to"),
        "the panic's text is not for the log either:\n{log}"
    );
    client
        .wait(WaitRequest::default())
        .await
        .expect("the process lives");
}
