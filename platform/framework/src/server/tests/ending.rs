//! Calls that end before their handlers do.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{HeaderValue, Request, Response as HttpResponse};
use http_body::Frame;
use http_body_util::{BodyExt as _, Empty, StreamBody};
use tokio::{
    sync::{mpsc, watch},
    time::{self, Instant, timeout},
};
use tokio_stream::StreamExt as _;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Response, Status};
use tower::Service as _;

use super::probe::{Messages, Probe, STREAM, Served, UNARY};
use crate::{
    call,
    config::Live,
    contract::Server as _,
    fault::Faults,
    policy::{Policies, Policy},
    server::{Router, deadline},
    telemetry::platform::InjectedFaults,
    transport::server::Limits,
    transport::wire::{Wire, framed},
};

const TIMEOUT: Duration = Duration::from_millis(100);

/// How far behind its time something may be on the paused clock, which has steps of 1 ms.
const LATE: Duration = Duration::from_millis(2);

fn with_timeout(path: &str, timeout: &'static str) -> Request<()> {
    let mut request = Wire::request(path);
    let timeout = HeaderValue::from_static(timeout);
    request.headers_mut().insert("grpc-timeout", timeout);
    request
}

async fn wire(served: &Served) -> Wire {
    Wire::over(served.connector.connect().await.unwrap()).await
}

/// Work of a call: counted while it is there.
#[derive(Clone)]
struct Work {
    count: watch::Sender<usize>,
}

impl Work {
    fn new() -> Self {
        Self {
            count: watch::Sender::new(0),
        }
    }

    fn begin(&self) -> Working {
        self.count.send_modify(|count| *count += 1);
        Working(self.clone())
    }

    async fn until(&self, wanted: usize) {
        let mut count = self.count.subscribe();
        let reached = count.wait_for(|count| *count == wanted);
        // Longer than any of it may take, so that a failure is one and no hang.
        let reached = timeout(Duration::from_secs(5), reached).await;
        reached
            .unwrap_or_else(|_| panic!("{} at work", *self.count.borrow()))
            .unwrap();
    }
}

struct Working(Work);

impl Drop for Working {
    fn drop(&mut self) {
        self.0.count.send_modify(|count| *count -= 1);
    }
}

/// Waits for ever, itself and in a task of the call.
async fn hang(work: &Work) -> Infallible {
    let _here = work.begin();
    let there = work.begin();
    drop(call::spawn(async move {
        let _there = there;
        std::future::pending::<()>().await;
    }));
    std::future::pending().await
}

fn hanging_handler(work: &Work) -> Probe {
    let work = work.clone();
    Probe::unary(move |_| {
        let work = work.clone();
        async move { match hang(&work).await {} }
    })
}

/// Sends one message, then hangs within its stream.
fn hanging_stream(work: &Work) -> Probe {
    let work = work.clone();
    Probe::stream(move |_| {
        let work = work.clone();
        async move {
            let first = tokio_stream::once(Ok(b"one".to_vec()));
            let rest = async move { match hang(&work).await {} }.into_stream();
            let messages: Messages = Box::pin(first.chain(rest));
            Ok(Response::new(messages))
        }
    })
}

/// Goal: at the deadline the caller gets `DEADLINE_EXCEEDED`, and the handler and what it spawned
/// are gone.
/// Method: a handler that waits for ever, and its task.
#[tokio::test(start_paused = true)]
async fn a_handler_ends_at_the_deadline() {
    let work = Work::new();
    let served = Served::probe(hanging_handler(&work));
    let wire = wire(&served).await;
    let began = Instant::now();
    let reply = wire.call(with_timeout(UNARY, "100m"), b"").await.unwrap();
    assert_eq!(Some(Code::DeadlineExceeded), reply.code());
    assert!(reply.trailers.is_empty(), "one frame");
    let took = began.elapsed();
    assert!((TIMEOUT..TIMEOUT + LATE).contains(&took), "{took:?}");
    work.until(0).await;
    assert!(began.elapsed() < TIMEOUT + LATE, "not later");
}

/// Goal: a stream that hangs after its headers and first message ends at the deadline as well.
/// Method: the same, within the stream.
#[tokio::test(start_paused = true)]
async fn a_hanging_stream_ends_at_the_deadline() {
    let work = Work::new();
    let served = Served::probe(hanging_stream(&work));
    let wire = wire(&served).await;
    let began = Instant::now();
    let sent = wire.send(with_timeout(STREAM, "100m")).await.unwrap();
    let reply = sent.reply().await.unwrap();
    assert_eq!(framed(b"one"), reply.data);
    assert_eq!(Some(Code::DeadlineExceeded), reply.code());
    let took = began.elapsed();
    assert!((TIMEOUT..TIMEOUT + LATE).contains(&took), "{took:?}");
    work.until(0).await;
    assert!(began.elapsed() < TIMEOUT + LATE, "not later");
}

