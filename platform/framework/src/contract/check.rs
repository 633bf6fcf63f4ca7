//! What generated validation asks of a value where a comparison is not enough.

use std::{
    collections::HashSet,
    hash::Hash,
    net::{Ipv4Addr, Ipv6Addr},
    sync::OnceLock,
    time::{SystemTime, UNIX_EPOCH},
};

use regex::Regex;

/// A regular expression, compiled when first asked.
#[derive(Debug)]
pub struct Pattern {
    text: &'static str,
    compiled: OnceLock<Regex>,
}

impl Pattern {
    /// The pattern `text`, which `gantry-build` has tried.
    #[must_use]
    pub const fn new(text: &'static str) -> Self {
        Self {
            text,
            compiled: OnceLock::new(),
        }
    }

    /// Whether it matches somewhere in `value`; in time linear in its length.
    ///
    /// # Panics
    ///
    /// If it is no regular expression, which `gantry-build` finds out when it generates it.
    #[must_use]
    pub fn matches(&self, value: &str) -> bool {
        self.compiled
            .get_or_init(|| Regex::new(self.text).expect("gantry-build has compiled it"))
            .is_match(value)
    }
}

/// Length in Unicode scalar values.
#[must_use]
pub fn characters(value: &str) -> u64 {
    value.chars().count() as u64
}

/// Whether no two of `items` are equal.
pub fn unique<T: Eq + Hash>(items: impl IntoIterator<Item = T>) -> bool {
    let mut seen = HashSet::new();
    items.into_iter().all(|item| seen.insert(item))
}

/// Whether `value` contains `part`.
#[must_use]
pub fn bytes_contain(value: &[u8], part: &[u8]) -> bool {
    part.is_empty() || value.windows(part.len()).any(|window| window == part)
}

/// Whether it is an email address as HTML's input element takes it.
#[must_use]
pub fn email(value: &str) -> bool {
    let Some((local, domain)) = value.split_once('@') else {
        return false;
    };
    let is_local =
        |byte: u8| byte.is_ascii_alphanumeric() || b".!#$%&'*+/=?^_`{|}~-".contains(&byte);
    !local.is_empty() && local.bytes().all(is_local) && domain.split('.').all(is_label)
}

/// Whether it is a host name of RFC 1034: labels of letters, digits and hyphens, not all of the
/// last one digits, and perhaps a dot at the end.
#[must_use]
pub fn hostname(value: &str) -> bool {
    let name = value.strip_suffix('.').unwrap_or(value);
    let last = name.rsplit('.').next().unwrap_or_default();
    value.len() <= 253
        && name.split('.').all(is_label)
        && !last.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_label(label: &str) -> bool {
    (1..=63).contains(&label.len())
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// Whether it is an IP address of either version.
#[must_use]
pub fn ip(value: &str) -> bool {
    ipv4(value) || ipv6(value)
}

/// Whether it is an IPv4 address in four decimal parts.
#[must_use]
pub fn ipv4(value: &str) -> bool {
    value.parse::<Ipv4Addr>().is_ok()
}

/// Whether it is an IPv6 address, perhaps with a zone: `fe80::1%eth0`.
#[must_use]
pub fn ipv6(value: &str) -> bool {
    let (address, zone) = value.split_once('%').unwrap_or((value, "0"));
    !zone.is_empty() && address.parse::<Ipv6Addr>().is_ok()
}

/// Whether it is a UUID in its five groups.
#[must_use]
pub fn uuid(value: &str) -> bool {
    value.len() == 36
        && value.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

/// Whether it is a UUID without its hyphens.
#[must_use]
pub fn tuuid(value: &str) -> bool {
    value.len() == 32 && value.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Whether it is a ULID: 128 bits in Crockford's base 32.
#[must_use]
pub fn ulid(value: &str) -> bool {
    let is_digit = |byte: u8| byte.is_ascii_alphanumeric() && !b"ILOUilou".contains(&byte);
    value.len() == 26
        && value.starts_with(|first: char| ('0'..='7').contains(&first))
        && value.bytes().all(is_digit)
}

/// Whether it is a URI of RFC 3986 with a scheme.
#[must_use]
pub fn uri(value: &str) -> bool {
    let Some((scheme, rest)) = value.split_once(':') else {
        return false;
    };
    let is_scheme = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
    let (rest, fragment) = rest.split_once('#').unwrap_or((rest, ""));
    let (hierarchy, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, path) = match hierarchy.strip_prefix("//") {
        Some(rest) => rest.split_at(rest.find('/').unwrap_or(rest.len())),
        None => ("", hierarchy),
    };
    scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme.bytes().all(is_scheme)
        && is_authority(authority)
        && is_encoded(path, b"/:@")
        && is_encoded(query, b"/?:@")
        && is_encoded(fragment, b"/?:@")
}

fn is_authority(authority: &str) -> bool {
    let (user, place) = authority.rsplit_once('@').unwrap_or(("", authority));
    let (host_is_good, port) = if let Some(literal) = place.strip_prefix('[') {
        let Some((address, port)) = literal.split_once(']') else {
            return false;
        };
        // A zone has its percent sign encoded (RFC 6874).
        let is_address = ipv6(&address.replacen("%25", "%", 1)) || is_future(address);
        (is_address, port)
    } else {
        let (host, port) = place.split_at(place.find(':').unwrap_or(place.len()));
        (is_encoded(host, b""), port)
    };
    let port_is_good = port.is_empty()
        || port
            .strip_prefix(':')
            .is_some_and(|port| port.bytes().all(|byte| byte.is_ascii_digit()));
    is_encoded(user, b":") && host_is_good && port_is_good
}

/// An address of a version that is still to come: `v7.anything`.
fn is_future(address: &str) -> bool {
    let is_part = |byte: u8| is_plain(byte) || byte == b':';
    address
        .strip_prefix(['v', 'V'])
        .and_then(|rest| rest.split_once('.'))
        .is_some_and(|(version, rest)| {
            !version.is_empty()
                && version.bytes().all(|byte| byte.is_ascii_hexdigit())
                && !rest.is_empty()
                && rest.bytes().all(is_part)
        })
}

/// Whether all of it are characters a URI has everywhere, `more`, or encoded with percent signs.
fn is_encoded(text: &str, more: &[u8]) -> bool {
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let good = if byte == b'%' {
            let mut is_digit = || bytes.next().is_some_and(|digit| digit.is_ascii_hexdigit());
            is_digit() && is_digit()
        } else {
            is_plain(byte) || more.contains(&byte)
        };
        if !good {
            return false;
        }
    }
    true
}

/// RFC 3986's unreserved characters and sub-delimiters.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(&byte)
}

/// A duration in nanoseconds.
#[must_use]
pub fn duration(value: &prost_types::Duration) -> i128 {
    nanoseconds(value.seconds, value.nanos)
}

/// A timestamp in nanoseconds since 1970.
#[must_use]
pub fn timestamp(value: &prost_types::Timestamp) -> i128 {
    nanoseconds(value.seconds, value.nanos)
}

/// Now, in nanoseconds since 1970.
#[must_use]
#[expect(
    clippy::disallowed_methods,
    reason = "a rule compares what a caller says with the wall clock; nothing is timed by it"
)]
pub fn now() -> i128 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_nanos().cast_signed())
}

fn nanoseconds(seconds: i64, nanos: i32) -> i128 {
    i128::from(seconds) * 1_000_000_000 + i128::from(nanos)
}

#[cfg(test)]
mod tests;
