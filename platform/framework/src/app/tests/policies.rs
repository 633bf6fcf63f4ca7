//! What holds for the calls of a method, in a whole service.

use std::time::Duration;

use gantry_api::admin::v1::ExplainPolicyRequest;
use tonic::Code;

use super::{
    probe::{ends_with, hang, running},
    side_port::admin,
};
use crate::journal::Kind;

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