/// Goal: a stream that always has something to send, and so never waits, ends at the deadline too.
/// Method: the layer alone, so that the clock moves while the stream is ready.
#[tokio::test(start_paused = true)]
async fn a_stream_that_never_waits_ends_at_the_deadline() {
    type Asked = Request<deadline::Received<Empty<Bytes>>>;
    let endless = tower::service_fn(|_: Asked| async {
        let frames = std::iter::repeat_with(|| Ok(Frame::data(Bytes::from_static(b"more"))));
        let body = StreamBody::new(tokio_stream::iter(frames));
        Ok::<_, Infallible>(HttpResponse::new(body))
    });
    let bounds = Arc::new(deadline::Bounds {
        limits: Limits::default().live(),
        faults: Faults::default(),
        injected: InjectedFaults::register(),
        held: Arc::default(),
        strangers: false,
        end: CancellationToken::new(),
    });
    let mut layer = deadline::Deadline::new(
        endless,
        &Probe::METHODS[1],
        Live::fixed(Policy::default()),
        bounds,
    );
    let request = with_timeout(STREAM, "100m").map(|()| Empty::new());
    let mut body = layer.call(request).await.unwrap().into_body();

    assert!(body.frame().await.unwrap().is_ok());
    time::advance(TIMEOUT).await;
    let status = body.frame().await.unwrap().unwrap_err();
    assert_eq!(Code::DeadlineExceeded, status.code());
    assert!(body.frame().await.is_none(), "and nothing after it");
}

/// Goal: a request's stream that a task of its own reads fails at the deadline; the task must not
/// take it for complete, nor wait for ever.
/// Method: a task outside the call reads until something happens.
#[tokio::test(start_paused = true)]
async fn a_request_stream_fails_at_the_deadline_wherever_it_is_read() {
    let (tell, mut told) = mpsc::channel(1);
    let served = Served::probe(Probe::stream(move |request| {
        let tell = tell.clone();
        async move {
            let mut requests = request.into_inner();
            #[allow(clippy::disallowed_methods)]
            drop(tokio::spawn(async move {
                let first = requests.message().await;
                let second = requests.message().await;
                drop(tell.send((first, second)).await);
            }));
            std::future::pending().await
        }
    }));
    let wire = wire(&served).await;
    let mut sent = wire.send(with_timeout(STREAM, "100m")).await.unwrap();
    sent.requests.send_data(framed(b"one"), false).unwrap();
    let (first, second) = timeout(Duration::from_secs(5), told.recv())
        .await
        .expect("it ends")
        .unwrap();
    assert_eq!(Some(b"one".to_vec()), first.unwrap());
    assert_eq!(Code::DeadlineExceeded, second.unwrap_err().code());
}

/// Goal: what of a request has arrived is not read after the deadline: a task that comes late must
/// not work for a caller that is gone.
/// Method: a message that waits, and a task that first reads when the call has ended.
#[tokio::test(start_paused = true)]
async fn a_request_stream_gives_nothing_after_the_deadline() {
    let (tell, mut told) = mpsc::channel(1);
    let served = Served::probe(Probe::stream(move |request| {
        let tell = tell.clone();
        async move {
            let mut requests = request.into_inner();
            #[allow(clippy::disallowed_methods)]
            drop(tokio::spawn(async move {
                time::sleep(2 * TIMEOUT).await;
                drop(tell.send(requests.message().await).await);
            }));
            std::future::pending().await
        }
    }));
    let wire = wire(&served).await;
    let mut sent = wire.send(with_timeout(STREAM, "100m")).await.unwrap();
    sent.requests.send_data(framed(b"one"), false).unwrap();
    let read = timeout(Duration::from_secs(5), told.recv()).await;
    let status = read.expect("it ends").unwrap().unwrap_err();
    assert_eq!(Code::DeadlineExceeded, status.code());
}

/// Goal: a unary call has a deadline whether its caller sets one or not, and not beyond the cap;
/// a stream has none unless it asks.
/// Method: handlers that wait for ever, with no timeout and with one of an hour.
#[tokio::test(start_paused = true)]
async fn unary_calls_are_capped_and_streams_are_not() {
    let cap = Duration::from_secs(30);
    let work = Work::new();
    let served = Served::probe(hanging_handler(&work));
    for request in [Wire::request(UNARY), with_timeout(UNARY, "1H")] {
        let began = Instant::now();
        let reply = wire(&served).await.call(request, b"").await.unwrap();
        assert_eq!(Some(Code::DeadlineExceeded), reply.code());
        let took = began.elapsed();
        assert!((cap..cap + LATE).contains(&took), "{took:?}");
    }

    let served = Served::probe(hanging_stream(&work));
    let sent = wire(&served)
        .await
        .send(Wire::request(STREAM))
        .await
        .unwrap();
    let open = timeout(Duration::from_mins(5), sent.reply()).await;
    assert!(open.is_err(), "{open:?}");
}

