//! What callers are let in to, and what is counted meanwhile.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicUsize, Ordering},
};

use http::{HeaderName, HeaderValue};
use tokio::time;
use tonic::Code;
use tonic_types::StatusExt as _;

use super::*;
use crate::{config::Publisher, status::PUSHBACK};

mod settings;

const LOGIN: &str = "test.v1.Service/Login";

fn quotas(texts: &[&str]) -> Quotas {
    let texts: Vec<_> = texts.iter().map(|text| format!("{text:?}")).collect();
    settings::read(&texts.join(", ")).unwrap()
}

fn rules(quotas: &[(&str, &[&str])], keys_max: usize) -> Rules {
    let mut by_pattern = Patterns::default();
    for (pattern, texts) in quotas {
        by_pattern.insert(pattern.parse().unwrap(), self::quotas(texts));
    }
    Rules {
        quotas: by_pattern,
        config: Config {
            keys_max,
            ..Config::default()
        },
    }
}

fn limiter(quotas: &[(&str, &[&str])]) -> Limiter {
    Limiter::new(Live::fixed(rules(quotas, 1_000)))
}

/// For every method.
fn all(quotas: &[&str]) -> Limiter {
    limiter(&[("*", quotas)])
}

fn address(number: u32) -> IpAddr {
    IpAddr::V4(number.into())
}

/// A call that nobody vouches for.
#[derive(Debug, Clone)]
struct Call {
    address: IpAddr,
    headers: HeaderMap,
    identity: Option<&'static str>,
}

impl Call {
    fn from(address: IpAddr) -> Self {
        Self {
            address,
            headers: HeaderMap::new(),
            identity: None,
        }
    }

    fn of(mut self, identity: &'static str) -> Self {
        self.identity = Some(identity);
        self
    }

    fn with(mut self, name: &'static str, value: &'static str) -> Self {
        let name = HeaderName::from_static(name);
        self.headers.append(name, HeaderValue::from_static(value));
        self
    }

    fn caller(&self) -> Caller<'_> {
        Caller {
            address: self.address,
            headers: &self.headers,
            identity: self.identity,
        }
    }

    fn make(&self, limiter: &Limiter, method: &'static str) -> Result<(), Status> {
        limiter.follow(method).admit(|_| self.caller())
    }

    /// As at a gateway, which learns of methods and callers while it hands calls on.
    fn hand_on(&self, limiter: &Limiter) -> Result<(), Status> {
        let unknown = Caller {
            identity: None,
            ..self.caller()
        };
        limiter.begin(LOGIN, &unknown)?.identified(&self.caller())
    }
}

/// How many of `count` calls are let in.
fn admitted(limiter: &Limiter, method: &'static str, call: &Call, count: usize) -> usize {
    let counted = limiter.follow(method);
    let calls = (0..count).map(|_| counted.admit(|_| call.caller()));
    calls.flatten().count()
}

fn fills(limiter: &Limiter) -> Vec<Fill> {
    limiter.inner.fills(Instant::now())
}

/// Callers that are counted one by one.
fn keys(limiter: &Limiter) -> usize {
    let fills = fills(limiter).into_iter();
    let keyed = fills.filter(|fill| fill.key.contains(" per "));
    // Of a caller or two, a whole number.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    keyed.map(|fill| fill.used as usize).sum()
}

fn bytes(limiter: &Limiter) -> usize {
    let book = limiter.inner.book.load();
    book.values().map(|Shared(counts)| counts.bytes()).sum()
}

