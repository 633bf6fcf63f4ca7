//! Who may come in: caps on connections, who makes room at them, and the counts that show it.

use std::{
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use super::{
    limits::Limits,
    line::{Lines, Network, Notice, Ticket, Usage},
    pressure::{Cap, Pressed, Pressure, Told},
};
use crate::{caller::Peer, journal::Journal};

/// Connections that may be on their way out at once, beside those that have their places.
const LEAVING_MAX: usize = 32;

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

/// Why a connection was closed for the sake of others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Evicted {
    /// There were as many as may be, and it was idle or had asked for nothing yet.
    Connections,
    /// As many waited as may, and it was one of them.
    Waiting,
}

impl Evicted {
    /// Every reason, for those who publish the counts.
    pub const ALL: [Self; 2] = [Self::Connections, Self::Waiting];
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
    evicted: [u64; Evicted::ALL.len()],
}

impl Counts {
    /// Connections closed for `reason` so far.
    #[must_use]
    pub fn refused(&self, reason: Refused) -> u64 {
        self.refused[reason as usize]
    }

    /// Connections closed to make room for others so far.
    #[must_use]
    pub fn evicted(&self, reason: Evicted) -> u64 {
        self.evicted[reason as usize]
    }
}

/// Counts connections in and out, and refuses those beyond the caps for which nobody makes room.
#[derive(Debug, Default)]
pub(super) struct Gate {
    // A lock, not atomics: it is taken per connection, never per call, and the caps must be decided
    // together.
    state: Mutex<State>,
    journal: OnceLock<Journal>,
}

#[derive(Debug, Default)]
struct State {
    counts: Counts,
    lines: Lines,
    pressure: Pressure,
}

impl Gate {
    /// A place for a connection of `peer`, or why there is none.
    pub(super) fn admit(gate: &Arc<Self>, peer: Peer, limits: &Limits) -> Result<Place, Refused> {
        let network = network(peer);
        let mut state = gate.lock();
        state.counts.accepted += 1;
        let admitted = match state.make_room(network, limits) {
            Ok(()) => Ok(state.lines.enter(network)),
            Err(cap) => {
                let reason = cap.refuses();
                state.counts.refused[reason as usize] += 1;
                Err(reason)
            }
        };
        let told = state.pressure.take_told();
        drop(state);
        gate.tell(told);
        admitted.map(|ticket| Place {
            gate: Arc::clone(gate),
            ticket,
        })
    }

    pub(super) fn counts(&self) -> Counts {
        let state = self.lock();
        Counts {
            open: state.lines.open(),
            waiting: state.lines.waiting(),
            ..state.counts
        }
    }

    /// Counts a connection that was let in and closed because of its peer.
    pub(super) fn count_refused(&self, reason: Refused) {
        self.lock().counts.refused[reason as usize] += 1;
    }

    pub(super) fn count_accept_failed(&self) {
        self.lock().counts.accept_failed += 1;
    }

    /// Has connections become fewer, or no more.
    pub(super) fn thin(&self, thin: bool) {
        self.lock().lines.thin(thin);
    }

    /// Has caps that are reached, and are so no more, written to `journal` as well.
    pub(super) fn write_to(&self, journal: Journal) {
        // One listener is served once.
        let _ = self.journal.set(journal);
    }

    /// Completes when it is time to ask whether a cap is reached still; never where none is.
    /// Cancel-safe.
    pub(super) async fn due(&self) {
        let due = self.lock().pressure.due();
        match due {
            Some(due) => sleep_until(due).await,
            None => std::future::pending().await,
        }
    }

    /// Tells of caps that are not reached any more.
    pub(super) fn ease(&self, limits: &Limits) {
        let mut state = self.lock();
        let full = |cap| match cap {
            Cap::Connections => state.is_full(limits),
            Cap::Waiting => state.lines.waiting() >= limits.connections_waiting_max,
            Cap::Peer | Cap::WaitingOfPeer => false,
        };
        let still = Cap::ALL.map(full);
        state.pressure.ease(still, Instant::now());
        let told = state.pressure.take_told();
        drop(state);
        self.tell(told);
    }

