use futures_util::FutureExt as _;
use tokio::time;
use tonic::Code;
use tonic_types::StatusExt as _;

use super::*;
use crate::{
    caller::Criticality::{self, Critical, Sheddable},
    config::Publisher,
    contract::{Access, Idempotency, Method},
    limit::throughput::Throughput,
    status::PUSHBACK,
};

static METHOD: Method = Method {
    path: "/test.v1.Service/Method",
    client_streaming: false,
    server_streaming: false,
    idempotency: Idempotency::Unknown,
    access: Access::Public,
    role: None,
};

fn fixed(calls_max: usize) -> Policy {
    Policy {
        calls_max,
        adaptive: Mode::Off,
        queue_percent: 0,
        ..Policy::default()
    }
}

fn limiter(policy: Policy) -> Limiter {
    Limiter::new(&METHOD, Live::fixed(policy), Throughput::default())
}

fn admitted(limiter: &Limiter, criticality: Criticality) -> Option<Place> {
    match limiter.admit(|| criticality) {
        Ok(Admission::Admitted(place)) => Some(place),
        Ok(Admission::Waits(_)) | Err(_) => None,
    }
}

fn waits(limiter: &Limiter, criticality: Criticality) -> Waiting {
    match limiter.admit(|| criticality) {
        Ok(Admission::Waits(waiting)) => waiting,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn assert_refused(status: &Status) {
    assert_eq!(Code::Unavailable, status.code());
    let details = status.get_error_details();
    let reason = details.error_info().map(|it| it.reason.clone());
    assert_eq!(Some("CONCURRENCY"), reason.as_deref());
    let pause = status.metadata().get(PUSHBACK).unwrap().to_str().unwrap();
    let pause: u64 = pause.parse().unwrap();
    assert!((50..=150).contains(&pause), "{pause}");
}

/// Goal: a process has as many calls as it may, and is told in the words of a refusal; the number may
/// change.
/// Method: fill it, raise, lower.
#[test]
fn a_process_is_full_at_its_cap() {
    let config = |calls_max| Config { calls_max };
    let mut publisher = Publisher::new(config(2));
    let cap = Cap::new(publisher.live());
    let held = [cap.admit().unwrap(), cap.admit().unwrap()];
    assert_refused(&cap.admit().unwrap_err());
    publisher.publish(config(3));
    let third = cap.admit().unwrap();
    assert_refused(&cap.admit().unwrap_err());
    publisher.publish(config(1));
    drop(held);
    assert_refused(&cap.admit().unwrap_err());
    drop(third);
    assert_eq!(0, cap.in_flight());
    cap.admit().unwrap();
}

/// Goal: without a limit of its own, a method has as many calls as come.
/// Method: many, as it ships.
#[tokio::test(start_paused = true)]
async fn a_method_is_not_bounded_as_it_ships() {
    let limiter = limiter(Policy::default());
    let places: Vec<_> = (0..1_000).map(|_| admitted(&limiter, Sheddable)).collect();
    assert!(places.iter().all(Option::is_some));
    assert_eq!(1_000, limiter.in_flight());
    drop(places);
    assert_eq!(0, limiter.in_flight());
}

/// Goal: a limit is held to, and changes while calls run, also from none and to none.
/// Method: raise, lower and remove it under open calls, one of which waits.
#[tokio::test(start_paused = true)]
async fn a_limit_changes_while_calls_run() {
    let mut publisher = Publisher::new(Policy {
        calls_max: 0,
        ..fixed(1)
    });
    let limiter = Limiter::new(&METHOD, publisher.live(), Throughput::default());
    let mut places: Vec<_> = (0..4)
        .map(|_| admitted(&limiter, Sheddable).unwrap())
        .collect();
    publisher.publish(Policy {
        queue_percent: 50,
        ..fixed(2)
    });
    let mut waiting = waits(&limiter, Sheddable);
    assert_refused(&limiter.admit(|| Sheddable).unwrap_err());
    for _ in 0..2 {
        places.pop();
        assert!((&mut waiting).now_or_never().is_none(), "still two");
    }
    publisher.publish(Policy {
        calls_max: 0,
        ..fixed(1)
    });
    places.pop();
    let place = waiting.now_or_never().unwrap().unwrap();
    assert_eq!(2, limiter.in_flight());
    drop((place, places));
    assert_eq!(0, limiter.in_flight());
}

/// Goal: a place that is free goes to who waits, in turn; who comes meanwhile passes nobody.
/// Method: one place, two that wait, one more that comes as it is free.
#[tokio::test(start_paused = true)]
async fn who_waits_is_passed_by_nobody() {
    let policy = Policy {
        queue_percent: 300,
        ..fixed(1)
    };
    let limiter = limiter(policy);
    let place = admitted(&limiter, Critical).unwrap();
    let (mut one, mut two) = (waits(&limiter, Critical), waits(&limiter, Critical));
    assert_eq!(2, limiter.waiting());
    drop(place);
    let mut three = waits(&limiter, Critical);
    let place = (&mut one).now_or_never().unwrap().unwrap();
    assert!((&mut two).now_or_never().is_none());
    drop(place);
    // Given to one that goes away before it has looked.
    drop(two);
    let place = (&mut three).now_or_never().unwrap().unwrap();
    assert_eq!((1, 0), (limiter.in_flight(), limiter.waiting()));
    drop(place);
    assert_eq!(0, limiter.in_flight());
}

/// Goal: no place is lost and nobody waits for ever, however calls meet.
/// Method: on two threads at once, many calls that wait for one of three places, hold it for a moment, and
/// go away now and then before they have it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_place_is_lost_between_threads() {
    let limiter = limiter(Policy {
        queue_percent: 10_000,
        queue_interval: Duration::from_hours(1),
        ..fixed(3)
    });
    let mut calls = tokio::task::JoinSet::new();
    for caller in 0..32_usize {
        let limiter = limiter.clone();
        calls.spawn(async move {
            for call in 0..500 {
                let criticality = Criticality::ALL[(caller + call) % 4];
                let place = match limiter.admit(|| criticality).unwrap() {
                    Admission::Admitted(place) => place,
                    Admission::Waits(waiting) if call % 7 == 0 => {
                        drop(waiting);
                        continue;
                    }
                    Admission::Waits(waiting) => waiting.await.unwrap(),
                };
                tokio::task::yield_now().await;
                drop(place);
            }
        });
    }
    let ended = time::timeout(Duration::from_mins(1), calls.join_all()).await;
    assert!(ended.is_ok(), "{limiter:?}");
    assert_eq!((0, 0), (limiter.in_flight(), limiter.waiting()));
}

/// Goal: a share is had at once, whoever borrowed it and whoever waits.
/// Method: calls of one kind have everything and wait for more; one of another comes.
#[tokio::test(start_paused = true)]
async fn a_share_passes_those_that_wait() {
    let policy = Policy {
        queue_percent: 50,
        ..fixed(10)
    };
    let limiter = limiter(policy);
    let _places: Vec<_> = (0..10)
        .map(|_| admitted(&limiter, Sheddable).unwrap())
        .collect();
    let _waiting: Vec<_> = (0..5).map(|_| waits(&limiter, Sheddable)).collect();
    assert_refused(&limiter.admit(|| Sheddable).unwrap_err());
    let own: Vec<_> = (0..5)
        .map(|_| admitted(&limiter, Critical).unwrap())
        .collect();
    assert_eq!(15, limiter.in_flight());
    // Beyond its share it takes a place in line from who matters less.
    let _sixth = waits(&limiter, Critical);
    assert_eq!(5, limiter.waiting());
    drop(own);
}

/// Ten calls that take `took` and a window that ends.
async fn window(limiter: &Limiter, took: Duration, calls: usize) {
    let mut places: Vec<_> = (0..calls)
        .filter_map(|_| admitted(limiter, Critical))
        .collect();
    time::advance(took).await;
    time::advance(Duration::from_secs(1).saturating_sub(took)).await;
    for place in &mut places {
        place.answered(true);
    }
}

/// Goal: a limit that is measured is held to where that is on, and else is not.
/// Method: calls far beyond where it begins, in each mode.
#[tokio::test(start_paused = true)]
async fn what_is_measured_is_held_to_where_that_is_on() {
    for (adaptive, in_flight) in [(Mode::On, 20), (Mode::Shadow, 100), (Mode::Off, 100)] {
        let limiter = limiter(Policy {
            calls_max: 0,
            adaptive,
            ..fixed(1)
        });
        let places: Vec<_> = (0..100)
            .filter_map(|_| admitted(&limiter, Critical))
            .collect();
        assert_eq!(in_flight, places.len(), "{adaptive}");
        drop(places);
        window(&limiter, Duration::from_millis(10), 20).await;
        let places: Vec<_> = (0..100)
            .filter_map(|_| admitted(&limiter, Critical))
            .collect();
        assert_eq!(in_flight == 20, places.len() < 100);
        // A fixed limit is a bound on it.
        if adaptive == Mode::On {
            let both = self::limiter(Policy {
                adaptive,
                ..fixed(5)
            });
            let places = (0..9).filter_map(|_| admitted(&both, Critical));
            assert_eq!(5, places.collect::<Vec<_>>().len());
        }
    }
}

/// Goal: streams are not measured: they take as long as their callers want.
/// Method: more than a measured limit begins with, of a method that streams.
#[tokio::test(start_paused = true)]
async fn streams_are_not_measured() {
    static STREAM: Method = Method {
        server_streaming: true,
        path: "/test.v1.Service/Stream",
        ..METHOD
    };
    let policy = Policy {
        adaptive: Mode::On,
        ..Policy::default()
    };
    let limiter = Limiter::new(&STREAM, Live::fixed(policy), Throughput::default());
    let places = (0..100).filter_map(|_| admitted(&limiter, Critical));
    assert_eq!(100, places.collect::<Vec<_>>().len());
}

/// Goal: settings that refuse everything, or promise more than there is, are refused.
/// Method: their files.
#[test]
fn settings_that_cannot_hold_are_refused() {
    let sources = |text: &str| config::Sources::new().text("test", text);
    assert!(config::load::<Config>(sources("calls_max = 0")).is_err());
    for wrong in [
        "queue_percent = 51",
        "adaptive_max = 3",
        "[shares]\ncritical = 90",
    ] {
        assert!(config::load::<Policy>(sources(wrong)).is_err(), "{wrong}");
    }
    let right = sources("calls_max = 5\nadaptive = 'on'\n[shares]\ncritical = 60");
    let right = config::load::<Policy>(right).unwrap();
    assert_eq!(5, right.config().calls_max);
}

/// Goal: errors that a handler is there to tell count as answers do; failures, and calls that are given
/// up, count where they take longer than calls do, and not where they are quick.
/// Method: ten windows of calls of 100 ms, then ten in which they end in another way, or sooner or later;
/// the limit after those.
#[tokio::test(start_paused = true)]
async fn failures_count_where_they_take_long() {
    #[derive(Debug)]
    enum End {
        Worked,
        Failed,
        GivenUp,
    }
    for (end, millis, shrinks) in [
        (End::Worked, 100, false),
        (End::Worked, 400, true),
        (End::Failed, 20, false),
        (End::Failed, 400, true),
        (End::GivenUp, 20, false),
        (End::GivenUp, 400, true),
    ] {
        let limiter = limiter(Policy {
            calls_max: 0,
            adaptive: Mode::On,
            ..fixed(1)
        });
        let mut limit = 0;
        for number in 0..21 {
            let usual = number < 10;
            let took = Duration::from_millis(if usual { 100 } else { millis });
            time::advance(Duration::from_secs(1)).await;
            let mut places: Vec<_> = (0..200)
                .filter_map(|_| admitted(&limiter, Critical))
                .collect();
            limit = places.len();
            time::advance(took).await;
            for place in &mut places {
                match end {
                    _ if usual => place.answered(true),
                    End::Worked => place.answered(true),
                    End::Failed => place.answered(false),
                    End::GivenUp => {}
                }
            }
            drop(places);
        }
        assert_eq!(shrinks, limit < 20, "{end:?} {millis}: {limit}");
    }
}
