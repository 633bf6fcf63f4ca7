//! What operators see of limits and breakers, and say to these, in a whole service.

use std::collections::HashMap;

use gantry_api::admin::v1::{
    Breaker, Limiter, ListBreakersRequest, ListLimitersRequest, SetBreakerRequest,
    admin_service_client::AdminServiceClient,
    breaker::{Mode, State},
    limiter::Kind,
    set_breaker_request::Order,
};
use tonic::Code;

use super::{
    probe::{IDENTITY, Probe, ends_with, hang},
    side_port::admin,
};
use crate::{
    app::{App, BoxError, testing},
    breaker,
    client::Channel,
    config::Live,
    journal,
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

const TARGETS: &str = "[clients.catalog]\ntarget = '127.0.0.1:1,127.0.0.1:2'";

/// A service with a breaker around a bank, and a client of two endpoints.
async fn with_breakers() -> (testing::Service, breaker::Breaker) {
    let (sender, bank) = tokio::sync::oneshot::channel();
    let start = async |app: &mut App<()>| -> Result<(), BoxError> {
        app.serve(Probe);
        let _catalog: Channel = app.client("catalog");
        let config = Live::fixed(breaker::Config::default());
        sender.send(app.breaker("bank", config)).unwrap();
        Ok(())
    };
    let service = testing::Service::start(IDENTITY, TARGETS, start);
    (service.await.unwrap(), bank.await.unwrap())
}

fn name(breaker: &Breaker) -> String {
    format!("{}{}{}", breaker.name, breaker.client, breaker.address)
}

type Admin = AdminServiceClient<tonic::transport::Channel>;

/// Sets breakers: by name, client and address, for so many seconds. Those that were meant.
async fn ask(
    admin: &mut Admin,
    whose: [&str; 3],
    order: Order,
    seconds: i64,
) -> Result<Vec<Breaker>, Code> {
    let [name, client, address] = whose.map(str::to_owned);
    let asked = SetBreakerRequest {
        name,
        client,
        address,
        order: order.into(),
        time: (seconds != 0).then_some(prost_types::Duration { seconds, nanos: 0 }),
    };
    let set = admin.set_breaker(asked).await;
    set.map(|set| set.into_inner().breakers)
        .map_err(|status| status.code())
}

/// Every breaker, once the endpoints have come with the client's first round.
async fn all_three(admin: &mut Admin) -> Vec<Breaker> {
    loop {
        let listed = admin.list_breakers(ListBreakersRequest {}).await.unwrap();
        let listed = listed.into_inner().breakers;
        if listed.len() == 3 {
            return listed;
        }
        tokio::task::yield_now().await;
    }
}

/// Goal: every breaker is shown with what it is, and what is said to one, to those of a client or to
/// one of them is done, for as long as is said, and told of.
/// Method: each order; what the answer and the list say; the journal.
#[tokio::test]
async fn breakers_are_shown_and_set() {
    let (service, bank) = with_breakers().await;
    let mut admin = admin(&service).await;
    let listed = all_three(&mut admin).await;
    let names: Vec<_> = listed.iter().map(name).collect();
    assert_eq!(["bank", "catalog127.0.0.1:1", "catalog127.0.0.1:2"], *names);
    for breaker in &listed {
        assert_eq!(
            (State::Closed, Mode::Automatic),
            (breaker.state(), breaker.mode())
        );
        assert!(
            !breaker.by_hand && breaker.next_probe.is_none(),
            "{breaker:?}"
        );
    }
    let set = ask(&mut admin, ["bank", "", ""], Order::Open, 60)
        .await
        .unwrap();
    let left = set[0].left.unwrap().seconds;
    assert!((50..=60).contains(&left), "{set:?}");
    assert_eq!((State::ForcedOpen, true), (set[0].state(), set[0].by_hand));
    assert!(bank.check().is_err());
    let set = ask(&mut admin, ["bank", "", ""], Order::Close, 0)
        .await
        .unwrap();
    assert_eq!((State::Closed, false), (set[0].state(), set[0].by_hand));
    assert!(bank.check().is_ok());

    let set = ask(&mut admin, ["", "catalog", ""], Order::Disable, 0)
        .await
        .unwrap();
    let states: Vec<_> = set.iter().map(Breaker::state).collect();
    assert_eq!([State::Disabled; 2], *states);
    let set = ask(
        &mut admin,
        ["", "catalog", "127.0.0.1:2"],
        Order::MetricsOnly,
        0,
    )
    .await;
    let set = set.unwrap();
    assert_eq!((1, Mode::MetricsOnly), (set.len(), set[0].mode()));
    let set = ask(&mut admin, ["", "catalog", ""], Order::Automatic, 0)
        .await
        .unwrap();
    let modes: Vec<_> = set.iter().map(|it| (it.mode(), it.by_hand)).collect();
    assert_eq!([(Mode::Automatic, false); 2], *modes);

    let (entries, _) = service.journal().watch();
    let told = entries
        .iter()
        .filter(|it| it.kind == journal::Kind::BreakerSet);
    let told: Vec<_> = told
        .map(|it| format!("{}: {}", it.subject, it.detail))
        .collect();
    let expected = [
        "bank: open",
        "bank: close",
        "catalog: disable",
        "catalog/127.0.0.1:2: metrics only",
        "catalog: automatic",
    ];
    assert_eq!(expected, *told);
    service.stop().await;
}

/// Goal: what is not there, or cannot be, is refused and changes nothing.
/// Method: names of others, what does not go together, times that are none.
#[tokio::test]
async fn what_no_breaker_can_be_told_is_refused() {
    let (service, bank) = with_breakers().await;
    let mut admin = admin(&service).await;
    all_three(&mut admin).await;
    let unknown = Err(Code::NotFound);
    assert_eq!(
        unknown,
        ask(&mut admin, ["bang", "", ""], Order::Open, 0).await
    );
    assert_eq!(
        unknown,
        ask(&mut admin, ["", "bank", ""], Order::Open, 0).await
    );
    assert_eq!(
        unknown,
        ask(&mut admin, ["", "catalog", "127.0.0.1:3"], Order::Open, 0).await
    );
    let invalid = Err(Code::InvalidArgument);
    assert_eq!(invalid, ask(&mut admin, ["", "", ""], Order::Open, 0).await);
    assert_eq!(
        invalid,
        ask(&mut admin, ["bank", "catalog", ""], Order::Open, 0).await
    );
    assert_eq!(
        invalid,
        ask(&mut admin, ["bank", "", "127.0.0.1:1"], Order::Open, 0).await
    );
    assert_eq!(
        invalid,
        ask(&mut admin, ["", "catalog", "one"], Order::Open, 0).await
    );
    assert_eq!(
        invalid,
        ask(&mut admin, ["bank", "", ""], Order::Unspecified, 0).await
    );
    assert_eq!(
        invalid,
        ask(&mut admin, ["bank", "", ""], Order::Open, -1).await
    );
    assert_eq!(
        invalid,
        ask(&mut admin, ["bank", "", ""], Order::Open, 86_401).await
    );
    assert_eq!(
        invalid,
        ask(&mut admin, ["bank", "", ""], Order::Close, 1).await
    );
    assert!(bank.check().is_ok());
    service.stop().await;
}
