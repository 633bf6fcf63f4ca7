//! What holds for the calls of a method, in a whole service.

use std::time::Duration;

use gantry_api::admin::v1::{CallBounds, ExplainPolicyRequest, call_bounds};
use tonic::Code;

use super::{
    probe::{IDENTITY, Probe, ends_with, hang, running},
    side_port::admin,
};
use crate::{
    app::{App, BoxError, testing},
    contract::{Access, Idempotency, Method},
    journal::Kind,
    telemetry::level::{ByPattern, Level},
};

/// A method that is called elsewhere.
static CALLED: [Method; 1] = [Method {
    path: "/other.Other/Get",
    client_streaming: false,
    server_streaming: false,
    idempotency: Idempotency::Idempotent,
    access: Access::Public,
    role: None,
}];

/// A probe that calls it through `other`.
async fn calling(toml: &str) -> Result<testing::Service, BoxError> {
    let start = async |app: &mut App<()>| {
        drop(app.clients().channel("other", &CALLED));
        app.serve(Probe);
        Ok(())
    };
    testing::Service::start(IDENTITY, toml, start).await
}

const POLICIES: &str = r#"
[policies."test.Probe/*"]
timeout = "100ms"
rate = ["9/1h per identity"]
[policies."test.Prob/*"]
timeout = "1s"
"#;

/// Goal: a policy bounds the calls it is for, can be asked for with its line, and one that is
/// misspelt is told of with what was meant.
/// Method: a service whose stream never ends by itself; the side port; the journal.
#[tokio::test]
async fn a_policy_is_in_force_and_explained() {
    let service = running(POLICIES).await;
    let stream = hang(&mut service.client()).await;
    let ended = tokio::time::timeout(Duration::from_secs(10), ends_with(stream)).await;
    assert_eq!(Ok(Some(Code::DeadlineExceeded)), ended);

    let mut admin = admin(&service).await;
    let mut asked = async |method: &str| {
        let method = method.to_owned();
        let answer = admin.explain_policy(ExplainPolicyRequest { method }).await;
        answer.map(tonic::Response::into_inner)
    };
    let explained = asked("test.Probe/Hang").await.unwrap();
    assert_eq!(["test.Probe/*"], *explained.patterns);
    let mut values = explained.values.iter();
    let timeout = values.find(|value| value.key == "timeout").unwrap();
    assert_eq!("\"100ms\"", timeout.value);
    assert_eq!("test.Probe/*", timeout.pattern);
    assert!(timeout.origin.starts_with("test:3"), "{timeout:?}");
    assert!(timeout.description.starts_with("Longest time of a call"));
    let mut values = explained.values.iter();
    let rate = values.find(|value| value.key == "rate").unwrap();
    assert_eq!("[\"9/1h per identity\"]", rate.value);
    assert!(rate.origin.starts_with("test:4"), "{rate:?}");
    assert_eq!("", explained.meant);
    let misspelt = asked("test.Probe/Hand").await.unwrap();
    assert_eq!("test.Probe/Hang", misspelt.meant);
    let refused = asked("test.Probe/*").await.unwrap_err();
    assert_eq!(Code::InvalidArgument, refused.code());

    let (kept, _) = service.journal().watch();
    let told: Vec<_> = kept
        .iter()
        .filter(|entry| entry.kind == Kind::Policy)
        .map(|entry| (entry.subject.as_str(), entry.detail.as_str()))
        .collect();
    let expected = "no method served or called here matches; did you mean test.Probe/*?";
    assert_eq!([("test.Prob/*", expected)], *told);
    service.stop().await;
}

/// Goal: it can be asked how long a call takes at most and how many attempts it is made of, for the
/// client that makes it.
/// Method: a method that is called through a client with bounds of its own; one that is not called.
#[tokio::test]
async fn time_and_attempts_are_explained() {
    let toml = r#"
        [clients.other]
        target = "127.0.0.1:1"
        timeout_default = "9s"
        fail_fast = "100ms"
        [policies."other.Other/*".retry]
        attempt_timeout = "200ms"
    "#;
    let service = calling(toml).await.unwrap();
    let mut admin = admin(&service).await;
    let mut asked = async |method: &str| {
        let method = method.to_owned();
        let answer = admin.explain_policy(ExplainPolicyRequest { method }).await;
        answer.unwrap().into_inner().calls
    };
    let millis = |millis| Some(Duration::from_millis(millis).try_into().unwrap());
    let expected = CallBounds {
        client: "other".to_owned(),
        way: call_bounds::Way::Retried.into(),
        // Three attempts and four that reach nobody, of 200 ms each, each of which waits for 100 ms;
        // pauses of 50 and 100 ms and a fifth.
        latency_max: millis(2_280),
        timeout: millis(9_000),
        attempts_time: millis(1_400),
        pauses_time: millis(180),
        waits_time: millis(700),
        attempts_max: 3,
        repeats_max: 4,
        amplification: 1.2,
        spare_per_second: 10,
    };
    assert_eq!(vec![expected], asked("other.Other/Get").await);
    assert!(asked("test.Probe/Hang").await.is_empty());
    service.stop().await;
}

/// Goal: a policy that cannot be for the client that would follow it keeps a process from starting, with
/// what to change and where.
/// Method: attempts that may take longer than the calls of the client.
#[tokio::test]
async fn a_policy_that_fits_no_client_is_refused() {
    let toml = "[policies.'*'.retry]\nattempt_timeout = '6s'\n\
                [clients.other.balance.breaker]\nwindow = '12s'\n\
                [clients.other]\ntarget = '127.0.0.1:1'\n";
    let refused = calling(toml).await.unwrap_err();
    assert_eq!(
        "test:2: policies.\"*\".retry.attempt_timeout = \"6s\": expected no more than \
         clients.other.timeout_default (the policy has no timeout), which is 5s: no attempt outlasts \
         its call",
        refused.to_string()
    );
    let service = calling(&format!("{toml}timeout_default = '7s'")).await;
    service.unwrap().stop().await;
}

/// Goal: the log level of a policy is that of the process's log.
/// Method: a level for a service, and what the log has by methods.
#[tokio::test]
async fn a_level_of_a_policy_is_the_logs() {
    let service = running("[policies.'test.Levelled/*']\nlog_level = 'debug'").await;
    let levels = testing::log_level().methods();
    let expected = [("test.Levelled/*".to_owned(), Some(Level::Debug))];
    assert_eq!(ByPattern::from(expected), levels);
    service.stop().await;
}