/// Goal: a caller has its quota, gets it back evenly, and is told when; another is not affected.
/// Method: a paused clock; 101 calls at once, then after the pause that was told, less and more.
#[tokio::test(start_paused = true)]
async fn a_quota_is_spent_and_comes_back() {
    let limiter = limiter(&[(LOGIN, &["100/1min per address"])]);
    let (one, other) = (Call::from(address(1)), Call::from(address(2)));
    assert_eq!(100, admitted(&limiter, LOGIN, &one, 100));
    let refused = one.make(&limiter, LOGIN).unwrap_err();
    assert_eq!(Code::ResourceExhausted, refused.code());
    assert_eq!("600", refused.metadata().get(PUSHBACK).unwrap());
    let details = refused.get_error_details();
    let reason = details.error_info().map(|it| it.reason.clone());
    assert_eq!(Some("RATE_LIMIT"), reason.as_deref());
    let pause = details.retry_info().and_then(|it| it.retry_delay);
    assert_eq!(Some(Duration::from_millis(600)), pause);
    assert_eq!(
        "more than 100 calls in 1m from one address",
        refused.message()
    );

    assert_eq!(100, admitted(&limiter, LOGIN, &other, 200));
    // Pushback is rounded up, and never too early.
    time::advance(Duration::from_nanos(1)).await;
    let refused = one.make(&limiter, LOGIN).unwrap_err();
    assert_eq!("600", refused.metadata().get(PUSHBACK).unwrap());
    time::advance(Duration::from_millis(598)).await;
    assert!(one.make(&limiter, LOGIN).is_err());
    time::advance(Duration::from_millis(2)).await;
    assert_eq!(1, admitted(&limiter, LOGIN, &one, 2));
    time::advance(Duration::from_mins(1)).await;
    assert_eq!(100, admitted(&limiter, LOGIN, &one, 200));
}

/// Goal: the quotas of the most specific pattern count and no others; without one, nothing is counted.
/// Method: three patterns and one that takes a method out, calls that each is for, and a limiter with none.
#[tokio::test(start_paused = true)]
async fn the_most_specific_pattern_counts() {
    let limiter = limiter(&[
        (LOGIN, &["1/1h per address"]),
        ("test.v1.Service/Free", &[]),
        ("test.v1.Service/*", &["2/1h per address"]),
        ("*", &["3/1h per address"]),
    ]);
    let one = Call::from(address(1));
    assert_eq!(1, admitted(&limiter, LOGIN, &one, 9));
    assert_eq!(9, admitted(&limiter, "test.v1.Service/Free", &one, 9));
    assert_eq!(1, admitted(&limiter, "test.v1.Service/A", &one, 1));
    assert_eq!(1, admitted(&limiter, "test.v1.Service/B", &one, 9));
    assert_eq!(3, admitted(&limiter, "test.v1.Other/A", &one, 9));
    assert_eq!(0, admitted(&limiter, "made up", &one, 9));

    let none = Limiter::default();
    assert_eq!(1_000, admitted(&none, LOGIN, &one, 1_000));
    assert!(fills(&none).is_empty());
}

/// Goal: each key tells callers apart by what it says and by nothing else.
/// Method: for each kind of key, a caller that has spent its quota, those who are the same to it, and those
/// who are others.
#[tokio::test(start_paused = true)]
async fn callers_are_told_apart_by_the_key() {
    let here = || Call::from(address(1));
    let there = || Call::from(address(2));
    let at = |text: &str| Call::from(text.parse().unwrap());
    let tenant = "x-tenant";
    for (quota, spent, same, others) in [
        (
            "2/1h",
            here().of("ada"),
            vec![there(), there().of("eve").with(tenant, "a")],
            vec![],
        ),
        (
            "2/1h per address",
            here().of("ada"),
            vec![here(), here().of("eve"), here().with(tenant, "a")],
            vec![there().of("ada")],
        ),
        (
            "2/1h per address",
            at("2001:db8::1"),
            vec![at("2001:db8::2"), at("2001:db8::ffff:0:0:1")],
            vec![at("2001:db8:0:1::1")],
        ),
        (
            "2/1h per address",
            at("192.0.2.1"),
            vec![at("::ffff:192.0.2.1")],
            vec![at("192.0.2.2")],
        ),
        (
            "2/1h per identity",
            here().of("ada"),
            vec![there().of("ada"), here().of("ada").with(tenant, "a")],
            vec![here().of("eve"), here()],
        ),
        (
            "2/1h per metadata:x-tenant",
            here().with(tenant, "a"),
            vec![there().of("ada").with(tenant, "a").with("x-other", "b")],
            vec![
                here().with(tenant, "b"),
                here().with(tenant, "a").with(tenant, "b"),
                here().with(tenant, "a, b"),
                here().with(tenant, ""),
                here(),
            ],
        ),
    ] {
        let limiter = all(&[quota]);
        assert_eq!(2, admitted(&limiter, LOGIN, &spent, 9), "{quota}");
        for same in same {
            assert_eq!(0, admitted(&limiter, LOGIN, &same, 9), "{quota} {same:?}");
        }
        for other in others {
            let count = admitted(&limiter, LOGIN, &other, 9);
            assert_eq!(2, count, "{quota} {other:?}");
        }
    }
}

