//! More calls than a process can do: it goes on at its rate, for those that matter.

use std::{sync::Arc, time::Duration};

use http::{HeaderValue, Request};
use http_body_util::{BodyExt as _, Full};
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{self, Instant, MissedTickBehavior},
};
use tonic::{Code, Response, body::Body};

use super::{
    probe::{Probe, UNARY},
    protect::policies,
};
use crate::{
    call,
    caller::{CRITICALITY, Criticality},
    contract::Server as _,
    limit::concurrency::{Mode, Policy},
    server::{Router, Stack, protect::is_again, wire},
    status::code_in,
    transport::{
        server::Limits,
        wire::{Wire, framed},
    },
};

/// How many calls the process works on at once, and how long each takes: 500 a second.
const WORKERS: usize = 10;
const WORK: Duration = Duration::from_millis(20);
const PER_SECOND: u32 = 500;
/// How long callers wait.
const PATIENCE: &str = "100m";

/// A process that can do so much, however much it begins.
fn process(policy: Policy) -> Stack {
    let workers = Arc::new(Semaphore::new(WORKERS));
    let probe = Probe::unary(move |_| {
        let workers = Arc::clone(&workers);
        async move {
            let _worker = workers.acquire().await;
            time::sleep(WORK).await;
            Ok(Response::new(Vec::new()))
        }
    });
    let router = Router::new().add(probe).follow(policies(policy));
    Stack::new(router, Limits::default().live())
}

/// How one call ended.
#[derive(Debug)]
struct End {
    criticality: Criticality,
    began: Instant,
    took: Duration,
    code: Code,
    pushback: bool,
}

async fn call(stack: Stack, criticality: Criticality) -> End {
    let mut request = Wire::request(UNARY).map(|()| {
        let body = Body::new(Full::new(framed(b"")));
        wire::Wire::from(body)
    });
    let headers = request.headers_mut();
    headers.insert("grpc-timeout", HeaderValue::from_static(PATIENCE));
    headers.insert(&CRITICALITY, HeaderValue::from_static(criticality.as_str()));
    let began = Instant::now();
    let Ok(response) = stack.grpc(request).await;
    let (head, body) = response.into_parts();
    let Ok(body) = body.collect().await;
    let trailers = body.trailers().and_then(code_in);
    End {
        criticality,
        began,
        took: began.elapsed(),
        code: code_in(&head.headers).or(trailers).unwrap(),
        pushback: head.headers.contains_key("grpc-retry-pushback-ms"),
    }
}

/// Calls that come evenly for `passed`, so many a second of each.
async fn offer(stack: &Stack, critical: u32, sheddable: u32, passed: Duration) -> Vec<End> {
    let mut calls = JoinSet::new();
    let mut tick = time::interval(Duration::from_millis(1));
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut owed = [(critical, 0), (sheddable, 0)];
    for _ in 0..passed.as_millis() {
        tick.tick().await;
        for ((each, owed), criticality) in owed
            .iter_mut()
            .zip([Criticality::Critical, Criticality::Sheddable])
        {
            *owed += *each;
            for _ in 0..*owed / 1_000 {
                calls.spawn(call(stack.clone(), criticality));
            }
            *owed %= 1_000;
        }
    }
    calls.join_all().await
}

fn good(ends: &[End], criticality: Option<Criticality>) -> f64 {
    let ends = ends.iter();
    let of = ends.filter(|end| criticality.is_none_or(|it| it == end.criticality));
    let (mut good, mut all) = (0.0, 0.0);
    for end in of {
        all += 1.0;
        good += if end.code == Code::Ok { 1.0 } else { 0.0 };
    }
    match criticality {
        Some(_) => good / all,
        None => good,
    }
}

fn protected() -> Policy {
    Policy {
        calls_max: WORKERS,
        adaptive: Mode::Off,
        ..Policy::default()
    }
}

/// Goal: at twelve times what a process can do, it does nine tenths of that and more; what matters and
/// is less than it can do succeeds, quickly; who is refused is told when to come back; once there is
/// less, nobody is refused within five seconds.
/// Method: 6000 calls a second that may be refused and 200 that may not, for five seconds; then half of
/// what it can do.
#[tokio::test(start_paused = true)]
async fn an_overloaded_process_goes_on_for_those_that_matter() {
    let stack = process(protected());
    let usual = offer(&stack, 200, 50, Duration::from_secs(1)).await;
    assert!(usual.iter().all(|end| end.code == Code::Ok));

    let seconds = 5;
    let ends = offer(
        &stack,
        200,
        12 * PER_SECOND,
        Duration::from_secs(seconds.into()),
    )
    .await;
    let capacity = f64::from(PER_SECOND * seconds);
    let goodput = good(&ends, None) / capacity;
    assert!(goodput >= 0.9, "{goodput}");
    let critical = good(&ends, Some(Criticality::Critical));
    assert!(critical >= 0.994, "{critical}");
    let mut slow: Vec<_> = ends
        .iter()
        .filter(|end| end.criticality == Criticality::Critical)
        .map(|end| end.took)
        .collect();
    slow.sort();
    let p99 = slow[slow.len() * 99 / 100];
    assert!(p99 <= WORK * 2, "{p99:?}");
    let refused: Vec<_> = ends
        .iter()
        .filter(|end| end.code == Code::Unavailable)
        .collect();
    assert!(refused.len() > 25_000, "{}", refused.len());
    assert!(refused.iter().all(|end| end.pushback));

    let eased = Instant::now();
    let after = offer(&stack, 200, 50, Duration::from_secs(7)).await;
    let last = after
        .iter()
        .filter(|end| end.code != Code::Ok)
        .map(|end| end.began);
    let recovered = last.max().map_or(Duration::ZERO, |last| last - eased);
    assert!(recovered < Duration::from_secs(5), "{recovered:?}");
}

/// Goal: it is the limit that does it.
/// Method: the same process without; what matters fails like all the rest.
#[tokio::test(start_paused = true)]
async fn without_a_limit_what_matters_fails_with_the_rest() {
    let policy = Policy {
        calls_max: 0,
        ..protected()
    };
    let stack = process(policy);
    let ends = offer(&stack, 200, 12 * PER_SECOND, Duration::from_secs(1)).await;
    let critical = good(&ends, Some(Criticality::Critical));
    assert!(critical < 0.5, "{critical}");
}

/// Goal: that a call was tried before counts where our own callers say so, and not where strangers may
/// have.
/// Method: calls that were and were not, of a stranger's listener, and ones that passed a gateway.
#[test]
fn strangers_say_nothing_of_earlier_tries() {
    for (previous_attempts, stranger, via, again) in [
        (0, false, None, false),
        (1, false, None, true),
        (1, true, None, false),
        (1, false, Some("1.1 proxy"), true),
        (1, false, Some("1.1 proxy, 2 gantry-gateway"), false),
    ] {
        let mut request = Request::new(());
        request.extensions_mut().insert(Arc::new(call::Context {
            method: &Probe::METHODS[0],
            peer: None,
            deadline: None,
            trace: call::TraceContext::root(false),
            previous_attempts,
            criticality: None,
            ended: call::Ended::default(),
        }));
        if let Some(via) = via {
            request
                .headers_mut()
                .insert("via", HeaderValue::from_static(via));
        }
        let told = is_again(&request, stranger);
        assert_eq!(again, told, "{previous_attempts} {stranger} {via:?}");
    }
}
