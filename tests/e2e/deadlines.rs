//! Deadlines and cancellation over two processes.

use std::time::Duration;

use gantry_harness::{
    process::Service,
    tools,
    wait::{self, SOON},
};
use gantry_probe::{
    CountRequest, CountResponse, HangRequest, WaitRequest, WaitResponse,
    probe_service_client::ProbeServiceClient,
};
use rustix::process::Signal;
use tokio::{
    task::{JoinError, JoinSet},
    time::Instant,
};
use tonic::{Code, Request, Response, Status};

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

/// Goal: however many calls end at their deadlines, on whichever side first, another call on the
/// same connection goes on.
/// Method: thousands of calls with a short deadline beside a long one.
#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_deadlines_costs_no_other_call() {
    const CALLS: usize = 4_000;
    const AT_ONCE: usize = 90;
    let service = probe().start().await;
    let client = ProbeServiceClient::new(channel(&[service.address]));
    let call = |millis, deadline| {
        let mut client = client.clone();
        let request = WaitRequest {
            millis,
            hops: 0,
            spawned: false,
        };
        async move { client.wait(timed(request, deadline)).await }
    };
    let storm = async {
        let mut running = JoinSet::new();
        for _ in 0..CALLS {
            if running.len() == AT_ONCE {
                ended_by_deadline(running.join_next().await);
            }
            running.spawn(call(60_000, Duration::from_millis(60)));
        }
        while let Some(ended) = running.join_next().await {
            ended_by_deadline(Some(ended));
        }
    };
    let mut long = JoinSet::new();
    long.spawn(call(60_000, Duration::from_mins(1)));
    storm.await;
    assert!(long.try_join_next().is_none(), "it goes on");
    assert_eq!(1, connections(&service).await, "the one it began with");
}

/// Goal: a process that stands still with a stream open is given up soon, though its host
/// acknowledges every byte: it said that it bears pings.
/// Method: freeze a probe; how its stream ends, and when.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_a_process_that_stands_still_ends() {
    let service = probe().start().await;
    let mut client = ProbeServiceClient::new(channel(&[service.address]));
    let request = HangRequest {
        messages: 1,
        hops: 0,
    };
    let mut stream = client.hang(request).await.expect("headers").into_inner();
    stream.message().await.expect("a message");
    service.signal(Signal::STOP);
    let ended = tokio::time::timeout(SOON, stream.message()).await;
    service.signal(Signal::CONT);
    let error = ended.expect("it ends in time").expect_err("it is lost");
    assert_eq!(Code::Unavailable, error.code(), "{error:?}");
}

/// Goal: streams that their callers end once they have what they want are no attack.
/// Method: hundreds a second, each ended after its first message, beside a long call.
#[tokio::test(flavor = "multi_thread")]
async fn answered_streams_may_be_ended_in_a_loop() {
    const ROUNDS: usize = 6;
    const AT_ONCE: usize = 90;
    let service = probe().start().await;
    let client = ProbeServiceClient::new(channel(&[service.address]));
    let mut long = client.clone();
    let request = WaitRequest {
        millis: 60_000,
        hops: 0,
        spawned: false,
    };
    let request = timed(request, Duration::from_mins(1));
    let mut waiting = JoinSet::new();
    waiting.spawn(async move { long.wait(request).await });
    for _ in 0..ROUNDS {
        let mut streams = JoinSet::new();
        for _ in 0..AT_ONCE {
            let mut client = client.clone();
            let request = HangRequest {
                messages: 1,
                hops: 0,
            };
            streams.spawn(async move {
                let mut stream = client.hang(request).await.expect("headers").into_inner();
                stream.message().await.expect("a message");
            });
        }
        while let Some(ended) = streams.join_next().await {
            ended.expect("each is answered");
        }
    }
    assert!(waiting.try_join_next().is_none(), "it goes on");
    assert_eq!(1, connections(&service).await, "the one it began with");
}

fn ended_by_deadline(ended: Option<Result<Result<Response<WaitResponse>, Status>, JoinError>>) {
    let ended = ended.expect("one runs").expect("no call panics");
    let error = ended.expect_err("the deadline passes");
    assert_eq!(Code::DeadlineExceeded, error.code(), "{error:?}");
}

/// How many connections a service has accepted.
async fn connections(service: &Service) -> u64 {
    const ACCEPTED: &str = "gantry_server_connections_accepted_total ";
    let metrics = service.get("/metrics").await.expect("metrics");
    let line = metrics.lines().find_map(|line| line.strip_prefix(ACCEPTED));
    line.expect("the counter").parse().expect("a number")
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