    fn tell(&self, told: Vec<Told>) {
        for told in told {
            told.tell(self.journal.get());
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn make_room(&mut self, network: Network, limits: &Limits) -> Result<(), Cap> {
        let (open, waiting) = self.lines.of(network);
        // Who has its share makes nobody else go.
        if network.is_some() && open >= limits.connections_per_peer_max {
            return Err(self.refuse(Cap::Peer, network, limits));
        }
        if network.is_some() && waiting >= limits.connections_waiting_per_peer_max {
            return Err(self.refuse(Cap::WaitingOfPeer, network, limits));
        }
        if !self.is_full(limits) {
            self.lines.search_anew();
        }
        // Twice: where connections were taken back there are more than may be, and one for one would
        // leave it at that.
        for _ in 0..2 {
            if self.is_full(limits) {
                self.evict(Cap::Connections, network, limits)?;
            }
        }
        if self.is_full(limits) {
            return Err(self.refuse(Cap::Connections, network, limits));
        }
        if self.lines.waiting() >= limits.connections_waiting_max {
            self.evict(Cap::Waiting, network, limits)?;
        }
        Ok(())
    }

    /// Whether every place is taken; those that leave have given theirs away.
    fn is_full(&self, limits: &Limits) -> bool {
        self.lines.open() - self.lines.leaving() >= limits.connections_max
    }

    /// Sends a connection away for a newcomer, where one can be. Until it is gone it costs a file
    /// descriptor and memory beside its successor, so only so many may be on their way.
    fn evict(&mut self, cap: Cap, newcomer: Network, limits: &Limits) -> Result<(), Cap> {
        let leaving_max = (limits.connections_max / 8).clamp(1, LEAVING_MAX);
        if self.lines.leaving() >= leaving_max.div_ceil(2) {
            self.lines.hurry();
        }
        if self.lines.leaving() >= leaving_max {
            return Err(self.refuse(cap, newcomer, limits));
        }
        let (victim, reason) = match cap {
            Cap::Waiting => (self.lines.silent(newcomer), Evicted::Waiting),
            _ => (self.lines.idle(newcomer), Evicted::Connections),
        };
        let Some(victim) = victim else {
            return Err(self.refuse(cap, newcomer, limits));
        };
        self.press(cap, newcomer, limits).evicted += 1;
        self.counts.evicted[reason as usize] += 1;
        self.lines.send_away(victim);
        Ok(())
    }

    fn refuse(&mut self, cap: Cap, newcomer: Network, limits: &Limits) -> Cap {
        self.press(cap, newcomer, limits).refused += 1;
        cap
    }

    fn press(&mut self, cap: Cap, newcomer: Network, limits: &Limits) -> &mut Pressed {
        let lines = &self.lines;
        let reached = || {
            let (of_peer, peer) = match cap {
                Cap::Connections | Cap::Waiting => lines.most().unwrap_or_default(),
                Cap::Peer | Cap::WaitingOfPeer => (lines.of(newcomer).0, newcomer),
            };
            Told::Reached {
                cap,
                max: cap.max(limits),
                open: lines.open(),
                waiting: lines.waiting(),
                peer,
                of_peer,
            }
        };
        self.pressure.press(cap, Instant::now(), reached)
    }
}

/// The place of one open connection; dropping it frees the place.
#[derive(Debug)]
pub(super) struct Place {
    gate: Arc<Gate>,
    ticket: Ticket,
}

impl Place {
    /// The calls of this connection, which whoever serves it counts.
    pub(super) fn usage(&self) -> Arc<Usage> {
        Arc::clone(&self.ticket.usage)
    }

    /// What this connection is told because of others.
    pub(super) fn notice(&self) -> watch::Receiver<Notice> {
        self.ticket.notice.clone()
    }

    /// Notes the first request; later ones change nothing.
    pub(super) fn requested(&self) {
        self.gate.lock().lines.stop_waiting(self.ticket.id);
    }

    /// Notes that this connection was told to leave and has a call, which it may finish.
    pub(super) fn keep(&self) {
        self.gate.lock().lines.keep(self.ticket.id);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.gate.lock().lines.leave(self.ticket.id);
    }
}

/// What counts as one peer: an IPv4 address, or the /64 that one IPv6 caller usually owns.
fn network(peer: Peer) -> Network {
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
mod tests;