/// Goal: the policy of a method takes the place of the cap, also a longer one, and bounds streams;
/// other methods are as before.
/// Method: handlers that wait for ever, under a policy for one method.
#[tokio::test(start_paused = true)]
async fn a_policy_takes_the_place_of_the_cap() {
    let work = Work::new();
    let expected = Duration::from_mins(1);
    for (path, probe) in [
        (UNARY, hanging_handler(&work)),
        (STREAM, hanging_stream(&work)),
    ] {
        let policy = Policy {
            timeout: expected,
            ..Policy::default()
        };
        let name = path.strip_prefix('/').unwrap_or(path).to_owned();
        let table = Live::fixed(BTreeMap::from([(name, policy)]));
        let router = Router::new().add(probe).follow(Policies::new(&table));
        let served = Served::new(router, Limits::default());
        let began = Instant::now();
        let reply = wire(&served).await.call(Wire::request(path), b"").await;
        assert_eq!(Some(Code::DeadlineExceeded), reply.unwrap().code());
        let took = began.elapsed();
        assert!((expected..expected + LATE).contains(&took), "{took:?}");
    }
}

/// Goal: a call that comes too late, or whose deadline cannot be read, never reaches its handler.
/// Method: count what the handler sees.
#[tokio::test(start_paused = true)]
async fn late_and_unreadable_deadlines_stop_at_the_door() {
    let seen = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&seen);
    let served = Served::probe(Probe::unary(move |request| {
        counted.fetch_add(1, Ordering::Relaxed);
        async move { Ok(Response::new(request.into_inner())) }
    }));
    let wire = wire(&served).await;
    let cases = [
        ("0m", Code::DeadlineExceeded),
        ("0n", Code::DeadlineExceeded),
        ("soon", Code::Internal),
        ("123456789m", Code::Internal),
    ];
    for (timeout, code) in cases {
        let reply = wire.call(with_timeout(UNARY, timeout), b"").await.unwrap();
        assert_eq!(Some(code), reply.code(), "{timeout}");
    }
    assert_eq!(0, seen.load(Ordering::Relaxed));
    let reply = wire.call(with_timeout(UNARY, "1S"), b"").await.unwrap();
    assert_eq!(Some(Code::Ok), reply.code());
}

/// Goal: a caller that gives up stops the handler and what it spawned, before and after headers,
/// by a reset or by going away.
/// Method: end the call from outside once the handler works.
#[tokio::test(start_paused = true)]
async fn a_caller_that_gives_up_stops_the_work() {
    type Make = fn(&Work) -> Probe;
    let phases: [(&str, Make); 2] = [(UNARY, hanging_handler), (STREAM, hanging_stream)];
    for (path, make) in phases {
        for goes_away in [false, true] {
            let work = Work::new();
            let served = Served::probe(make(&work));
            let wire = wire(&served).await;
            let mut sent = wire.send(Wire::request(path)).await.unwrap();
            sent.requests.send_data(framed(b""), true).unwrap();
            work.until(2).await;
            let began = Instant::now();
            if goes_away {
                served.listener.cut();
            } else {
                sent.requests.send_reset(h2::Reason::CANCEL);
            }
            work.until(0).await;
            assert!(began.elapsed() < LATE, "at once");
        }
    }
}

/// Goal: a caller that does not read cannot hold the call beyond its deadline, nor, without one,
/// for ever; its connection lives.
/// Method: a stream without end to a caller that never makes room, with and without a deadline.
#[tokio::test(start_paused = true)]
async fn a_caller_that_does_not_read_holds_nothing() {
    let stall = Duration::from_secs(30);
    let cases = [
        (Wire::request(STREAM), stall),
        (with_timeout(STREAM, "100m"), TIMEOUT),
    ];
    for (request, bound) in cases {
        let work = Work::new();
        let at_work = work.clone();
        let served = Served::probe(Probe::stream(move |_| {
            let working = at_work.begin();
            async move {
                let messages: Messages = Box::pin(tokio_stream::iter(0..).map(move |_| {
                    let _working = &working;
                    Ok(vec![7; 10_000])
                }));
                Ok(Response::new(messages))
            }
        }));
        let wire = wire(&served).await;
        let began = Instant::now();
        let sent = wire.send(request).await.unwrap();
        let (_requests, mut unread) = sent.open().await.unwrap();
        work.count
            .subscribe()
            .wait_for(|count| *count == 0)
            .await
            .unwrap();
        let took = began.elapsed();
        assert!((bound..bound + LATE).contains(&took), "{took:?}");

        // What was on its way comes, and then the reset.
        let reset = loop {
            match unread.data().await.expect("no orderly end") {
                Ok(piece) => unread.flow_control().release_capacity(piece.len()).unwrap(),
                Err(reset) => break reset,
            }
        };
        assert!(reset.is_reset(), "{reset}");
        assert_eq!(1, served.listener.counts().open);
    }
}

