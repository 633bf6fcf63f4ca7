//! The table as people write it, and what is made of it.

use std::collections::BTreeSet;

use super::*;
use crate::{
    config::{self, Origin, Publisher, Sources},
    contract::{Access, Idempotency, Method},
};

config::section! {
    /// As in a process.
    struct Root {
        /// By pattern.
        policies: map of Policy, live;
    }
}

const CHARGE: &str = "shop.payments.v1.PaymentsService/Charge";

fn load(toml: &str) -> Result<config::Loaded<Root>, config::Faults> {
    config::load::<Root>(Sources::new().text("orders.toml", toml))
}

fn policies_of(toml: &str) -> BTreeMap<String, Policy> {
    load(toml).expect("it is fine").config().policies.clone()
}

fn faults(toml: &str) -> Vec<String> {
    let faults = load(toml).expect_err("at fault");
    faults.iter().map(ToString::to_string).collect()
}

const ALL: &str = r#"
[policies."shop.payments.v1.PaymentsService/Charge"]
[policies."shop.payments.v1.PaymentsService/*"]
timeout = "4s"
[policies."*"]
timeout = "10s"
"#;

/// Goal: what a pattern does not say, the next less specific one says.
/// Method: three patterns in another order than theirs; methods of each.
#[test]
fn a_pattern_inherits_from_the_less_specific() {
    let table = Table::new(&policies_of(ALL));
    let seconds = |method: &str| table.find(method).timeout().map(|it| it.as_secs());
    assert_eq!(Some(4), seconds(CHARGE));
    assert_eq!(Some(4), seconds("shop.payments.v1.PaymentsService/Refund"));
    assert_eq!(Some(10), seconds("shop.orders.v1.OrdersService/PlaceOrder"));
    let nothing = Table::new(&BTreeMap::new());
    assert_eq!(Policy::default(), **nothing.find(CHARGE));
}

/// Goal: what is wrong is told with its line and with what to write instead.
/// Method: names and values that cannot be.
#[test]
fn what_cannot_be_is_refused_by_its_line() {
    assert_eq!(
        ["orders.toml:3: policies.\"shop.Orders\": \
             expected package.Service/Method, package.Service/* or *"],
        *faults("\n[policies.\"shop.Orders\"]\ntimeout = '1s'"),
    );
    assert_eq!(
        [
            "orders.toml:2: policies.\"*\".timeout = \"2years\": expected a duration such as \
             \"250ms\", \"5s\" or \"1h 30min\" from \"0s\" to \"1year\""
        ],
        *faults("[policies.'*']\ntimeout = '2years'"),
    );
    let unknown = faults("[policies.'*']\ntimeuot = '1s'");
    assert!(unknown[0].starts_with("orders.toml:2: "), "{unknown:?}");
}

/// Goal: a change reaches those who follow a method, and a call that began keeps what it read.
/// Method: change one service's policy, look at a method of it and at one of another.
#[test]
fn a_change_reaches_the_methods_it_is_for() {
    let mut publisher = Publisher::new(policies_of(""));
    let policies = Policies::new(&publisher.live());
    let charge = policies.follow(CHARGE);
    let other = policies.follow("shop.orders.v1.OrdersService/PlaceOrder");
    let began = charge.load();
    let changes = other.subscribe();

    let shorter = "[policies.'shop.payments.v1.PaymentsService/*']\ntimeout = '1s'";
    publisher.publish(policies_of(shorter));

    let second = Some(Duration::from_secs(1));
    assert_eq!(None, began.timeout());
    assert_eq!(second, charge.read(Policy::timeout));
    assert_eq!(second, policies.find(CHARGE).timeout());
    assert_eq!(None, other.read(Policy::timeout));
    assert!(!changes.has_changed().unwrap(), "nothing of it changed");
}

/// Goal: it can be asked for each value who had the last word.
/// Method: a method with a pattern of its own that says nothing, one of another service, and one
/// where nothing is configured.
#[test]
fn each_value_is_explained() {
    let loaded = load(ALL).unwrap();
    let timeout = |method| {
        let explained = explain(loaded.entries(), method);
        let mut values = explained.values.into_iter();
        let value = values.find(|it| it.key == "timeout").unwrap();
        (explained.patterns, value)
    };
    let service = "shop.payments.v1.PaymentsService/*";
    let (patterns, value) = timeout(CHARGE);
    assert_eq!([service], *patterns);
    assert_eq!(Some("\"4s\""), value.value.as_deref());
    assert_eq!(Some(service), value.pattern.as_deref());
    assert_eq!("orders.toml:4", value.origin.to_string());

    let (_, value) = timeout("shop.orders.v1.OrdersService/PlaceOrder");
    assert_eq!(Some("*"), value.pattern.as_deref());

    let explained = explain(load("").unwrap().entries(), CHARGE);
    assert!(explained.patterns.is_empty());
    let mut values = explained.values.iter();
    assert!(values.all(|it| it.pattern.is_none() && it.origin == Origin::Default));
}

