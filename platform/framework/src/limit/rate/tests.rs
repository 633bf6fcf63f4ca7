use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::time;
use tonic::Code;
use tonic_types::StatusExt as _;

use super::*;
use crate::{config::Publisher, status::PUSHBACK};

const LOGIN: &str = "test.v1.Service/Login";

fn config(quotas: &[&str], clients_max: usize) -> Config {
    Config {
        quotas: quotas.iter().map(|it| it.parse().unwrap()).collect(),
        clients_max,
        ..Config::default()
    }
}

fn limiter(quotas: &[&str]) -> Limiter {
    Limiter::new(Live::fixed(config(quotas, 1_000)))
}

fn address(number: u32) -> IpAddr {
    IpAddr::V4(number.into())
}

/// How many of `count` calls are let in.
fn admitted(limiter: &Limiter, method: &str, client: IpAddr, count: usize) -> usize {
    let calls = (0..count).map(|_| limiter.admit(method, client));
    calls.flatten().count()
}

/// Goal: a client has its quota, gets it back evenly, and is told when; another is not affected.
/// Method: a paused clock; 101 calls at once, then after the pause that was told, less and more.
#[tokio::test(start_paused = true)]
async fn a_quota_is_spent_and_comes_back() {
    let limiter = limiter(&["test.v1.Service/Login 100/1min"]);
    let (one, other) = (address(1), address(2));
    assert_eq!(100, admitted(&limiter, LOGIN, one, 100));
    let refused = limiter.admit(LOGIN, one).unwrap_err();
    assert_eq!(Code::ResourceExhausted, refused.code());
    assert_eq!("600", refused.metadata().get(PUSHBACK).unwrap());
    let details = refused.get_error_details();
    let reason = details.error_info().map(|it| it.reason.clone());
    assert_eq!(Some("RATE_LIMIT"), reason.as_deref());
    let pause = details.retry_info().and_then(|it| it.retry_delay);
    assert_eq!(Some(Duration::from_millis(600)), pause);
    assert!(refused.message().contains("100 in 1m"), "{refused:?}");

    assert_eq!(100, admitted(&limiter, LOGIN, other, 200));
    // Pushback is rounded up, and never too early.
    time::advance(Duration::from_nanos(1)).await;
    let refused = limiter.admit(LOGIN, one).unwrap_err();
    assert_eq!("600", refused.metadata().get(PUSHBACK).unwrap());
    time::advance(Duration::from_millis(598)).await;
    assert!(limiter.admit(LOGIN, one).is_err());
    time::advance(Duration::from_millis(2)).await;
    assert_eq!(1, admitted(&limiter, LOGIN, one, 2));
    time::advance(Duration::from_mins(1)).await;
    assert_eq!(100, admitted(&limiter, LOGIN, one, 200));
}

/// Goal: the most specific quota counts and no other; without one, nothing is counted.
/// Method: three patterns, calls that each is for, and a limiter with none.
#[tokio::test(start_paused = true)]
async fn the_most_specific_quota_counts() {
    let limiter = limiter(&[
        "test.v1.Service/Login 1/1h",
        "test.v1.Service/* 2/1h",
        "* 3/1h",
    ]);
    let one = address(1);
    assert_eq!(1, admitted(&limiter, LOGIN, one, 9));
    assert_eq!(1, admitted(&limiter, "test.v1.Service/A", one, 1));
    assert_eq!(1, admitted(&limiter, "test.v1.Service/B", one, 9));
    assert_eq!(3, admitted(&limiter, "test.v1.Other/A", one, 9));
    assert_eq!(0, admitted(&limiter, "made up", one, 9));

    let none = self::limiter(&[]);
    assert_eq!(1_000, admitted(&none, LOGIN, one, 1_000));
    assert_eq!((0, 0), none.held());
}

/// Goal: a household of IPv6 is one client, however many addresses it has, and an IPv4 address is the
/// same in both writings.
/// Method: addresses of one /64 and of the next.
#[tokio::test(start_paused = true)]
async fn a_household_is_one_client() {
    let limiter = limiter(&["* 2/1h"]);
    let at = |text: &str| admitted(&limiter, LOGIN, text.parse().unwrap(), 1);
    assert_eq!(1, at("2001:db8::1"));
    assert_eq!(1, at("2001:db8::2"));
    assert_eq!(0, at("2001:db8::3"));
    assert_eq!(1, at("2001:db8:0:1::1"));
    assert_eq!(1, at("192.0.2.1"));
    assert_eq!(1, at("::ffff:192.0.2.1"));
    assert_eq!(0, at("192.0.2.1"));
}

