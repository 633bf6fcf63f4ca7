//! Who a call comes from, and how much it matters, as types.
//!
//! What a peer proves about itself by its connection stands here; what a token proves is added by
//! authentication. Metadata alone proves nothing: whoever is not known to belong to the system may
//! say that a call matters less than others, and not that it matters more.

use std::{fmt, net::SocketAddr};

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::config;

/// The header by which a call says how much it matters; its words are those of
/// [`Criticality::as_str`].
pub static CRITICALITY: HeaderName = HeaderName::from_static("gantry-criticality");

/// The other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Peer {
    /// A TCP connection from this address.
    Tcp(SocketAddr),
    /// The in-memory network of tests.
    Memory,
}

impl Peer {
    /// Whether the peer runs on this machine.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        match self {
            Self::Tcp(addr) => addr.ip().to_canonical().is_loopback(),
            Self::Memory => true,
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(addr) => addr.fmt(f),
            Self::Memory => f.write_str("memory"),
        }
    }
}

config::choice! {
    /// How much it matters that a call is served where not all can be. It comes with the call that
    /// others are made for, and is passed on with them: lowered on the way, never raised.
    #[derive(PartialOrd, Ord, Default)]
    pub enum Criticality {
        /// It may fail for a while, and is tried again later: batches, prefetching.
        Sheddable = "SHEDDABLE",
        /// It may fail now and then: nobody waits for it at this moment.
        SheddablePlus = "SHEDDABLE_PLUS",
        /// Somebody waits for it. So it is where nothing is said.
        #[default]
        Critical = "CRITICAL",
        /// The last to be refused: what keeps the system itself going.
        CriticalPlus = "CRITICAL_PLUS",
    }
}

impl Criticality {
    /// Every one, the least first.
    pub const ALL: [Self; 4] = [
        Self::Sheddable,
        Self::SheddablePlus,
        Self::Critical,
        Self::CriticalPlus,
    ];

    /// How much a call with `headers` matters where it is served, if anybody says so: the call
    /// itself or, where it says nothing readable, the `policy` of its method, which no call claims to
    /// matter more than. One that nobody `trusted` makes claims [`Criticality::Critical`] at most. Of
    /// several words the least counts.
    #[must_use]
    pub fn of(headers: &HeaderMap, trusted: bool, policy: Option<Self>) -> Option<Self> {
        let most = if trusted {
            Self::CriticalPlus
        } else {
            Self::Critical
        };
        let said = Self::said(headers).map(|said| said.min(most));
        Self::least(said, policy)
    }

    /// The lesser of two where both are there, and else the one that is.
    #[must_use]
    pub fn least(one: Option<Self>, other: Option<Self>) -> Option<Self> {
        match (one, other) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        }
    }

    /// Makes a request say that it matters so much, unless it already says that it matters less.
    pub fn pass_on(self, headers: &mut HeaderMap) {
        let least = Self::said(headers).unwrap_or(self).min(self);
        let word = HeaderValue::from_static(least.as_str());
        headers.insert(&CRITICALITY, word);
    }

    fn said(headers: &HeaderMap) -> Option<Self> {
        let read = |value: &HeaderValue| {
            let all = Self::ALL.into_iter();
            let mut same = all.filter(|it| {
                value
                    .as_bytes()
                    .eq_ignore_ascii_case(it.as_str().as_bytes())
            });
            same.next()
        };
        headers.get_all(&CRITICALITY).iter().filter_map(read).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn saying(words: &[&'static str]) -> HeaderMap {
        let values = words.iter().map(|word| HeaderValue::from_static(word));
        values.map(|value| (CRITICALITY.clone(), value)).collect()
    }

    /// Goal: nobody raises a call by a word alone, and anybody lowers it; a method's policy speaks for
    /// those that say nothing, and bounds those that do.
    /// Method: what callers say, trusted or not, of methods with and without a policy.
    #[test]
    fn a_word_raises_only_those_who_are_trusted() {
        use Criticality::{Critical, CriticalPlus, Sheddable, SheddablePlus};
        for (words, trusted, untrusted) in [
            (&[][..], None, None),
            (&["CRITICAL_PLUS"], Some(CriticalPlus), Some(Critical)),
            (&["critical_plus"], Some(CriticalPlus), Some(Critical)),
            (&["SHEDDABLE"], Some(Sheddable), Some(Sheddable)),
            (
                &["SHEDDABLE_PLUS"],
                Some(SheddablePlus),
                Some(SheddablePlus),
            ),
            (
                &["CRITICAL_PLUS", "SHEDDABLE_PLUS"],
                Some(SheddablePlus),
                Some(SheddablePlus),
            ),
            (&["most important"], None, None),
        ] {
            let headers = saying(words);
            let of = |trusted, policy| Criticality::of(&headers, trusted, policy);
            assert_eq!(trusted, of(true, None), "{words:?}");
            assert_eq!(untrusted, of(false, None), "{words:?}");
            for policy in Criticality::ALL {
                let least = |said: Option<Criticality>| Some(said.unwrap_or(policy).min(policy));
                assert_eq!(least(trusted), of(true, Some(policy)), "{words:?} {policy}");
                assert_eq!(
                    least(untrusted),
                    of(false, Some(policy)),
                    "{words:?} {policy}"
                );
            }
        }
    }

    /// Goal: what a call is the reason of matters no more than the call, and may matter less.
    /// Method: every pair of a call and what is said of one made for it, and nothing said.
    #[test]
    fn criticality_is_lowered_on_the_way_and_never_raised() {
        let said = |headers: &HeaderMap| Criticality::of(headers, true, None).unwrap();
        for inherited in Criticality::ALL {
            for own in Criticality::ALL {
                let mut headers = saying(&[own.as_str()]);
                inherited.pass_on(&mut headers);
                assert_eq!(inherited.min(own), said(&headers));
                assert_eq!(1, headers.len());
            }
            let mut headers = HeaderMap::new();
            inherited.pass_on(&mut headers);
            assert_eq!(inherited, said(&headers));
        }
    }
}