/// Goal: a slow reader is not a stalled one.
/// Method: a large answer, read a little every few seconds for a minute.
#[tokio::test(start_paused = true)]
async fn a_slow_reader_gets_all_of_its_answer() {
    let served = Served::probe(Probe::stream(|_| async {
        let messages = tokio_stream::iter((0..20).map(|_| Ok(vec![7; 10_000])));
        let messages: Messages = Box::pin(messages);
        Ok(Response::new(messages))
    }));
    let wire = wire(&served).await;
    let sent = wire.send(Wire::request(STREAM)).await.unwrap();
    let (_requests, mut body) = sent.open().await.unwrap();
    let mut read = 0;
    while let Some(piece) = body.data().await {
        let length = piece.unwrap().len();
        read += length;
        tokio::time::sleep(Duration::from_secs(5)).await;
        body.flow_control().release_capacity(length).unwrap();
    }
    assert_eq!(20 * framed(&[7; 10_000]).len(), read);
    let trailers = body.trailers().await.unwrap().unwrap();
    assert_eq!("0", trailers["grpc-status"]);
}

/// Goal: a client stream that breaks off is never taken for one that is complete.
/// Method: reset it after its first message; the handler notes how the stream ended for it, if it
/// lives to see that.
#[tokio::test(start_paused = true)]
async fn a_broken_request_stream_is_not_its_end() {
    let complete = Arc::new(AtomicBool::new(false));
    let work = Work::new();
    let (noted, at_work) = (Arc::clone(&complete), work.clone());
    let served = Served::probe(Probe::stream(move |request| {
        let (complete, working) = (Arc::clone(&noted), at_work.begin());
        async move {
            let _working = working;
            let mut requests = request.into_inner();
            while requests.message().await?.is_some() {}
            complete.store(true, Ordering::Relaxed);
            Err(Status::ok(""))
        }
    }));
    let wire = wire(&served).await;
    let mut sent = wire.send(Wire::request(STREAM)).await.unwrap();
    sent.requests.send_data(framed(b"one"), false).unwrap();
    work.until(1).await;
    sent.requests.send_reset(h2::Reason::CANCEL);
    work.until(0).await;
    assert!(!complete.load(Ordering::Relaxed));
}

/// Goal: handlers and what they spawn know the call: method, peer, attempts, trace, and a deadline
/// that is the caller's.
/// Method: a handler that looks from a task of the call.
#[tokio::test(start_paused = true)]
async fn handlers_and_their_tasks_know_the_call() {
    let (tell, mut told) = mpsc::channel(1);
    let served = Served::probe(Probe::unary(move |request| {
        let tell = tell.clone();
        async move {
            let here = request.extensions().get::<Arc<call::Context>>().cloned();
            let there = call::spawn(async { call::current() }).await;
            drop(tell.send((here, there)).await);
            Ok(Response::new(Vec::new()))
        }
    }));
    let mut request = with_timeout(UNARY, "1S");
    let headers = request.headers_mut();
    headers.insert("grpc-previous-rpc-attempts", HeaderValue::from_static("2"));
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    headers.insert("traceparent", HeaderValue::from_static(parent));
    let began = Instant::now();
    let reply = wire(&served).await.call(request, b"").await.unwrap();
    assert_eq!(Some(Code::Ok), reply.code());

    let (here, there) = told.recv().await.unwrap();
    let (here, there) = (here.unwrap(), there.unwrap().unwrap().unwrap());
    assert!(Arc::ptr_eq(&here, &there));
    assert_eq!(UNARY, here.method.path);
    assert_eq!(Some(crate::caller::Peer::Memory), here.peer);
    assert_eq!(2, here.previous_attempts);
    assert_eq!(
        0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c,
        here.trace.trace_id
    );
    let left = here.deadline.unwrap().instant() - began;
    assert_eq!(Duration::from_secs(1), left);
    assert!(here.ended.is_over(), "the call has been answered");
    assert!(call::current().is_none(), "only calls have one");
}
