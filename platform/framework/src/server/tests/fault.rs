//! Calls that meet a fault on purpose.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;
use tonic::{Code, Response};

use super::probe::{Probe, STREAM, Served, UNARY};
use crate::{
    config::{Live, Publisher},
    fault::{Config, Ending, Faults, Standing},
    policy::{Policies, Policy},
    server::Router,
    transport::server::Limits,
    transport::wire::{Reply, Wire},
};

/// Answers both kinds of calls at once.
fn answering(faults: &Faults, policy: Config) -> Served {
    answering_by(faults, &Live::fixed(table(policy)))
}

fn table(fault: Config) -> BTreeMap<String, Policy> {
    let policy = Policy {
        fault,
        ..Policy::default()
    };
    BTreeMap::from([("*".to_owned(), policy)])
}

fn answering_by(faults: &Faults, table: &Live<BTreeMap<String, Policy>>) -> Served {
    let router = Router::new()
        .add(Probe::unary(|_| async {
            Ok(Response::new(b"fine".to_vec()))
        }))
        .follow(Policies::new(table))
        .meet(faults.clone());
    Served::new(router, Limits::default())
}

fn switch_on(faults: &Faults, pattern: &str, config: Config) {
    let switched = faults.switch_on(Standing {
        pattern: pattern.parse().unwrap(),
        config,
        until: Instant::now() + Duration::from_mins(10),
    });
    switched.unwrap();
}

async fn call(served: &Served, path: &str) -> (Reply, Duration) {
    let began = Instant::now();
    let wire = Wire::over(served.connector.connect().await.unwrap()).await;
    let mut request = Wire::request(path);
    let timeout = http::HeaderValue::from_static("10S");
    request.headers_mut().insert("grpc-timeout", timeout);
    let reply = wire.call(request, b"").await.unwrap();
    (reply, began.elapsed())
}

/// Goal: each fault does what it says, within the call's deadline, to unary calls and streams, and
/// nothing once it is off.
/// Method: all of them switched on one after the other, for every call.
#[tokio::test(start_paused = true)]
async fn each_fault_does_what_it_says() {
    let faults = Faults::default();
    let served = answering(&faults, Config::default());
    let fail = Config {
        fail_percent: 100.0,
        code: Ending(Code::DataLoss),
        ..Config::default()
    };
    let abort = Config {
        abort_percent: 100.0,
        ..Config::default()
    };
    let drop = Config {
        drop_percent: 100.0,
        ..Config::default()
    };
    let cases = [
        (fail, Some(Code::DataLoss), 0),
        (abort, None, 0),
        (drop, Some(Code::DeadlineExceeded), 10),
    ];
    for (config, code, seconds) in cases {
        switch_on(&faults, "test.Probe/*", config);
        for path in [UNARY, STREAM] {
            let (reply, took) = call(&served, path).await;
            assert_eq!((code, seconds), (reply.code(), took.as_secs()), "{path}");
        }
    }

    let late = |delay| Config {
        delay_percent: 100.0,
        delay,
        ..Config::default()
    };
    switch_on(
        &faults,
        UNARY.strip_prefix('/').unwrap(),
        late(Duration::from_secs(3)),
    );
    let (reply, took) = call(&served, UNARY).await;
    assert_eq!((Some(Code::Ok), 3), (reply.code(), took.as_secs()));
    switch_on(
        &faults,
        UNARY.strip_prefix('/').unwrap(),
        late(Duration::from_secs(30)),
    );
    let (reply, took) = call(&served, UNARY).await;
    assert_eq!(
        (Some(Code::DeadlineExceeded), 10),
        (reply.code(), took.as_secs())
    );

    assert_eq!(2, faults.switch_off(None).len());
    let (reply, took) = call(&served, UNARY).await;
    assert_eq!((Some(Code::Ok), 0), (reply.code(), took.as_secs()));
}

/// Goal: a policy's fault holds where none is switched on, and what is switched on takes its place.
/// Method: a policy that fails every call; one method with a fault of its own.
#[tokio::test(start_paused = true)]
async fn what_is_switched_on_takes_the_place_of_the_policys() {
    let faults = Faults::default();
    let of = |code| Config {
        fail_percent: 100.0,
        code: Ending(code),
        ..Config::default()
    };
    let served = answering(&faults, of(Code::Internal));
    assert_eq!(Some(Code::Internal), call(&served, UNARY).await.0.code());
    switch_on(&faults, "*", of(Code::Aborted));
    assert_eq!(Some(Code::Aborted), call(&served, UNARY).await.0.code());
    assert_eq!(1, faults.switch_off(None).len());
    assert_eq!(Some(Code::Internal), call(&served, UNARY).await.0.code());
}

/// Goal: calls that wait because of a fault go on to their handler at once when it ends, and meet nothing
/// more of it: an operator switches it off or its time passes, or a policy does not say so any more.
/// Method: calls with ten seconds that are dropped, or late and then to fail; each way of ending, after
/// three seconds.
#[tokio::test(start_paused = true)]
async fn calls_go_on_when_their_fault_ends() {
    let drop = Config {
        drop_percent: 100.0,
        ..Config::default()
    };
    let late = Config {
        delay_percent: 100.0,
        delay: Duration::from_secs(8),
        fail_percent: 100.0,
        ..Config::default()
    };
    for config in [drop, late] {
        for way in ["off", "over", "policy"] {
            let faults = Faults::default();
            let by_policy = way == "policy";
            let fault = if by_policy {
                config.clone()
            } else {
                Config::default()
            };
            let mut publisher = Publisher::new(table(fault));
            let served = answering_by(&faults, &publisher.live());
            if !by_policy {
                let seconds = if way == "over" { 3 } else { 60 };
                let switched = faults.switch_on(Standing {
                    pattern: "*".parse().unwrap(),
                    config: config.clone(),
                    until: Instant::now() + Duration::from_secs(seconds),
                });
                switched.unwrap();
            }
            let end = async {
                tokio::time::sleep(Duration::from_secs(3)).await;
                match way {
                    "off" => assert_eq!(1, faults.switch_off(None).len()),
                    "policy" => {
                        publisher.publish(table(Config::default()));
                    }
                    _ => {}
                }
            };
            let ((reply, took), ()) = tokio::join!(call(&served, UNARY), end);
            let ended = (reply.code(), took.as_secs());
            assert_eq!((Some(Code::Ok), 3), ended, "{way} {config:?}");
        }
    }
}
