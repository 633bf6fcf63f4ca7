//! Whose connection makes room for a newcomer.
//!
//! ```text
//! enter ──▶ waiting ──first request──▶ served ──┐
//!              │                         ▲      │ idle
//!              │           a call crossed│      ▼
//!              └──────── sent away ───▶ leaving ───▶ gone
//! ```
//!
//! Each peer has its connections in a line. From the one who holds the most, the first in its line
//! that has no call goes. One that has, or that was used since it was last looked at, goes to the
//! end of its line instead. So calls need no clock and no lock for this, and a newcomer costs a
//! bounded number of looks, however many connections there are.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::watch;

/// What counts as one peer; nothing is told apart in memory.
pub(super) type Network = Option<IpAddr>;

/// Peers that are looked at for one newcomer.
const PEERS_LOOKED_AT: usize = 32;
/// Connections that are looked at of each of them.
const LOOKS: usize = 16;
/// Bytes that a peer takes of an answer between two looks, at the least; fewer may be its pings'.
const TAKEN_MIN: u64 = 1_024;

/// The calls of one connection, and what its peer took of their answers.
///
/// A call ends when its answer is handed over to be written. How much of it is still to be written
/// nobody says; that it is being written shows by what the peer takes.
#[derive(Debug, Default)]
pub(super) struct Usage {
    begun: AtomicU64,
    ended: AtomicU64,
    written: AtomicU64,
}

impl Usage {
    /// Counts a call that begins; answers whether it is the first.
    pub(super) fn begin(&self) -> bool {
        self.begun.fetch_add(1, Ordering::AcqRel) == 0
    }

    /// Counts a call that ended.
    pub(super) fn end(&self) {
        self.ended.fetch_add(1, Ordering::AcqRel);
    }

    /// Counts bytes that were written.
    pub(super) fn write(&self, bytes: usize) {
        // A connection is written by one task, and who reads needs no more than a recent value.
        let written = self.written.load(Ordering::Relaxed) + bytes as u64;
        self.written.store(written, Ordering::Relaxed);
    }

    /// Whether the peer has had a call, and takes an answer: more than a little was written since
    /// `seen`, which moves along.
    pub(super) fn takes(&self, seen: &mut u64) -> bool {
        let written = self.written.load(Ordering::Relaxed);
        let before = std::mem::replace(seen, written);
        self.begun() > 0 && written - before >= TAKEN_MIN
    }

    pub(super) fn begun(&self) -> u64 {
        self.begun.load(Ordering::Acquire)
    }

    pub(super) fn ended(&self) -> u64 {
        self.ended.load(Ordering::Acquire)
    }

    /// Calls in flight. Ended is read first, so that a call between the two reads is never counted
    /// as negative.
    pub(super) fn open(&self) -> u64 {
        let ended = self.ended();
        self.begun().saturating_sub(ended)
    }
}

/// What a connection is told because of others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Notice {
    /// Nothing.
    Stay,
    /// End in good order, one after the other: the process is short of memory.
    Thin,
    /// Its place is given away: end in good order, and soon.
    Leave,
    /// End now: others that leave need the time.
    Cut,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Waiting,
    Served,
    Leaving,
}

#[derive(Debug)]
struct Seat {
    network: Network,
    usage: Arc<Usage>,
    notice: watch::Sender<Notice>,
    standing: Standing,
    /// Where it stands in its peer's line.
    key: u64,
    /// Its calls when it was last looked at.
    seen: u64,
    /// Bytes that its peer had taken then.
    taken: u64,
}

/// The connections of one peer; those that leave are in no line.
#[derive(Debug, Default)]
struct Party {
    open: usize,
    line: BTreeMap<u64, u64>,
    waiting: BTreeMap<u64, u64>,
}

/// How many a peer holds and, among equals, whose line is the older.
type Rank = (usize, Reverse<u64>);
type Ranks = BTreeMap<Rank, Network>;

fn rank(line: &BTreeMap<u64, u64>) -> Option<Rank> {
    let (first, _) = line.first_key_value()?;
    Some((line.len(), Reverse(*first)))
}

/// How far peers were looked at.
#[derive(Debug, Clone, Copy)]
struct Search {
    /// The last key at its beginning: whoever is looked at has later ones from then on.
    began: u64,
    /// The last one that was looked at; nobody yet.
    below: Option<Rank>,
}

/// Every connection, by peer and age.
#[derive(Debug, Default)]
pub(super) struct Lines {
    last: u64,
    seats: HashMap<u64, Seat>,
    // One entry per peer with open connections, so never more than there are of those.
    parties: HashMap<Network, Party>,
    by_held: Ranks,
    by_waiting: Ranks,
    /// Where the next newcomer looks on, where the last one found nobody: many who are busy hide
    /// nobody who is not.
    search: Option<Search>,
    waiting: usize,
    leaving: Vec<u64>,
    /// Whether connections are to become fewer.
    thin: bool,
}

