//! Tells when a cap on connections is reached, and when it is so no more: once each, however many
//! connections it concerns.

use std::time::Duration;

use tokio::time::Instant;

use super::{gate::Refused, limits::Limits, line::Network};
use crate::journal::{Journal, Kind};

/// For how long nobody must have met a cap before it counts as not reached.
const CALM: Duration = Duration::from_secs(10);

/// What bounds connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cap {
    /// All of them.
    Connections,
    /// Those of one peer.
    Peer,
    /// Those without a first request.
    Waiting,
    /// Those of one peer without a first request.
    WaitingOfPeer,
}

impl Cap {
    pub(super) const ALL: [Self; 4] = [
        Self::Connections,
        Self::Peer,
        Self::Waiting,
        Self::WaitingOfPeer,
    ];

    fn setting(self) -> &'static str {
        match self {
            Self::Connections => "limits.connections_max",
            Self::Peer => "limits.connections_per_peer_max",
            Self::Waiting => "limits.connections_waiting_max",
            Self::WaitingOfPeer => "limits.connections_waiting_per_peer_max",
        }
    }

    pub(super) fn max(self, limits: &Limits) -> usize {
        match self {
            Self::Connections => limits.connections_max,
            Self::Peer => limits.connections_per_peer_max,
            Self::Waiting => limits.connections_waiting_max,
            Self::WaitingOfPeer => limits.connections_waiting_per_peer_max,
        }
    }

    /// Whether it is the process's: what one peer meets alone is no event in the life of that, and
    /// would crowd out those that are.
    fn concerns_all(self) -> bool {
        matches!(self, Self::Connections | Self::Waiting)
    }

    pub(super) fn refuses(self) -> Refused {
        match self {
            Self::Connections => Refused::Connections,
            Self::Peer => Refused::Peer,
            Self::Waiting | Self::WaitingOfPeer => Refused::Waiting,
        }
    }
}

/// What became of connections since a cap was reached.
#[derive(Debug)]
pub(super) struct Pressed {
    since: Instant,
    calm: Instant,
    pub(super) evicted: u64,
    pub(super) refused: u64,
}

/// Which caps are reached.
#[derive(Debug, Default)]
pub(super) struct Pressure {
    pressed: [Option<Pressed>; Cap::ALL.len()],
    told: Vec<Told>,
}

/// Something to be told.
#[derive(Debug)]
pub(super) enum Told {
    Reached {
        cap: Cap,
        max: usize,
        open: usize,
        waiting: usize,
        /// Who holds the most, or who met its own cap.
        peer: Network,
        of_peer: usize,
    },
    Over {
        cap: Cap,
        evicted: u64,
        refused: u64,
        lasted: Duration,
    },
}

impl Pressure {
    /// Notes that a newcomer met `cap`; `reached` tells of it where it is the first.
    pub(super) fn press(
        &mut self,
        cap: Cap,
        now: Instant,
        reached: impl FnOnce() -> Told,
    ) -> &mut Pressed {
        let told = &mut self.told;
        let pressed = self.pressed[cap as usize].get_or_insert_with(|| {
            told.push(reached());
            Pressed {
                since: now,
                calm: now,
                evicted: 0,
                refused: 0,
            }
        });
        pressed.calm = now + CALM;
        pressed
    }

    /// When to look whether one is over.
    pub(super) fn due(&self) -> Option<Instant> {
        let pressed = self.pressed.iter().flatten();
        pressed.map(|pressed| pressed.calm).min()
    }

    /// Notes what is over by `now`; `still` says which caps are reached as they are.
    pub(super) fn ease(&mut self, still: [bool; Cap::ALL.len()], now: Instant) {
        for cap in Cap::ALL {
            let slot = &mut self.pressed[cap as usize];
            let Some(pressed) = slot.as_mut().filter(|pressed| pressed.calm <= now) else {
                continue;
            };
            if still[cap as usize] {
                pressed.calm = now + CALM;
                continue;
            }
            self.told.push(Told::Over {
                cap,
                evicted: pressed.evicted,
                refused: pressed.refused,
                lasted: now - pressed.since,
            });
            *slot = None;
        }
    }

    pub(super) fn take_told(&mut self) -> Vec<Told> {
        std::mem::take(&mut self.told)
    }
}

impl Told {
    /// Writes it to the log, and to the journal where there is one and it concerns all.
    pub(super) fn tell(self, journal: Option<&Journal>) {
        let (cap, detail) = match self {
            Self::Reached {
                cap,
                max,
                open,
                waiting,
                peer,
                of_peer,
            } => {
                let peer = peer.map_or_else(|| "memory".to_owned(), |peer| peer.to_string());
                tracing::warn!(
                    limit = cap.setting(),
                    max,
                    open,
                    waiting,
                    peer,
                    of_peer,
                    "connections are closed to make room or refused: a limit is reached"
                );
                let held = format!("{open} open, {waiting} waiting, {of_peer} of {peer}");
                (cap, format!("reached at {max}: {held}"))
            }
            Self::Over {
                cap,
                evicted,
                refused,
                lasted,
            } => {
                tracing::info!(
                    limit = cap.setting(),
                    evicted,
                    refused,
                    ?lasted,
                    "a limit on connections is not reached any more"
                );
                let lasted = lasted.as_secs();
                (
                    cap,
                    format!(
                        "over after {lasted} s: {evicted} closed to make room, {refused} refused"
                    ),
                )
            }
        };
        if let Some(journal) = journal.filter(|_| cap.concerns_all()) {
            journal.record(Kind::Limit, cap.setting(), detail);
        }
    }
}