/// Goal: a change counts from the next call on, and what has not changed keeps its counts.
/// Method: spend two quotas, change one of them, then add and remove.
#[tokio::test(start_paused = true)]
async fn quotas_change_while_they_are_used() {
    let mut publisher = Publisher::new(config(&["* 5/1h", "test.v1.Service/Login 5/1h"], 1_000));
    let limiter = Limiter::new(publisher.live());
    let one = address(1);
    assert_eq!(5, admitted(&limiter, LOGIN, one, 9));
    assert_eq!(5, admitted(&limiter, "other", one, 9));
    publisher.publish(config(&["* 5/1h", "test.v1.Service/Login 7/1h"], 1_000));
    assert_eq!(7, admitted(&limiter, LOGIN, one, 9));
    assert_eq!(0, admitted(&limiter, "other", one, 9), "kept");
    publisher.publish(config(&[], 1_000));
    assert_eq!(9, admitted(&limiter, LOGIN, one, 9));
}

/// Goal: a million addresses take bounded memory, those that were there before are not affected, and
/// the others share one count; once they are gone there is room again.
/// Method: a paused clock; one client spends a part, a million others call, bytes and keys are counted.
#[tokio::test(start_paused = true)]
async fn a_million_addresses_take_bounded_memory() {
    let limiter = Limiter::new(Live::fixed(config(&["* 10/1min"], 10_000)));
    let early = address(1);
    assert_eq!(5, admitted(&limiter, LOGIN, early, 5));
    let mut let_in = 0;
    for number in 2..=1_000_001 {
        let_in += admitted(&limiter, LOGIN, address(number), 1);
    }
    let (keys, bytes) = limiter.held();
    assert_eq!(10_000, keys);
    assert!(bytes <= 10_000 * 50, "{bytes} bytes");
    // All that have a count, and ten of all others together.
    assert_eq!(9_999 + 10, let_in);
    assert_eq!(5, admitted(&limiter, LOGIN, early, 9), "not affected");

    time::advance(Duration::from_mins(2)).await;
    assert_eq!(10, admitted(&limiter, LOGIN, address(2_000_000), 11));
    let (keys, bytes) = limiter.held();
    assert_eq!(1, keys);
    assert!(bytes < 1_000, "{bytes} bytes");
}

/// Goal: calls at once spend no more than there is.
/// Method: threads that call as one client.
#[test]
fn calls_at_once_spend_no_more_than_there_is() {
    let limiter = limiter(&["* 500/24h"]);
    let let_in = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let count = admitted(&limiter, LOGIN, address(1), 1_000);
                let_in.fetch_add(count, Ordering::SeqCst);
            });
        }
    });
    assert_eq!(500, let_in.load(Ordering::SeqCst));
}

/// Goal: what is no quota is told why, and what is one reads back as it is shown.
/// Method: texts of both kinds.
#[test]
fn quotas_are_read_as_they_are_written() {
    for text in ["* 5000/1m", "a.v1.S/* 10/1s", "a.v1.S/M 1/1day"] {
        let quota: Quota = text.parse().unwrap();
        assert_eq!(Ok(&quota), quota.to_string().parse().as_ref(), "{text}");
    }
    let wrong = [
        ("", NoQuota::Form),
        ("*", NoQuota::Form),
        ("* 100", NoQuota::Form),
        ("* 0/1s", NoQuota::Calls),
        ("* -1/1s", NoQuota::Calls),
        ("* many/1s", NoQuota::Calls),
        ("* 1/0s", NoQuota::Time),
        ("* 1/25h", NoQuota::Time),
        ("* 1/soon", NoQuota::Time),
        ("a 1/1s", NoQuota::Pattern),
        ("a/ 1/1s", NoQuota::Pattern),
        ("/M 1/1s", NoQuota::Pattern),
        ("a/b/c 1/1s", NoQuota::Pattern),
        ("*/M 1/1s", NoQuota::Pattern),
    ];
    for (text, error) in wrong {
        assert_eq!(Err(error), text.parse::<Quota>(), "{text}");
    }
}
