//! Quotas as people write them.

use super::*;
use crate::config::{self, Sources};

config::section! {
    /// As in a policy.
    struct Root {
        /// Quotas.
        rate: Quotas = Quotas::default(), live;
    }
}

/// What is made of `rate = [list]`, or what is said of it.
pub(super) fn read(list: &str) -> Result<Quotas, String> {
    let text = format!("\nrate = [{list}]");
    let loaded = config::load::<Root>(Sources::new().text("orders.toml", &text));
    let loaded = loaded.map_err(|faults| faults.to_string())?;
    Ok(loaded.config().rate.clone())
}

/// Goal: what is a quota reads back as it is shown.
/// Method: each kind of key, and spellings of it.
#[test]
fn quotas_are_read_as_they_are_written() {
    for (text, shown) in [
        ("5000/1min", "5000/1m"),
        ("10/1s per address", "10/1s per address"),
        (" 1/1day  per  identity ", "1/1day per identity"),
        ("7 / 1h 30min per identity", "7/1h 30m per identity"),
        ("1/1ms per metadata:X-Tenant", "1/1ms per metadata:x-tenant"),
    ] {
        let quota: Quota = text
            .parse()
            .unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(shown, quota.to_string(), "{text}");
        assert_eq!(Ok(quota), shown.parse(), "{text}");
    }
    assert_eq!(
        3,
        read("'1/1s', '10/1min', '1/1s per address'")
            .unwrap()
            .iter()
            .count()
    );
}

/// Goal: what cannot be is refused with its line, its value and what to write.
/// Method: texts that are no quotas.
#[test]
fn what_is_no_quota_is_told_why() {
    let form = "it is not of the form CALLS/TIME or CALLS/TIME per KEY";
    let calls = "its number of calls is not a whole one from 1 to 4294967295";
    let time = "its time is not a duration from 1ms to 24h";
    let key = ": it is address, identity or metadata:NAME";
    for (text, reason) in [
        ("", form.to_owned()),
        ("100", form.to_owned()),
        ("* 100/1min", form.to_owned()),
        ("a.v1.S/M 100/1min", calls.to_owned()),
        ("0/1s", calls.to_owned()),
        ("-1/1s", calls.to_owned()),
        ("many/1s", calls.to_owned()),
        ("1/0s", time.to_owned()),
        ("1/25h", time.to_owned()),
        ("1/soon", time.to_owned()),
        ("1/1s by address", time.to_owned()),
        (
            "1/1s per adress",
            "there is no key adress; did you mean address?".to_owned(),
        ),
        (
            "1/1s per indentity",
            "there is no key indentity; did you mean identity?".to_owned(),
        ),
        (
            "1/1s per metdata:x",
            "there is no key metdata; did you mean metadata:NAME?".to_owned(),
        ),
        ("1/1s per caller", format!("there is no key caller{key}")),
        (
            "1/1s per metadata",
            "metadata wants a name, as in metadata:x-tenant".to_owned(),
        ),
        (
            "1/1s per metadata:",
            "\"\" is no name of metadata such as x-tenant".to_owned(),
        ),
        (
            "1/1s per metadata:a b",
            "\"a b\" is no name of metadata such as x-tenant".to_owned(),
        ),
        (
            "1/1s per metadata:authorization",
            "whom a token speaks for is counted per identity".to_owned(),
        ),
        (
            "1/1s per metadata:grpc-timeout",
            "grpc-timeout is not the caller's to choose, but gRPC's".to_owned(),
        ),
    ] {
        let expected = format!(
            "orders.toml:2: rate = [{text:?}]: expected a list, each a quota such as \
             \"100/1min per address\" or \"5000/1min\"; {text:?}: {reason}"
        );
        assert_eq!(Err(expected), read(&format!("{text:?}")));
    }
}

/// Goal: a quota that another one of its list makes useless is refused, as is a list of too many.
/// Method: one that is never reached, the same twice, and nine.
#[test]
fn quotas_of_a_list_go_together() {
    let beside = |list: &str, reason: &str| {
        let refused = read(list).unwrap_err();
        assert!(refused.ends_with(reason), "{refused}");
    };
    beside(
        "'5/1s', '100/1min', '10/1s'",
        "; 10/1s is never reached beside 5/1s; leave one out",
    );
    beside(
        "'5/1s per address', '5/1s per address'",
        "; 5/1s per address is never reached beside 5/1s per address; leave one out",
    );
    beside(
        "'9/1s', '10/2s', '11/3s', '12/4s', '13/5s', '14/6s', '15/7s', '16/8s', '17/9s'",
        "; there are more than 8",
    );
}
