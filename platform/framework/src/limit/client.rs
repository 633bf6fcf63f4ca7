//! Which client a call comes from: its address, or the one that a trusted proxy saw.

use std::{
    borrow::Cow,
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

use http::{Extensions, HeaderMap, HeaderName, HeaderValue};

use crate::{
    caller::Peer,
    config::{Given, Mismatch, Setting},
};

/// The addresses a request passed, as the proxies on its way saw them, oldest first.
pub const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Addresses with a common beginning, written `10.0.0.0/8`, or one alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Network {
    first: IpAddr,
    prefix: u8,
}

impl Network {
    /// Whether `address` is one of them.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.first, address.to_canonical()) {
            (IpAddr::V4(first), IpAddr::V4(address)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix));
                let mask = mask.unwrap_or(0);
                first.to_bits() & mask == address.to_bits() & mask
            }
            (IpAddr::V6(first), IpAddr::V6(address)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.prefix));
                let mask = mask.unwrap_or(0);
                first.to_bits() & mask == address.to_bits() & mask
            }
            _ => false,
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.prefix)
    }
}

/// A text that is no network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected an address, or one with the length of its prefix such as 10.0.0.0/8")]
pub struct NoNetwork;

impl FromStr for Network {
    type Err = NoNetwork;

    fn from_str(text: &str) -> Result<Self, NoNetwork> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let first: IpAddr = address.parse().map_err(|_| NoNetwork)?;
        let longest = if first.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => longest,
            Some(prefix) => prefix.parse().map_err(|_| NoNetwork)?,
        };
        if prefix > longest {
            return Err(NoNetwork);
        }
        Ok(Self { first, prefix })
    }
}

impl Setting for Network {
    fn kind() -> Cow<'static, str> {
        "network".into()
    }

    fn expected() -> Cow<'static, str> {
        "an address, or addresses by their prefix such as \"10.0.0.0/8\" or \"fd00::/8\"".into()
    }

    fn read(given: Given<'_>) -> Result<Self, Mismatch> {
        let network = given.text().and_then(|text| text.trim().parse().ok());
        network.ok_or_else(Mismatch::default)
    }

    fn show(&self) -> Option<String> {
        Some(format!("\"{self}\""))
    }
}

/// Whom a count belongs to: one household has a /64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Key {
    /// An address.
    V4(u32),
    /// The /64 of an address.
    V6(u64),
}

impl Key {
    /// Of whoever calls from `client`.
    #[must_use]
    pub fn of(client: IpAddr) -> Self {
        match client.to_canonical() {
            IpAddr::V4(address) => Self::V4(address.to_bits()),
            IpAddr::V6(address) => {
                let upper = u64::try_from(address.to_bits() >> 64);
                Self::V6(upper.unwrap_or(u64::MAX))
            }
        }
    }
}

/// What a request of another protocol said of its way; goes along with the calls that are made of it.
#[derive(Debug, Clone, Default)]
pub struct Forwarded(Vec<HeaderValue>);

impl Forwarded {
    /// What `headers` say.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Self {
        let values = headers.get_all(&FORWARDED_FOR).iter();
        Self(values.cloned().collect())
    }
}

/// The client of a call with these `extensions` and `headers`, see [`client`].
#[must_use]
pub fn client_of(extensions: &Extensions, headers: &HeaderMap, proxies: &[Network]) -> IpAddr {
    let peer = extensions.get::<Peer>().copied();
    if proxies.is_empty() {
        return client(peer, &Forwarded::default(), proxies);
    }
    match extensions.get::<Forwarded>() {
        Some(forwarded) => client(peer, forwarded, proxies),
        None => client(peer, &Forwarded::of(headers), proxies),
    }
}

/// The client of a call from `peer`. Where that is one of `proxies`, it is the nearest address in
/// `forwarded` that is none of them: each proxy adds whom it was called by, and what is further away was
/// written by somebody who may have made it up.
#[must_use]
pub fn client(peer: Option<Peer>, forwarded: &Forwarded, proxies: &[Network]) -> IpAddr {
    let is_proxy = |address| proxies.iter().any(|it| it.contains(address));
    let mut client = match peer {
        Some(Peer::Tcp(address)) => address.ip().to_canonical(),
        Some(Peer::Memory) | None => IpAddr::V4(Ipv4Addr::LOCALHOST),
    };
    if !is_proxy(client) {
        return client;
    }
    for value in forwarded.0.iter().rev() {
        let Ok(value) = value.to_str() else {
            return client;
        };
        for hop in value.rsplit(',') {
            // Whoever wrote what cannot be read is as far as there is somebody to believe.
            let Some(hop) = address(hop.trim()) else {
                return client;
            };
            client = hop;
            if !is_proxy(client) {
                return client;
            }
        }
    }
    client
}