/// A new connection's part of its seat.
#[derive(Debug)]
pub(super) struct Ticket {
    pub(super) id: u64,
    pub(super) usage: Arc<Usage>,
    pub(super) notice: watch::Receiver<Notice>,
}

impl Lines {
    pub(super) fn enter(&mut self, network: Network) -> Ticket {
        let id = self.next();
        let usage = Arc::<Usage>::default();
        let (sender, notice) = watch::channel(if self.thin {
            Notice::Thin
        } else {
            Notice::Stay
        });
        let seat = Seat {
            network,
            usage: Arc::clone(&usage),
            notice: sender,
            standing: Standing::Waiting,
            key: id,
            seen: 0,
            taken: 0,
        };
        self.seats.insert(id, seat);
        self.waiting += 1;
        self.change(network, |party| {
            party.open += 1;
            party.line.insert(id, id);
            party.waiting.insert(id, id);
        });
        Ticket { id, usage, notice }
    }

    /// Tells all that stay, and those that come, whether they are to become fewer.
    pub(super) fn thin(&mut self, thin: bool) {
        if std::mem::replace(&mut self.thin, thin) == thin {
            return;
        }
        let notice = if thin { Notice::Thin } else { Notice::Stay };
        for seat in self.seats.values() {
            if seat.standing != Standing::Leaving {
                seat.notice.send_replace(notice);
            }
        }
    }

    /// Counts a connection among those that wait no more.
    pub(super) fn stop_waiting(&mut self, id: u64) {
        let Some(seat) = self.seats.get_mut(&id) else {
            return;
        };
        if seat.standing != Standing::Waiting {
            return;
        }
        seat.standing = Standing::Served;
        let (network, key) = (seat.network, seat.key);
        self.waiting -= 1;
        self.change(network, |party| {
            party.waiting.remove(&key);
        });
    }

    /// Forgets a connection that is closed.
    pub(super) fn leave(&mut self, id: u64) {
        self.stop_waiting(id);
        let Some(seat) = self.seats.remove(&id) else {
            return;
        };
        self.leaving.retain(|leaving| *leaving != id);
        self.change(seat.network, |party| {
            party.open -= 1;
            party.line.remove(&seat.key);
        });
    }

    /// Gives the place of a connection away.
    pub(super) fn send_away(&mut self, id: u64) {
        self.stop_waiting(id);
        let Some(seat) = self.seats.get_mut(&id) else {
            return;
        };
        seat.standing = Standing::Leaving;
        seat.notice.send_replace(Notice::Leave);
        let (network, key) = (seat.network, seat.key);
        self.leaving.push(id);
        self.change(network, |party| {
            party.line.remove(&key);
        });
    }

    /// Takes a connection back that was sent away just as it had a call.
    pub(super) fn keep(&mut self, id: u64) {
        let key = self.next();
        let Some(seat) = self.seats.get_mut(&id) else {
            return;
        };
        if seat.standing != Standing::Leaving {
            return;
        }
        (seat.standing, seat.key) = (Standing::Served, key);
        let network = seat.network;
        self.leaving.retain(|leaving| *leaving != id);
        self.change(network, |party| {
            party.line.insert(key, id);
        });
    }

    /// Has the connection that leaves for the longest, and has no call, end at once: one that takes
    /// no answer, if there is such a one.
    pub(super) fn hurry(&mut self) {
        let mut last = None;
        for id in &self.leaving {
            let Some(seat) = self.seats.get_mut(id) else {
                continue;
            };
            if seat.usage.open() > 0 || *seat.notice.borrow() != Notice::Leave {
                continue;
            }
            if !seat.usage.takes(&mut seat.taken) {
                last = Some(*id);
                break;
            }
            last.get_or_insert(*id);
        }
        if let Some(seat) = last.and_then(|id| self.seats.get(&id)) {
            seat.notice.send_replace(Notice::Cut);
        }
    }

