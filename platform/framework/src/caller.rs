//! Who a call comes from, and how much it matters, as types.
//!
//! What a peer proves about itself by its connection stands here; what a token proves is added by
//! authentication. Metadata alone proves nothing: whoever is not known to belong to the system may
//! say that a call matters less than others, and not that it matters more.

use std::{fmt, net::SocketAddr};

use http::{HeaderMap, HeaderName, HeaderValue};

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

/// How much it matters that a call is served where not all can be. It comes with the call that
/// others are made for, and is passed on with them: lowered on the way, never raised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Criticality {
    /// It may fail for a while, and is tried again later: batches, prefetching.
    Sheddable,
    /// It may fail now and then: nobody waits for it at this moment.
    SheddablePlus,
    /// Somebody waits for it. So it is where nothing is said.
    #[default]
    Critical,
    /// The last to be refused: what keeps the system itself going.
    CriticalPlus,
}

impl Criticality {
    /// Every one, the least first.
    pub const ALL: [Self; 4] = [
        Self::Sheddable,
        Self::SheddablePlus,
        Self::Critical,
        Self::CriticalPlus,
    ];

    /// The word in [`CRITICALITY`].
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sheddable => "SHEDDABLE",
            Self::SheddablePlus => "SHEDDABLE_PLUS",
            Self::Critical => "CRITICAL",
            Self::CriticalPlus => "CRITICAL_PLUS",
        }
    }

    /// What a call with `headers` may claim. One that nobody `trusted` makes is at most
    /// [`Criticality::Critical`], as is one that says nothing readable. Of several words the least
    /// counts.
    #[must_use]
    pub fn of(headers: &HeaderMap, trusted: bool) -> Self {
        let said = Self::said(headers).unwrap_or_default();
        if trusted {
            said
        } else {
            said.min(Self::Critical)
        }
    }

    /// Makes a request that a call of this criticality is the reason of say so, unless it already
    /// says that it matters less.
    pub fn pass_on(self, headers: &mut HeaderMap) {
        let least = Self::said(headers).unwrap_or(self).min(self);
        // What is said of a call without a word need not be said.
        if least == Self::default() && !headers.contains_key(&CRITICALITY) {
            return;
        }
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

impl fmt::Display for Criticality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn saying(words: &[&'static str]) -> HeaderMap {
        let values = words.iter().map(|word| HeaderValue::from_static(word));
        values.map(|value| (CRITICALITY.clone(), value)).collect()
    }

    /// Goal: nobody raises a call by a word alone, and anybody lowers it.
    /// Method: what callers say, trusted or not.
    #[test]
    fn a_word_raises_only_those_who_are_trusted() {
        use Criticality::{Critical, CriticalPlus, Sheddable, SheddablePlus};
        for (words, trusted, untrusted) in [
            (&[][..], Critical, Critical),
            (&["CRITICAL_PLUS"], CriticalPlus, Critical),
            (&["critical_plus"], CriticalPlus, Critical),
            (&["SHEDDABLE"], Sheddable, Sheddable),
            (&["SHEDDABLE_PLUS"], SheddablePlus, SheddablePlus),
            (
                &["CRITICAL_PLUS", "SHEDDABLE_PLUS"],
                SheddablePlus,
                SheddablePlus,
            ),
            (&["most important"], Critical, Critical),
        ] {
            let headers = saying(words);
            assert_eq!(trusted, Criticality::of(&headers, true), "{words:?}");
            assert_eq!(untrusted, Criticality::of(&headers, false), "{words:?}");
        }
    }

    /// Goal: what a call is the reason of matters no more than the call, and may matter less.
    /// Method: every pair of a call and what is said of one made for it, and nothing said.
    #[test]
    fn criticality_is_lowered_on_the_way_and_never_raised() {
        for inherited in Criticality::ALL {
            for own in Criticality::ALL {
                let mut headers = saying(&[own.as_str()]);
                inherited.pass_on(&mut headers);
                assert_eq!(inherited.min(own), Criticality::of(&headers, true));
                assert_eq!(1, headers.len());
            }
            let mut headers = HeaderMap::new();
            inherited.pass_on(&mut headers);
            assert_eq!(inherited, Criticality::of(&headers, true));
            assert_eq!(inherited == Criticality::Critical, headers.is_empty());
        }
    }
}