/// Goal: nobody is let in for lack of what a quota is counted by: they count by address, and those of one
/// address are one.
/// Method: calls without an identity and without metadata, from two addresses.
#[tokio::test(start_paused = true)]
async fn who_has_no_key_is_counted_by_address() {
    for quota in ["3/1h per identity", "3/1h per metadata:x-tenant"] {
        let limiter = all(&[quota]);
        let (one, other) = (Call::from(address(1)), Call::from(address(2)));
        assert_eq!(3, admitted(&limiter, LOGIN, &one, 9), "{quota}");
        assert_eq!(3, admitted(&limiter, LOGIN, &other, 9), "{quota}");
        let refused = one.make(&limiter, LOGIN).unwrap_err();
        assert_eq!("1200000", refused.metadata().get(PUSHBACK).unwrap());
    }
}

/// Goal: all quotas of a pattern must let a call in; one that is refused costs nothing of the others, and
/// is told when the last of those that refuse it would let it in.
/// Method: quotas of one caller and of all, in both orders; a caller that is refused by its own a thousand
/// times, then others; then both quotas at once.
#[tokio::test(start_paused = true)]
async fn a_call_counts_for_all_quotas_or_for_none() {
    for quotas in [
        ["10/1min", "2/1s per identity"],
        ["2/1s per identity", "10/1min"],
    ] {
        let limiter = all(&quotas);
        let greedy = Call::from(address(1)).of("greedy");
        assert_eq!(2, admitted(&limiter, LOGIN, &greedy, 1_000));
        let spent = fills(&limiter).into_iter().find(|it| it.key == "10/1m");
        assert_eq!(Some(2.0), spent.map(|it| it.used), "{quotas:?}");
        for name in ["a", "b", "c", "d"] {
            let modest = Call::from(address(1)).of(name);
            assert_eq!(2, admitted(&limiter, LOGIN, &modest, 2), "{quotas:?}");
        }
        // All are refused by the quota of all, and spend nothing of their own.
        let late = Call::from(address(1)).of("late");
        let refused = late.make(&limiter, LOGIN).unwrap_err();
        assert_eq!("more than 10 calls in 1m", refused.message());
        assert_eq!(5, keys(&limiter), "who was never let in is not counted");
        // Both refuse: the one that lasts longer is told of.
        let refused = greedy.make(&limiter, LOGIN).unwrap_err();
        assert_eq!("6000", refused.metadata().get(PUSHBACK).unwrap());
        time::advance(Duration::from_secs(6)).await;
        assert_eq!(1, admitted(&limiter, LOGIN, &greedy, 9), "{quotas:?}");
    }
}

/// Goal: a gateway counts what it can before it looks at a token, and the rest after it, with the
/// same outcome: a call that its identity's quota refuses gives back what it was counted for.
/// Method: quotas of an address and of identities; calls in two steps.
#[tokio::test(start_paused = true)]
async fn who_is_known_late_is_counted_in_two_steps() {
    let limiter = all(&["5/1h per address", "2/1h per identity"]);
    let call = |name| Call::from(address(1)).of(name);
    let let_in = |name, count| {
        let calls = (0..count).map(|_| call(name).hand_on(&limiter));
        calls.flatten().count()
    };
    assert_eq!(2, let_in("ada", 100));
    assert_eq!(2, let_in("eve", 100));
    assert_eq!(1, let_in("bob", 100), "five of one address");
    let refused = call("bob").hand_on(&limiter).unwrap_err();
    assert_eq!(
        "more than 5 calls in 1h from one address",
        refused.message()
    );
    // One whose token is no good has been counted.
    let unknown = Call::from(address(2));
    for _ in 0..5 {
        drop(limiter.begin(LOGIN, &unknown.caller()).unwrap());
    }
    limiter.begin(LOGIN, &unknown.caller()).unwrap_err();

    let none = Limiter::default();
    call("ada").hand_on(&none).unwrap();
}