/// Goal: a pattern that is for nothing is found, with what was meant by it.
/// Method: misspelt methods and services beside those that are known.
#[test]
fn a_pattern_for_nothing_is_found() {
    let toml = r#"
        [policies."*"]
        [policies."shop.payments.v1.PaymentsService/*"]
        [policies."shop.payments.v1.PaymentsService/Charge"]
        [policies."shop.payments.v1.PaymentsService/Chrage"]
        [policies."shop.payment.v1.PaymentsService/*"]
        [policies."far.Away/*"]
    "#;
    let methods = BTreeSet::from([CHARGE, "shop.payments.v1.PaymentsService/Refund"]);
    let found = unmatched(&policies_of(toml), &methods).into_iter();
    let found: Vec<_> = found.map(|it| (it.pattern, it.meant)).collect();
    let found: Vec<_> = found
        .iter()
        .map(|(pattern, meant)| (pattern.as_str(), meant.as_deref()))
        .collect();
    let expected = [
        ("far.Away/*", None),
        (
            "shop.payment.v1.PaymentsService/*",
            Some("shop.payments.v1.PaymentsService/*"),
        ),
        ("shop.payments.v1.PaymentsService/Chrage", Some(CHARGE)),
    ];
    assert_eq!(expected, *found);
}

/// Goal: retries that do not fit the time of a call are refused when the configuration is read.
/// Method: an attempt longer than its call, and pauses that are; the time from a less specific pattern.
#[test]
fn retries_fit_the_time_of_a_call() {
    let toml = |rest: &str| format!("[policies.'*']\ntimeout = '5s'\n{rest}");
    assert_eq!(
        [
            "orders.toml:4: policies.\"*\".retry.attempt_timeout = \"6s\": expected no more than \
             timeout, which is 5s: no attempt outlasts its call"
        ],
        *faults(&toml("[policies.'*'.retry]\nattempt_timeout = '6s'")),
    );
    let pauses = faults(&toml(
        "[policies.'a.B/C'.retry]\nattempts_max = 5\nbackoff_min = '1s'",
    ));
    let expected = "orders.toml:4: policies.\"a.B/C\".retry.attempts_max = 5: expected pauses that fit \
                    timeout, which is 5s: those between 5 attempts";
    assert_eq!(1, pauses.len());
    assert!(pauses[0].starts_with(expected), "{pauses:?}");
    // Nobody asked for retries here.
    load("[policies.'*']\ntimeout = '20ms'").unwrap();
}

/// Goal: settings that cannot be together are refused with what to change, at the line that says so.
/// Method: each pair beside one that just works.
#[test]
fn what_does_not_go_together_is_refused() {
    let second = "timeout = '1s'";
    let at = |line: u32, rest: &str| format!("orders.toml:{line}: policies.\"a.B/C\".{rest}");
    for (fine, wrong, expected) in [
        (
            "retry.attempt_timeout = '900ms'",
            "retry.attempt_timeout = '950ms'",
            at(
                3,
                "retry.attempt_timeout = \"950ms\": expected to leave time for a second attempt \
                 within timeout, which is 1s: that would begin after 1s; lower attempt_timeout or \
                 backoff_min, or raise timeout",
            ),
        ),
        (
            "hedge = { attempts_max = 3, delay = '499ms' }",
            "hedge = { attempts_max = 3, delay = '500ms' }",
            at(
                3,
                "hedge.delay = \"500ms\": expected so little that all attempts begin within timeout, \
                 which is 1s: the last of 3 begins after 1s; lower delay or attempts_max, or raise \
                 timeout",
            ),
        ),
        (
            "breaker.slow_call = '1s'",
            "breaker.slow_call = '1001ms'",
            at(
                3,
                "breaker.slow_call = \"1s 1ms\": expected no more than timeout, which is 1s: no call \
                 takes longer; lower slow_call, or raise timeout",
            ),
        ),
        (
            "shed.level = 'CRITICAL'",
            "shed = { level = 'CRITICAL', exempt = true }",
            at(
                3,
                "shed.level = \"CRITICAL\": expected none beside exempt = true, which lets all in: \
                 leave out one of the two, or set level = \"\"",
            ),
        ),
        (
            "retry.attempts_max = 1\nhedge = { attempts_max = 2, delay = '9ms' }",
            "retry.attempts_max = 2\nhedge = { attempts_max = 2, delay = '9ms' }",
            at(
                3,
                "retry.attempts_max = 2: expected 1, or none beside hedge.attempts_max: a method is \
                 hedged, if its contract says that it has no side effects, or else retried; leave out \
                 the one that is not meant",
            ),
        ),
    ] {
        let toml = |rest: &str| format!("[policies.'a.B/C']\n{second}\n{rest}");
        load(&toml(fine)).unwrap_or_else(|faults| panic!("{fine}: {faults}"));
        assert_eq!(vec![expected], faults(&toml(wrong)));
    }
    // Of several methods, some are hedged and some retried.
    let both = "[policies.'a.B/*']\nretry.attempts_max = 2\nhedge.attempts_max = 2";
    load(both).unwrap();
}

