//! What operators see of limits, in a whole service.

use std::collections::HashMap;

use gantry_api::admin::v1::{Limiter, ListLimitersRequest, limiter::Kind};
use tonic::Code;

use super::{
    probe::{IDENTITY, Probe, ends_with, hang},
    side_port::admin,
};
use crate::{
    app::{App, BoxError, testing},
    client::Channel,
};

const LIMITS: &str = r#"
[concurrency]
calls_max = 7
[clients.catalog]
target = "127.0.0.1:1"
bulkhead.calls_max = 9
[policies."test.Probe/Hang".concurrency]
calls_max = 2
queue_percent = 0
[policies."*"]
rate = ["5/1h", "9/1h per address"]
[rate]
keys_max = 30
"#;

async fn limiters(service: &testing::Service) -> HashMap<(Kind, String), Limiter> {
    let mut admin = admin(service).await;
    let listed = admin.list_limiters(ListLimitersRequest {}).await.unwrap();
    let each = listed.into_inner().limiters.into_iter();
    each.map(|it| {
        (
            (it.kind(), format!("{}{}{}", it.client, it.method, it.key)),
            it,
        )
    })
    .collect()
}

/// Goal: every limit is shown with what it holds, how much it may and what it refused.
/// Method: two streams in flight where the method may have two and the process seven, a third that is
/// refused; a client that calls nobody.
#[tokio::test]
async fn limits_are_shown_with_what_they_hold() {
    let start = async |app: &mut App<()>| -> Result<(), BoxError> {
        app.serve(Probe);
        let _catalog: Channel = app.client("catalog");
        Ok(())
    };
    let service = testing::Service::start(IDENTITY, LIMITS, start)
        .await
        .unwrap();
    let mut channel: Channel = service.client();
    let held = [hang(&mut channel).await, hang(&mut channel).await];
    let refused = hang(&mut channel).await;
    let code = crate::status::code_in(refused.headers());
    let code = match code {
        Some(code) => Some(code),
        None => ends_with(refused).await,
    };
    assert_eq!(Some(Code::Unavailable), code);

    let all = limiters(&service).await;
    let of = |kind: Kind, of: &str| {
        let limiter = all.get(&(kind, of.to_owned()));
        let limiter = limiter.unwrap_or_else(|| panic!("no {kind:?} of {of:?} in {all:?}"));
        (limiter.used, limiter.max, limiter.refused)
    };
    assert_eq!((2.0, Some(7.0), 0), of(Kind::Concurrency, ""));
    let method = "test.Probe/Hang";
    assert_eq!((2.0, Some(2.0), 1), of(Kind::Concurrency, method));
    assert_eq!((0.0, Some(0.0), 0), of(Kind::Queue, method));
    assert!(!all.contains_key(&(Kind::Adaptive, method.to_owned())));
    assert_eq!((3.0, Some(5.0), 0), of(Kind::Rate, "5/1h"));
    assert_eq!((1.0, Some(30.0), 0), of(Kind::Rate, "9/1h per address"));
    assert_eq!((0.0, Some(1.0), 0), of(Kind::Shed, "SHEDDABLE"));
    assert_eq!(Some(0.02), of(Kind::Lag, "").1);
    assert_eq!(Some(0.85), of(Kind::Cpu, "").1);
    assert_eq!(Some(0.92), of(Kind::Memory, "").1);
    assert_eq!((0.0, Some(9.0), 0), of(Kind::Bulkhead, "catalog"));
    assert_eq!((0.0, Some(100.0), 0), of(Kind::RetryBudget, "catalog"));
    assert_eq!((0.0, Some(5.0), 0), of(Kind::RetryTokens, "catalog"));
    assert_eq!((0.0, Some(10.0), 0), of(Kind::Throttle, "catalog"));

    drop(held);
    service.stop().await;
}
