//! What streams say of the endpoint that serves them.

use tokio_stream::StreamExt as _;

use super::{
    super::{peer::OPEN, retries::UPLOADS},
    *,
};

/// Goal: how long a stream goes on once it has been answered is its caller's affair: it is neither slow
/// nor a failure of its endpoint.
/// Method: streams that are answered at once and end at their callers' deadline of ten seconds, one
/// after the other, where a call of a second is slow.
#[tokio::test(start_paused = true)]
async fn a_long_stream_counts_for_nothing_bad() {
    let (_peers, caller) = peers::<1>(|config| {
        config.balance.breaker.calls_min = 3;
        config.balance.breaker.slow_call = SECOND;
    })
    .await;
    for number in 0..8 {
        let mut request = tonic::Request::new(HealthCheckRequest {
            service: OPEN.to_owned(),
        });
        request.set_timeout(10 * SECOND);
        let answers = caller.client().watch(request).await;
        let mut answers = answers.unwrap().into_inner();
        assert!(answers.message().await.unwrap().is_some());
        let status = patient(answers.message()).await.unwrap_err();
        assert_eq!(Code::DeadlineExceeded, status.code());
        let endpoint = caller.endpoints().remove(0);
        assert!(!endpoint.breaker.is_shut(), "after {number}");
        let latency = endpoint.latency.expect("it has answered");
        assert!(latency < SECOND, "{latency:?} after {number}");
    }
    caller.stop().await;
}

/// Goal: whoever waits for the rest of a request is not slow.
/// Method: streams whose caller never ends them, each to its deadline of five seconds, at a peer that
/// answers once they are whole.
#[tokio::test(start_paused = true)]
async fn a_caller_that_never_ends_its_stream_fails_nobody() {
    let net = Net::default();
    let _peer = Peer::start(&net, addr(1), Manners::default());
    let policy = Policy {
        timeout: 5 * SECOND,
        ..Policy::default()
    };
    let caller = Caller::under(&net, &[addr(1)], policy, |_| {});
    caller.until(addr(1), Connectivity::Ready).await;
    for number in 0..8 {
        let one = HealthCheckRequest {
            service: "x".to_owned(),
        };
        let messages = tokio_stream::once(one).chain(tokio_stream::pending());
        let ended = caller.say(UPLOADS, messages).await;
        assert_eq!(Code::DeadlineExceeded, code(&ended));
        let endpoint = caller.endpoints().remove(0);
        assert!(!endpoint.breaker.is_shut(), "after {number}");
    }
    caller.stop().await;
}
