//! What policies say of calls that are served, beside times and limits.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use tonic::{Code, Response};

use super::{
    probe::{DOWN, Messages, Probe, STREAM, Served, UNARY, UP},
    protect::{Full, calling},
};
use crate::{
    call,
    caller::Criticality,
    config::{Live, Publisher},
    journal::Journal,
    limit::{
        concurrency::Cap,
        shed::{self, Shedder},
    },
    policy::{Policies, Policy},
    server::{Protection, Router},
    shutdown::Tasks,
    telemetry::{Level, Sampling},
    testing::telemetry::capture_lines,
    transport::{server::Limits, wire::Wire},
};

const KINDS: [&str; 4] = [UNARY, UP, DOWN, STREAM];

fn all(policy: Policy) -> BTreeMap<String, Policy> {
    BTreeMap::from([("*".to_owned(), policy)])
}

/// What the last handler found of its call.
type Found = Arc<Mutex<Option<Criticality>>>;

fn finding(path: &str, found: &Found) -> Probe {
    let found = Arc::clone(found);
    let note = move || {
        let of_call = call::with_current(|call| call.unwrap().criticality);
        *found.lock().unwrap() = of_call;
        tracing::debug!("found");
    };
    if path == UNARY {
        return Probe::unary(move |_| {
            note();
            async { Ok(Response::new(Vec::new())) }
        });
    }
    Probe::stream(move |_| {
        note();
        async {
            let messages: Messages = Box::pin(tokio_stream::once(Ok(Vec::new())));
            Ok(Response::new(messages))
        }
    })
}

/// Goal: the policy of a method says how much calls matter that do not say so themselves, strangers'
/// among them, and is the most that any may claim; strangers claim no more than they ever do.
/// Method: every policy, every word and none, all four kinds of methods, known callers and strangers.
#[tokio::test(start_paused = true)]
async fn a_policy_says_how_much_calls_matter() {
    let words = Criticality::ALL.map(Some).into_iter().chain([None]);
    for (path, strangers) in KINDS.into_iter().flat_map(|it| [(it, false), (it, true)]) {
        for policy in Criticality::ALL {
            let found = Found::default();
            let policies = all(Policy {
                criticality: Some(policy),
                ..Policy::default()
            });
            let mut router = Router::new()
                .add(finding(path, &found))
                .follow(Policies::new(&Live::fixed(policies)));
            let mut most = Criticality::CriticalPlus;
            if strangers {
                router = router.sample_by(Sampling::new(0.0));
                most = Criticality::Critical;
            }
            let served = Served::new(router, Limits::default());
            let wire = Wire::over(served.connector.connect().await.unwrap()).await;
            for said in words.clone() {
                let reply = wire.call(calling(path, said), b"").await.unwrap();
                assert_eq!(Some(Code::Ok), reply.code(), "{path}");
                let expected = said.map_or(policy, |said| said.min(most).min(policy));
                let found = *found.lock().unwrap();
                assert_eq!(Some(expected), found, "{path} {policy} {said:?}");
            }
        }
    }
}

/// Goal: an operator decides of a method as what its calls are refused in an overloaded process, or
/// that they never are; whatever they are, it is in force for the next call.
/// Method: little memory left, so that the lesser two are refused; each policy after the other in one
/// process; calls of each kind that say the least and nothing.
#[tokio::test(start_paused = true)]
async fn calls_of_a_method_are_shed_as_its_policy_says() {
    let cap = Cap::default();
    let shedder = Shedder::new(Live::fixed(shed::Config::default()), cap.clone());
    let tasks = Tasks::new(Journal::new());
    let watch = shedder
        .clone()
        .watch(Full, Journal::new(), tasks.stopping());
    tasks.spawn("load", watch);
    let shed = |exempt, level| {
        let shed = shed::Policy { exempt, level };
        all(Policy {
            shed,
            ..Policy::default()
        })
    };
    let mut publisher = Publisher::new(shed(false, None));
    let probe = |path| finding(path, &Found::default());
    let policies = Policies::new(&publisher.live());
    let mut wires = Vec::new();
    let mut servers = Vec::new();
    for path in KINDS {
        let router = Router::new()
            .add(probe(path))
            .follow(policies.clone())
            .protect(Protection::new(cap.clone(), shedder.clone()));
        let served = Served::new(router, Limits::default());
        let wire = Wire::over(served.connector.connect().await.unwrap()).await;
        wires.push((path, wire));
        servers.push(served);
    }
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    let (least, most) = (Criticality::Sheddable, Criticality::CriticalPlus);
    for (exempt, level, expected) in [
        (false, None, [Code::Unavailable, Code::Ok]),
        (true, None, [Code::Ok, Code::Ok]),
        (false, Some(least), [Code::Unavailable, Code::Unavailable]),
        (false, Some(most), [Code::Ok, Code::Ok]),
    ] {
        publisher.publish(shed(exempt, level));
        for (path, wire) in &wires {
            for (said, expected) in [Some(least), None].into_iter().zip(expected) {
                let reply = wire.call(calling(path, said), b"").await.unwrap();
                let case = format!("{path} {exempt} {level:?} {said:?}");
                assert_eq!(Some(expected), reply.code(), "{case}");
            }
        }
    }
}

/// Goal: what is logged while a call is served, and that it was, follows the level of its method, whatever
/// kind of method it is; and others do not.
/// Method: a handler that logs at DEBUG, in a process at WARN, with a level for its service and without.
#[tokio::test(start_paused = true)]
async fn a_call_is_logged_as_the_policy_of_its_method_says() {
    let capture = capture_lines("warn".parse().unwrap());
    for path in KINDS {
        let probe = finding(path, &Found::default());
        let served = Served::new(Router::new().add(probe), Limits::default());
        let wire = Wire::over(served.connector.connect().await.unwrap()).await;
        let told = async |level| {
            let before = capture.lines().len();
            let levels = BTreeMap::from([("test.Probe/*".to_owned(), level)]);
            capture.log_level().set_methods(&levels);
            let reply = wire.call(calling(path, None), b"").await.unwrap();
            assert_eq!(Some(Code::Ok), reply.code());
            let lines = capture.lines().split_off(before).into_iter();
            let lines = lines.filter(|line| line.level() == "DEBUG");
            lines.map(|line| line.message()).collect::<Vec<_>>()
        };
        assert!(told(None).await.is_empty(), "{path}");
        let lines = told(Some(Level::Debug)).await;
        assert_eq!(vec!["found", "call served"], lines, "{path}");
        assert!(told(Some(Level::Error)).await.is_empty(), "{path}");
    }
}