/// Goal: a change counts from the next call on, and what has not changed keeps its counts.
/// Method: spend the quotas of two patterns, change one of them, then take all away, and back.
#[tokio::test(start_paused = true)]
async fn quotas_change_while_they_are_used() {
    let table = |login: &[&str]| rules(&[("*", &["5/1h per address"][..]), (LOGIN, login)], 1_000);
    let mut publisher = Publisher::new(table(&["5/1h per address"]));
    let limiter = Limiter::new(publisher.live());
    let one = Call::from(address(1));
    assert_eq!(5, admitted(&limiter, LOGIN, &one, 9));
    assert_eq!(5, admitted(&limiter, "other", &one, 9));
    publisher.publish(table(&["7/1h per address"]));
    assert_eq!(7, admitted(&limiter, LOGIN, &one, 9));
    assert_eq!(0, admitted(&limiter, "other", &one, 9), "kept");
    publisher.publish(rules(&[], 1_000));
    assert_eq!(9, admitted(&limiter, LOGIN, &one, 9));
    assert!(fills(&limiter).is_empty());
    publisher.publish(table(&["1/1h"]));
    assert_eq!(1, admitted(&limiter, LOGIN, &one, 9));
    assert_eq!(5, admitted(&limiter, "other", &one, 9), "begins anew");
}

/// Goal: methods that inherit their quotas from one pattern are counted together, whatever else is said
/// of them, and one whose own pattern says the same is counted alone.
/// Method: as a table of policies gives them.
#[tokio::test(start_paused = true)]
async fn what_is_inherited_is_counted_together() {
    let quota = quotas(&["3/1h"]);
    let inherited = quota.clone().inherited_from(&Pattern::All);
    // What is inherited once more is of the first still.
    let again = inherited
        .clone()
        .inherited_from(&"test.v1.Service/*".parse().unwrap());
    let mut by_pattern = Patterns::default();
    for (pattern, quotas) in [
        ("*", &quota),
        ("test.v1.Service/*", &inherited),
        ("test.v1.Service/A", &again),
        (LOGIN, &quota),
    ] {
        by_pattern.insert(pattern.parse().unwrap(), quotas.clone());
    }
    let limiter = Limiter::new(Live::fixed(Rules {
        quotas: by_pattern,
        ..Rules::default()
    }));
    let one = Call::from(address(1));
    assert_eq!(1, admitted(&limiter, "test.v1.Other/A", &one, 1));
    assert_eq!(1, admitted(&limiter, "test.v1.Service/A", &one, 1));
    assert_eq!(1, admitted(&limiter, "test.v1.Service/B", &one, 9));
    assert_eq!(3, admitted(&limiter, LOGIN, &one, 9));
    let refused = fills(&limiter).into_iter();
    let refused: BTreeMap<_, _> = refused.map(|fill| (fill.method, fill.refused)).collect();
    let expected = [(String::new(), 8), (LOGIN.to_owned(), 6)];
    assert_eq!(BTreeMap::from(expected), refused);
}