/// An address, as proxies write it: with or without a port, and brackets.
fn address(text: &str) -> Option<IpAddr> {
    let plain = || text.parse::<IpAddr>().ok();
    let port = || text.parse::<SocketAddr>().ok().map(|it| it.ip());
    let brackets = || {
        let inner = text.strip_prefix('[')?.strip_suffix(']')?;
        inner.parse::<Ipv6Addr>().ok().map(IpAddr::V6)
    };
    let found = plain().or_else(port).or_else(brackets)?;
    Some(found.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(address: &str) -> Peer {
        Peer::Tcp(SocketAddr::new(address.parse().unwrap(), 40_000))
    }

    fn seen(from: &str, values: &[&str], proxies: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for value in values {
            let value = HeaderValue::from_str(value).unwrap();
            headers.append(FORWARDED_FOR, value);
        }
        let proxies: Vec<Network> = proxies.iter().map(|it| it.parse().unwrap()).collect();
        client(Some(peer(from)), &Forwarded::of(&headers), &proxies).to_string()
    }

    /// Goal: nobody is another by saying so.
    /// Method: what callers and proxies write, read with and without trust in the proxy.
    #[test]
    fn only_proxies_are_believed() {
        let ours = &["10.0.0.0/8", "fd00::/8"][..];
        for (from, values, proxies, expected) in [
            ("192.0.2.1", &["198.51.100.7"][..], &[][..], "192.0.2.1"),
            ("192.0.2.1", &["198.51.100.7"], ours, "192.0.2.1"),
            ("10.1.2.3", &["198.51.100.7"], ours, "198.51.100.7"),
            // The client wrote the first itself.
            ("10.1.2.3", &["1.1.1.1, 198.51.100.7"], ours, "198.51.100.7"),
            (
                "10.1.2.3",
                &["1.1.1.1", "198.51.100.7"],
                ours,
                "198.51.100.7",
            ),
            (
                "10.1.2.3",
                &["1.1.1.1, 198.51.100.7, 10.9.9.9"],
                ours,
                "198.51.100.7",
            ),
            (
                "10.1.2.3",
                &["1.1.1.1, made up, 10.9.9.9"],
                ours,
                "10.9.9.9",
            ),
            ("10.1.2.3", &[], ours, "10.1.2.3"),
            ("10.1.2.3", &["198.51.100.7:555"], ours, "198.51.100.7"),
            ("fd00::1", &["[2001:db8::7]:555"], ours, "2001:db8::7"),
            ("fd00::1", &["[2001:db8::7]"], ours, "2001:db8::7"),
            (
                "::ffff:10.1.2.3",
                &["::ffff:198.51.100.7"],
                ours,
                "198.51.100.7",
            ),
        ] {
            assert_eq!(expected, seen(from, values, proxies), "{from} {values:?}");
        }
    }

    /// Goal: a network has the addresses that begin as it does, and a text that is none is refused.
    /// Method: edges of prefixes.
    #[test]
    fn networks_have_the_addresses_of_their_prefix() {
        for (network, address, inside) in [
            ("10.0.0.0/8", "10.255.255.255", true),
            ("10.0.0.0/8", "11.0.0.0", false),
            ("0.0.0.0/0", "203.0.113.9", true),
            ("0.0.0.0/0", "::1", false),
            ("192.0.2.1", "192.0.2.1", true),
            ("192.0.2.1", "192.0.2.2", false),
            ("::/0", "2001:db8::1", true),
            ("2001:db8::/33", "2001:db8:8000::1", false),
        ] {
            let parsed: Network = network.parse().unwrap();
            let address: IpAddr = address.parse().unwrap();
            assert_eq!(inside, parsed.contains(address), "{network} {address}");
        }
        for text in ["", "10.0.0.0/33", "::/129", "10.0.0.0/", "10/8", "ten"] {
            assert_eq!(Err(NoNetwork), text.parse::<Network>(), "{text}");
        }
    }
}
