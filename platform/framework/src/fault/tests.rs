//! Which calls meet which fault.

use http::HeaderValue;
use tokio::time::{self, Instant};

use super::*;
use crate::{
    config::{Sources, load},
    contract::Pattern,
    journal::Journal,
};

fn config(toml: &str) -> Result<Config, String> {
    let loaded = load::<Config>(Sources::new().text("orders.toml", toml));
    let loaded = loaded.map_err(|faults| faults.iter().map(ToString::to_string).collect());
    loaded.map(|loaded| loaded.config().clone())
}

/// Goal: each fault meets the share that is said, and a call at most one end.
/// Method: 20,000 drawn with a seed, all faults at once.
#[test]
fn shares_are_as_said() {
    let config = config(
        "delay_percent = 50\ndelay = '1s'\nfail_percent = 20\ncode = 'INTERNAL'\n\
         abort_percent = 10\ndrop_percent = 5",
    );
    let config = config.unwrap();
    let mut random = fastrand::Rng::with_seed(7);
    let headers = HeaderMap::new();
    let drawn: Vec<_> = (0..20_000)
        .map(|_| config.draw(&headers, || random.f64()))
        .collect();
    let share = |is: &dyn Fn(&Drawn) -> bool| {
        let count = drawn.iter().filter(|it| is(it)).count();
        f64::from(u32::try_from(count).unwrap()) / 200.0
    };
    for (expected, share) in [
        (50.0, share(&|it| it.delay == Some(Duration::from_secs(1)))),
        (20.0, share(&|it| it.end == Some(End::Fail(Code::Internal)))),
        (10.0, share(&|it| it.end == Some(End::Abort))),
        (5.0, share(&|it| it.end == Some(End::Drop))),
        (65.0, share(&|it| it.end.is_none())),
    ] {
        assert!((share - expected).abs() < 1.5, "{share} for {expected}");
    }
}

/// Goal: all or nothing is exact, and without a word nothing happens.
/// Method: the extreme numbers that can be drawn.
#[test]
fn everything_and_nothing_are_exact() {
    let headers = HeaderMap::new();
    let highest = || 1.0 - f64::EPSILON;
    let all = config("fail_percent = 100").unwrap();
    assert!(all.is_on());
    let failed = Some(End::Fail(Code::Unavailable));
    assert_eq!(failed, all.draw(&headers, highest).end);
    let none = Config::default();
    assert!(!none.is_on());
    assert!(none.draw(&headers, || 0.0).is_nothing());
}

/// Goal: one that is for some callers leaves the others alone.
/// Method: calls with the metadata, with more of it, with another, with none.
#[test]
fn metadata_tells_whose_calls_are_meant() {
    let config = config("fail_percent = 100\nmetadata = 'user-agent: grpcurl/'").unwrap();
    let with = |agent: Option<&'static str>| {
        let mut headers = HeaderMap::new();
        if let Some(agent) = agent {
            headers.insert("user-agent", HeaderValue::from_static(agent));
        }
        !config.draw(&headers, || 0.0).is_nothing()
    };
    assert!(with(Some("grpcurl/1.9 grpc-go/1.60")));
    assert!(!with(Some("gantry/0.1.0")));
    assert!(!with(None));
}

/// Goal: what cannot be is refused with its key and what to write.
/// Method: shares beyond all calls, a delay without time, a code that is none.
#[test]
fn what_cannot_be_is_refused() {
    let refused = |toml: &str| config(toml).unwrap_err();
    assert_eq!(
        "orders.toml:1: fail_percent = 60.0: expected no more than 100 percent together with \
         abort_percent and drop_percent: a call ends in one way",
        refused("fail_percent = 60\ndrop_percent = 50"),
    );
    assert_eq!(
        "default: delay = \"0s\": expected more than 0s where delay_percent is not 0",
        refused("delay_percent = 1"),
    );
    assert!(
        refused("code = 'OK'").starts_with("orders.toml:1: code = \"OK\": expected a gRPC code")
    );
    assert!(refused("metadata = 'x'").starts_with("orders.toml:1: metadata = \"x\": expected"));
}