/// Goal: a million callers take bounded memory, those that were there before are not affected, and
/// the others share one count; once they are gone nothing is held.
/// Method: a paused clock; one caller spends a part, a million others call, by address, and some by long
/// metadata; bytes and keys are counted.
#[tokio::test(start_paused = true)]
async fn a_million_callers_take_bounded_memory() {
    for (quota, count) in [
        ("10/1min per address", 1_000_000),
        ("10/1min per metadata:x-tenant", 100_000),
    ] {
        let limiter = Limiter::new(Live::fixed(rules(&[("*", &[quota])], 10_000)));
        let counted = limiter.follow(LOGIN);
        let call = |number: u32| {
            let mut call = Call::from(address(number));
            let value = HeaderValue::from_str(&format!("{number:0200}")).unwrap();
            call.headers.insert("x-tenant", value);
            call
        };
        let early = call(1);
        assert_eq!(5, admitted(&limiter, LOGIN, &early, 5));
        let mut let_in = 0;
        for number in 2..=1 + count {
            let call = call(number);
            let_in += usize::from(counted.admit(|_| call.caller()).is_ok());
        }
        assert_eq!(10_000, keys(&limiter));
        let bytes = bytes(&limiter);
        assert!(bytes <= 10_000 * 50, "{bytes} bytes");
        // All that have a count, and ten of all others together.
        assert_eq!(9_999 + 10, let_in);
        assert_eq!(5, admitted(&limiter, LOGIN, &early, 9), "not affected");

        time::advance(Duration::from_mins(2)).await;
        // Whoever is new finds room, although nobody has looked for any.
        assert_eq!(10, admitted(&limiter, LOGIN, &call(2_000_000), 11));
        limiter.sweep();
        assert_eq!(1, keys(&limiter));
        time::advance(Duration::from_mins(2)).await;
        limiter.sweep();
        assert_eq!((0, 0), (keys(&limiter), self::bytes(&limiter)));
    }
}

/// Goal: where nobody calls any more nothing is held, without a call that would look for it.
/// Method: the task that does it, on a paused clock.
#[tokio::test(start_paused = true)]
async fn nothing_is_held_of_those_who_are_gone() {
    let limiter = all(&["10/1min per address"]);
    let mut sweeping = std::pin::pin!(limiter.clone().keep_swept());
    for number in 0..100 {
        Call::from(address(number)).make(&limiter, LOGIN).unwrap();
    }
    assert_eq!(100, keys(&limiter));
    // Calls in flight are not forgotten before their time.
    let mut pass = async |time| time::timeout(time, &mut sweeping).await.unwrap_err();
    pass(Duration::from_secs(5)).await;
    assert_eq!(100, keys(&limiter));
    pass(SWEEP_PAUSE).await;
    assert_eq!(0, keys(&limiter));
}

/// Goal: operators see each quota with what is counted for it.
/// Method: two quotas, some calls, some refused; the board, then some of the time in which a call comes back.
#[tokio::test(start_paused = true)]
async fn each_quota_is_seen_with_its_fill() {
    let limiter = limiter(&[("test.v1.Service/*", &["5/1min", "4/1min per address"])]);
    let board = Board::default();
    limiter.show(&board);
    assert_eq!(4, admitted(&limiter, LOGIN, &Call::from(address(1)), 6));
    let told = || {
        let fills = board.fills(Instant::now()).into_iter();
        let told = fills.map(|it| (it.method, it.key, it.used, it.max, it.refused));
        told.collect::<Vec<_>>()
    };
    let expected = |spent| {
        let pattern = || "test.v1.Service/*".to_owned();
        let keyed = "4/1m per address".to_owned();
        [
            (pattern(), "5/1m".to_owned(), spent, Some(5.0), 0),
            (pattern(), keyed, 1.0, Some(1_000.0), 2),
        ]
    };
    assert_eq!(expected(4.0), *told());
    time::advance(Duration::from_secs(11)).await;
    assert_eq!(expected(4.0), *told());
    time::advance(Duration::from_secs(1)).await;
    assert_eq!(expected(3.0), *told());
}

/// Goal: calls at once spend no more than there is, of none of several quotas, and no less.
/// Method: threads that call as one caller and as several, by both quotas.
#[test]
fn calls_at_once_spend_no_more_than_there_is() {
    let limiter = all(&["1500/24h", "500/24h per identity"]);
    let let_in = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (limiter, let_in) = (&limiter, &let_in);
            let names = ["a", "b", "c", "d"];
            scope.spawn(move || {
                let call = Call::from(address(1)).of(names[thread % 4]);
                let count = admitted(limiter, LOGIN, &call, 2_000);
                let_in.fetch_add(count, Ordering::SeqCst);
            });
        }
    });
    assert_eq!(1_500, let_in.load(Ordering::SeqCst));
}