    pub(super) fn open(&self) -> usize {
        self.seats.len()
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    pub(super) fn leaving(&self) -> usize {
        self.leaving.len()
    }

    /// Open connections of a peer, and those of them that wait.
    pub(super) fn of(&self, network: Network) -> (usize, usize) {
        let party = self.parties.get(&network);
        party.map_or((0, 0), |party| (party.open, party.waiting.len()))
    }

    /// Who holds the most, and how many.
    pub(super) fn most(&self) -> Option<(usize, Network)> {
        let ((held, _), network) = self.by_held.last_key_value()?;
        Some((*held, *network))
    }

    /// The connection that makes room for one of `newcomer`: idle, or still waiting, of whoever
    /// holds the most. Nobody makes room for a peer that holds as many itself.
    pub(super) fn idle(&mut self, newcomer: Network) -> Option<u64> {
        let own = self.parties.get(&newcomer);
        let own = own.map_or(0, |party| party.line.len());
        let begun = self.search.take();
        let goes_on = begun.is_some();
        let mut found = self.look_on(begun.unwrap_or_else(|| self.search()), own, newcomer);
        if goes_on && found.is_none() && self.search.is_none() {
            // It began a while ago: whoever was busy then may not be any more.
            found = self.look_on(self.search(), own, newcomer);
        }
        found
    }

    /// Looks at the next peers of `search`, and keeps how to go on where nobody is found.
    fn look_on(&mut self, search: Search, own: usize, newcomer: Network) -> Option<u64> {
        let (more, rest) = search.next(&self.by_held, own);
        let mut order = more.into_iter().chain([newcomer]);
        let found = order.find_map(|network| self.look(network));
        self.search = rest.filter(|_| found.is_none());
        found
    }

    /// Has the next newcomer look from the beginning: nobody had to make room for the last one.
    pub(super) fn search_anew(&mut self) {
        self.search = None;
    }

    /// The connection that still waits and makes room for another one that will.
    pub(super) fn silent(&self, newcomer: Network) -> Option<u64> {
        let own = self.of(newcomer).1;
        let (more, _) = self.search().next(&self.by_waiting, own);
        more.into_iter().chain([newcomer]).find_map(|network| {
            let waiting = self.parties.get(&network)?.waiting.values();
            // One whose first request is just being counted has spoken.
            let silent = |id: &&u64| self.seats.get(id).is_some_and(|it| it.usage.begun() == 0);
            waiting.take(LOOKS).find(silent).copied()
        })
    }

    /// A search from its beginning.
    fn search(&self) -> Search {
        Search {
            began: self.last,
            below: None,
        }
    }

    /// Nothing is open and nothing is kept of what was.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        let ranks = self.by_held.len() + self.by_waiting.len();
        self.seats.is_empty() && self.parties.is_empty() && ranks == 0
    }

    /// Entries and moves so far.
    #[cfg(test)]
    pub(super) fn steps(&self) -> u64 {
        self.last
    }

    fn look(&mut self, network: Network) -> Option<u64> {
        let first = self.parties.get(&network)?.line.values().take(LOOKS);
        let (mut used, mut taking) = (None, None);
        for id in first.copied().collect::<Vec<_>>() {
            let seat = self.seats.get_mut(&id)?;
            let (begun, busy) = (seat.usage.begun(), seat.usage.open() > 0);
            let takes = seat.usage.takes(&mut seat.taken);
            if !busy && !takes && begun == seat.seen {
                return Some(id);
            }
            seat.seen = begun;
            match (busy, takes) {
                (true, _) => {}
                (false, false) => _ = used.get_or_insert(id),
                (false, true) => _ = taking.get_or_insert(id),
            }
            self.move_back(id);
        }
        used.or(taking)
    }

    fn move_back(&mut self, id: u64) {
        let key = self.next();
        let Some(seat) = self.seats.get_mut(&id) else {
            return;
        };
        let before = std::mem::replace(&mut seat.key, key);
        let network = seat.network;
        self.change(network, |party| {
            party.line.remove(&before);
            party.line.insert(key, id);
            if party.waiting.remove(&before).is_some() {
                party.waiting.insert(key, id);
            }
        });
    }

    /// Changes what a peer has, and its ranks with it.
    fn change(&mut self, network: Network, change: impl FnOnce(&mut Party)) {
        let party = self.parties.entry(network).or_default();
        let before = (rank(&party.line), rank(&party.waiting));
        change(party);
        let after = (rank(&party.line), rank(&party.waiting));
        if party.open == 0 {
            self.parties.remove(&network);
        }
        for (ranks, before, after) in [
            (&mut self.by_held, before.0, after.0),
            (&mut self.by_waiting, before.1, after.1),
        ] {
            if let Some(before) = before {
                ranks.remove(&before);
            }
            if let Some(after) = after {
                ranks.insert(after, network);
            }
        }
    }

    fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }
}

impl Search {
    /// The next peers to look at that have more than `own`, most first; and how to go on where those
    /// are not all there are.
    fn next(self, ranks: &Ranks, own: usize) -> (Vec<Network>, Option<Self>) {
        let mut looked = Vec::new();
        let mut below = self.below;
        for _ in 1..PEERS_LOOKED_AT {
            let next = match below {
                Some(below) => ranks.range(..below).next_back(),
                None => ranks.last_key_value(),
            };
            let Some(((held, first), network)) = next else {
                return (looked, None);
            };
            if *held <= own {
                // Others, who have less, may look further.
                break;
            }
            if first.0 > self.began {
                // It was looked at, and so were all after it that hold as many.
                below = Some((*held, Reverse(u64::MAX)));
            } else {
                looked.push(*network);
                below = Some((*held, *first));
            }
        }
        (looked, Some(Self { below, ..self }))
    }
}