/// Goal: what an operator switches on ends by itself, the most specific counts, and it can be
/// switched off.
/// Method: two faults with different ends on a paused clock.
#[tokio::test(start_paused = true)]
async fn what_is_switched_on_ends() {
    let faults = Faults::default();
    let on = |pattern: &str, percent: f64, seconds: u64| {
        faults.switch_on(Standing {
            pattern: pattern.parse::<Pattern>().unwrap(),
            config: Config {
                fail_percent: percent,
                ..Config::default()
            },
            until: Instant::now() + Duration::from_secs(seconds),
        })
    };
    let percent = |method: &str| {
        faults
            .find(method)
            .map(|met| format!("{}", met.config.fail_percent))
    };
    assert_eq!(None, percent("a.B/C"));
    on("a.B/*", 10.0, 60).unwrap();
    on("a.B/C", 20.0, 30).unwrap();
    assert_eq!(Some("20"), percent("a.B/C").as_deref());
    assert_eq!(Some("10"), percent("a.B/D").as_deref());
    assert_eq!(2, faults.all().len());

    time::advance(Duration::from_secs(30)).await;
    assert_eq!(
        Some("10"),
        percent("a.B/C").as_deref(),
        "one that ended hides no other"
    );
    assert_eq!(1, faults.all().len());
    assert_eq!(1, faults.switch_off(None).len());
    assert_eq!(None, percent("a.B/D"));

    for number in 0..1_000 {
        on(&format!("a.B/M{number}"), 1.0, 60).unwrap();
    }
    assert!(on("a.B/C", 1.0, 60).is_err());
    on("a.B/M1", 2.0, 60).unwrap();
}

/// Goal: who waits because of a fault goes on when it is over, however it ended.
/// Method: three that wait: one whose time passes, one that is replaced, one that is switched off.
#[tokio::test(start_paused = true)]
async fn its_end_is_told_to_those_who_wait() {
    let faults = Faults::default();
    let began = Instant::now();
    let on = |seconds: u64| {
        let switched = faults.switch_on(Standing {
            pattern: "a.B/C".parse::<Pattern>().unwrap(),
            config: Config {
                drop_percent: 100.0,
                ..Config::default()
            },
            until: Instant::now() + Duration::from_secs(seconds),
        });
        switched.unwrap();
        faults.find("a.B/C").unwrap()
    };
    on(30).over().await;
    assert_eq!(Duration::from_secs(30), began.elapsed());

    let replaced = on(60);
    let last = on(60);
    replaced.over().await;
    assert_eq!(Duration::from_secs(30), began.elapsed());
    assert!(
        time::timeout(Duration::from_secs(1), last.over())
            .await
            .is_err()
    );
    assert_eq!(1, faults.switch_off(None).len());
    last.over().await;
    assert_eq!(Duration::from_secs(31), began.elapsed());
}

/// Goal: that a fault's time is over is told once, when it is, and whoever looks first.
/// Method: two with different ends, the later one switched on first; the list asked for as the first one
/// ends; what the journal has, and when.
#[tokio::test(start_paused = true)]
async fn the_end_of_its_time_is_in_the_journal() {
    let (faults, journal) = (Faults::default(), Journal::new());
    let stopping = tokio_util::sync::CancellationToken::new();
    let following = faults.clone().follow(journal.clone(), stopping.clone());
    let began = Instant::now();
    let on = |pattern: &str, seconds: u64| {
        faults.switch_on(Standing {
            pattern: pattern.parse::<Pattern>().unwrap(),
            config: Config {
                fail_percent: 1.0,
                ..Config::default()
            },
            until: began + Duration::from_secs(seconds),
        })
    };
    let told = || {
        let entries = journal.watch().0.into_iter();
        let told = entries.map(|it| format!("{} {} {}", it.kind, it.subject, it.detail));
        told.collect::<Vec<_>>()
    };
    let script = async {
        time::sleep(Duration::from_secs(1)).await;
        on("a.B/C", 60).unwrap();
        time::sleep(Duration::from_secs(1)).await;
        on("a.B/*", 30).unwrap();
        time::sleep_until(began + Duration::from_millis(29_990)).await;
        assert!(told().is_empty());
        time::advance(Duration::from_millis(10)).await;
        assert_eq!(1, faults.all().len());
        time::sleep_until(began + Duration::from_millis(30_010)).await;
        assert_eq!(vec!["fault a.B/* over"], told());
        time::sleep_until(began + Duration::from_millis(60_010)).await;
        assert_eq!(vec!["fault a.B/* over", "fault a.B/C over"], told());
        stopping.cancel();
    };
    tokio::join!(following, script);
}