/// Goal: what does not go together is told once, where the later of the two is said, though the other
/// is inherited, and not again of patterns that inherit both.
/// Method: a time for attempts for all, a shorter time for a service, and a method of it with neither.
#[test]
fn what_is_inherited_is_told_once() {
    let toml = "[policies.'*'.retry]\nattempt_timeout = '2s'\n\
                [policies.'a.B/*']\ntimeout = '1s'\n\
                [policies.'a.B/C']\ncriticality = 'SHEDDABLE'";
    assert_eq!(
        [
            "orders.toml:4: policies.\"a.B/*\".retry.attempt_timeout = \"2s\": expected no more than \
             timeout, which is 1s: no attempt outlasts its call"
        ],
        *faults(toml)
    );
}

/// Goal: what a policy asks of calls is judged by the client that makes them, and by no other.
/// Method: methods of each kind through clients with a short time and a short window; a policy that
/// is fine by itself.
#[test]
fn a_policy_fits_the_clients_that_follow_it() {
    static METHODS: [Method; 4] = {
        const fn method(path: &'static str, streams: bool, it: Idempotency) -> Method {
            Method {
                path,
                client_streaming: false,
                server_streaming: streams,
                idempotency: it,
                access: Access::Public,
                role: None,
            }
        }
        [
            method("/a.B/Retried", false, Idempotency::Idempotent),
            method("/a.B/Watched", true, Idempotency::Idempotent),
            method("/a.B/Once", false, Idempotency::Unknown),
            method("/a.B/Read", false, Idempotency::NoSideEffects),
        ]
    };
    let told = |toml: &str, method: usize, window: u64| {
        let loaded = load(toml).unwrap();
        let called = Called {
            client: "b".to_owned(),
            method: &METHODS[method],
            timeout_default: Duration::from_secs(5),
            window: Duration::from_secs(window),
        };
        let faults = misfits(&loaded.config().policies, loaded.entries(), &[called]);
        faults.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let toml =
        "[policies.'*'.retry]\nattempt_timeout = '6s'\n[policies.'a.B/*']\nfault.code = 'INTERNAL'";
    let over = "orders.toml:2: policies.\"*\".retry.attempt_timeout = \"6s\": expected no more than \
                clients.b.timeout_default (the policy has no timeout), which is 5s: no attempt \
                outlasts its call";
    let half = "orders.toml:2: policies.\"*\".retry.attempt_timeout = \"6s\": expected no more than \
                half of clients.b.balance.breaker.window, which is 11s: the breaker would have \
                forgotten one attempt that took too long before the next; lower attempt_timeout, or \
                raise window";
    assert_eq!(vec![over], told(toml, 0, 12));
    assert_eq!(vec![over, half], told(toml, 0, 11));
    // A stream has no time by default, and attempts of its own; what is sent once has none.
    assert_eq!(vec![half], told(toml, 1, 11));
    assert!(told(toml, 2, 11).is_empty());

    let toml = "[policies.'*'.hedge]\nattempts_max = 2\ndelay = '5s'";
    let read = told(toml, 3, 10);
    let expected = "orders.toml:3: policies.\"*\".hedge.delay = \"5s\": expected so little";
    assert!(read[0].starts_with(expected), "{read:?}");
    assert!(told(toml, 0, 10).is_empty());
    let toml = format!("{toml}\n[policies.'a.B/Read']\ntimeout = '6s'");
    assert!(told(&toml, 3, 10).is_empty());
}

/// Goal: how old a stale answer may be is said for a service and taken back for a method; more than a day is
/// not.
/// Method: such a table, by method, and as it is derived; then one that says two days.
#[test]
fn stale_answers_are_said_by_pattern() {
    let toml = "[policies.'a.B/*']\nstale_cache = { age_max = '5m' }\n\
                [policies.'a.B/Own']\ntimeout = '1s'\n\
                [policies.'a.B/None']\nstale_cache.age_max = '0s'\n";
    let policies = Policies::new(&Live::fixed(policies_of(toml)));
    let age = |method| policies.find(method).stale_cache.age_max;
    let (some, none) = (Duration::from_mins(5), Duration::ZERO);
    for (method, expected) in [
        ("a.B/Any", some),
        ("a.B/Own", some),
        ("a.B/None", none),
        ("a.C/Any", none),
    ] {
        assert_eq!(expected, age(method), "{method}");
    }
    let derived = policies.derive(|all| all.values().count());
    assert_eq!(3, *derived.load());
    let refused = faults("[policies.'*']\nstale_cache.age_max = '2days'\n");
    let start = "orders.toml:2: policies.\"*\".stale_cache.age_max = \"2days\": expected";
    assert!(refused[0].starts_with(start), "{refused:?}");
}
