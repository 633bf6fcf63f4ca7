//! Who may come in: caps on connections, and the counts that show them.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
};

use super::limits::Limits;
use crate::caller::Peer;

/// Why a connection was closed because of its peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refused {
    /// Too many connections in all.
    Connections,
    /// Too many connections of this peer.
    Peer,
    /// Too many connections that have not sent a first request.
    Waiting,
    /// The TLS handshake failed.
    Handshake,
    /// No request within the time for the first.
    FirstRequest,
    /// What arrived is not HTTP/2, or breaks its rules: resets and errors beyond the limits, too.
    Protocol,
    /// Its peer gave up calls too fast.
    GivenUp,
}

impl Refused {
    /// Every reason, for those who publish the counts.
    pub const ALL: [Self; 7] = [
        Self::Connections,
        Self::Peer,
        Self::Waiting,
        Self::Handshake,
        Self::FirstRequest,
        Self::Protocol,
        Self::GivenUp,
    ];

    /// The word for this reason in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Peer => "peer",
            Self::Waiting => "waiting",
            Self::Handshake => "handshake",
            Self::FirstRequest => "first_request",
            Self::Protocol => "protocol",
            Self::GivenUp => "given_up",
        }
    }
}

/// Connections of one listener, since it was bound.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Open now.
    pub open: usize,
    /// Open now, and without a first request.
    pub waiting: usize,
    /// Accepted so far, those refused at once included.
    pub accepted: u64,
    /// Failed attempts to accept, as when file descriptors run out.
    pub accept_failed: u64,
    refused: [u64; Refused::ALL.len()],
}

impl Counts {
    /// Connections closed for `reason` so far.
    #[must_use]
    pub fn refused(&self, reason: Refused) -> u64 {
        self.refused[reason as usize]
    }
}

/// Counts connections in and out, and refuses those beyond the caps.
#[derive(Debug, Default)]
pub(super) struct Gate {
    // A lock, not atomics: it is taken per connection, never per call, and the three caps must
    // be decided together.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    counts: Counts,
    // One entry per peer with open connections, so never more than `connections_max`.
    peers: HashMap<IpAddr, usize>,
}

impl Gate {
    /// A place for a connection of `peer`, or why there is none.
    pub(super) fn admit(gate: &Arc<Self>, peer: Peer, limits: &Limits) -> Result<Place, Refused> {
        let peer = network(peer);
        let mut state = gate.lock();
        state.counts.accepted += 1;
        let of_peer = peer.map_or(0, |peer| state.peers.get(&peer).copied().unwrap_or(0));
        let refused = if state.counts.open >= limits.connections_max {
            Some(Refused::Connections)
        } else if of_peer >= limits.connections_per_peer_max {
            Some(Refused::Peer)
        } else if state.counts.waiting >= limits.connections_waiting_max {
            Some(Refused::Waiting)
        } else {
            None
        };
        if let Some(reason) = refused {
            state.counts.refused[reason as usize] += 1;
            return Err(reason);
        }
        state.counts.open += 1;
        state.counts.waiting += 1;
        if let Some(peer) = peer {
            *state.peers.entry(peer).or_default() += 1;
        }
        drop(state);
        Ok(Place {
            gate: Arc::clone(gate),
            peer,
            waiting: Mutex::new(true),
        })
    }

    pub(super) fn counts(&self) -> Counts {
        self.lock().counts
    }

    /// Counts a connection that was let in and closed because of its peer.
    pub(super) fn count_refused(&self, reason: Refused) {
        self.lock().counts.refused[reason as usize] += 1;
    }

    pub(super) fn count_accept_failed(&self) {
        self.lock().counts.accept_failed += 1;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place of one open connection; dropping it frees the place.
#[derive(Debug)]
pub(super) struct Place {
    gate: Arc<Gate>,
    peer: Option<IpAddr>,
    waiting: Mutex<bool>,
}

impl Place {
    /// Notes the first request; later ones change nothing.
    pub(super) fn requested(&self) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::take(&mut *waiting) {
            self.gate.lock().counts.waiting -= 1;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.requested();
        let mut state = self.gate.lock();
        state.counts.open -= 1;
        if let Some(peer) = self.peer
            && let Some(connections) = state.peers.get_mut(&peer)
        {
            *connections -= 1;
            if *connections == 0 {
                state.peers.remove(&peer);
            }
        }
    }
}

/// What counts as one peer: an IPv4 address, or the /64 that one IPv6 caller usually owns.
fn network(peer: Peer) -> Option<IpAddr> {
    match peer {
        Peer::Tcp(addr) => Some(match addr.ip().to_canonical() {
            IpAddr::V6(ip) => {
                let prefix = u128::from(ip) & !u128::from(u64::MAX);
                IpAddr::V6(Ipv6Addr::from(prefix))
            }
            ip @ IpAddr::V4(_) => ip,
        }),
        Peer::Memory => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits {
            connections_max: 3,
            connections_per_peer_max: 2,
            connections_waiting_max: 2,
            ..Limits::default()
        }
    }

    fn peer(ip: &str) -> Peer {
        Peer::Tcp((ip.parse::<IpAddr>().unwrap(), 1).into())
    }

    /// Goal: each cap refuses for its own reason, and a place that is freed can be taken again.
    /// Method: fill the caps one after the other.
    #[test]
    fn each_cap_refuses_the_connection_beyond_it() {
        let gate = Arc::new(Gate::default());
        let admit = |ip| Gate::admit(&gate, peer(ip), &limits());

        let one = admit("192.0.2.1").unwrap();
        let two = admit("192.0.2.1").unwrap();
        assert_eq!(Some(Refused::Peer), admit("192.0.2.1").err());
        assert_eq!(Some(Refused::Waiting), admit("192.0.2.2").err());
        one.requested();
        two.requested();
        let three = admit("192.0.2.2").unwrap();
        assert_eq!(Some(Refused::Connections), admit("192.0.2.3").err());

        drop(one);
        let four = admit("192.0.2.1").unwrap();
        let counts = gate.counts();
        assert_eq!((3, 2, 7), (counts.open, counts.waiting, counts.accepted));
        assert_eq!(1, counts.refused(Refused::Peer));

        drop((two, three, four));
        assert_eq!((0, 0), (gate.counts().open, gate.counts().waiting));
        assert!(
            gate.lock().peers.is_empty(),
            "peers that left are forgotten"
        );
    }

    /// Goal: an IPv6 caller cannot multiply itself within its own network; IPv4 written as IPv6
    /// is the same caller.
    /// Method: addresses of one /64, of another, and a mapped one.
    #[test]
    fn an_ipv6_peer_is_its_network() {
        let gate = Arc::new(Gate::default());
        let limits = Limits {
            connections_per_peer_max: 1,
            ..Limits::default()
        };
        let admit = |ip| Gate::admit(&gate, peer(ip), &limits);

        let _one = admit("2001:db8:0:1::1").unwrap();
        assert_eq!(Some(Refused::Peer), admit("2001:db8:0:1:ffff::9").err());
        let _other = admit("2001:db8:0:2::1").unwrap();
        let _four = admit("192.0.2.1").unwrap();
        assert_eq!(Some(Refused::Peer), admit("::ffff:192.0.2.1").err());
    }
}
