//! How much of bodies is held: of each, of all from one client, and of all together.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use gantry::{
    config::Live,
    limit::{client::Key, rate::Limiter},
    status,
};
use http::request;

use super::{failure::Failure, pace::Pace};
use crate::config::Http;

/// Bodies up to this size always find room, and take none from others: large ones that never end
/// must not keep them out, and many of them not those that are larger.
const ROOM_ALWAYS: usize = 16 * 1_024;

/// The part of the time for a call that its only message may take to come.
const BODY_TIME: f64 = 0.9;

/// When a body that found no room is worth another try.
const NO_ROOM_PAUSE: Duration = Duration::from_secs(1);

/// What the bodies of all requests may; clones count together.
#[derive(Debug, Clone)]
pub struct Bodies {
    held: Held,
    http: Live<Http>,
    limiter: Limiter,
}

/// What one body may.
#[derive(Debug)]
pub struct Allowance {
    /// How large it may be.
    pub share: Share,
    /// How slow.
    pub pace: Pace,
    /// How long it may take in all, where it is one message.
    pub time_max: Duration,
}

impl Bodies {
    /// Bounded by `http`; whose they are is told by `limiter`.
    #[must_use]
    pub fn new(http: Live<Http>, limiter: Limiter) -> Self {
        Self {
            held: Held::default(),
            http,
            limiter,
        }
    }

    /// What the body of the request with this `head` may.
    #[must_use]
    pub fn allow(&self, head: &request::Parts) -> Allowance {
        let client = Key::of(self.limiter.client(&head.extensions, &head.headers));
        let http = self.http.load();
        let all_max = http.body_bytes_max.as_usize();
        let bounds = Bounds {
            alone: http.body_max.as_usize(),
            client: all_max / 100 * http.body_client_percent as usize,
            all: all_max,
        };
        Allowance {
            share: self.held.share(client, bounds),
            pace: Pace::new(http.body_stall_max),
            // So that it is the body that is found late, and not the service that never had it.
            time_max: http.timeout.mul_f64(BODY_TIME),
        }
    }

    /// Bytes that are held of all.
    #[cfg(test)]
    pub(crate) fn held(&self) -> usize {
        self.held.counts().all
    }
}

/// Bytes of bodies.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    /// Of this one.
    alone: usize,
    /// Of all from its client.
    client: usize,
    /// Of all.
    all: usize,
}

/// Bytes that are held of all bodies that are not small.
#[derive(Debug, Clone, Default)]
struct Held(Arc<Mutex<Counts>>);

#[derive(Debug, Default)]
struct Counts {
    all: usize,
    /// As many as there are bodies at most.
    by_client: HashMap<Key, usize>,
}

/// The share of one body in them, until dropped.
#[derive(Debug)]
pub struct Share {
    held: Held,
    client: Key,
    bounds: Bounds,
    bytes: usize,
    /// Those of them that are counted: none of a small one.
    counted: usize,
}

impl Held {
    /// Nothing yet, of a body from `client`.
    fn share(&self, client: Key, bounds: Bounds) -> Share {
        Share {
            held: self.clone(),
            client,
            bounds,
            bytes: 0,
            counted: 0,
        }
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Share {
    /// Holds `more` bytes of `what`.
    pub(crate) fn grow(&mut self, more: usize, what: &str) -> Result<(), Failure> {
        let bytes = self.bytes + more;
        if bytes > self.bounds.alone {
            return Err(Failure::too_large(what, self.bounds.alone));
        }
        if bytes > ROOM_ALWAYS {
            self.count(bytes)?;
        }
        self.bytes = bytes;
        Ok(())
    }

    fn count(&mut self, bytes: usize) -> Result<(), Failure> {
        let more = bytes - self.counted;
        let mut counts = self.held.counts();
        let all = counts.all + more;
        let of_client = counts.by_client.get(&self.client).copied();
        let of_client = of_client.unwrap_or(0) + more;
        // Where there is no other, one may be as large as it may be.
        let bound = if all > self.bounds.all && all > bytes {
            "bodies of more requests, the bound http.body_bytes_max"
        } else if of_client > self.bounds.client && of_client > bytes {
            "more bodies of one client, the bound http.body_client_percent"
        } else {
            counts.all = all;
            counts.by_client.insert(self.client, of_client);
            self.counted = bytes;
            return Ok(());
        };
        Err(status::busy(format!("no room for {bound}"), NO_ROOM_PAUSE).into())
    }

    /// The bytes that it may still hold, alone.
    pub(super) fn alone_max(&self) -> usize {
        self.bounds.alone
    }

    /// Holds nothing any more.
    pub(super) fn release(&mut self) {
        self.bytes = 0;
        let counted = std::mem::take(&mut self.counted);
        if counted == 0 {
            return;
        }
        let mut counts = self.held.counts();
        counts.all -= counted;
        if let Entry::Occupied(mut of_client) = counts.by_client.entry(self.client) {
            *of_client.get_mut() -= counted;
            if *of_client.get() == 0 {
                of_client.remove();
            }
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.release();
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;

    fn of(client: u8) -> Key {
        Key::of(IpAddr::V4(Ipv4Addr::new(192, 0, 2, client)))
    }

    /// Goal: a client has its share and no more, all have what there is and no more, small bodies
    /// always find room and take none, and what is let go of is free for all.
    /// Method: shares that grow; where the next byte is refused, and by which bound.
    #[test]
    fn room_is_shared() {
        const KIB: usize = 1_024;
        let bounds = Bounds {
            alone: 400 * KIB,
            client: 250 * KIB,
            all: 1_000 * KIB,
        };
        let held = Held::default();
        let small = |client| {
            let mut small = held.share(of(client), bounds);
            small.grow(ROOM_ALWAYS, "it").map(|()| small)
        };
        let large = |client, kib| {
            let mut large = held.share(of(client), bounds);
            large.grow(kib * KIB, "it").map(|()| large)
        };
        let refused = |found: Result<Share, Failure>| {
            let failure = found.unwrap_err();
            failure.status.message().to_owned()
        };
        let many: Vec<_> = (0..200).map(|_| small(1).unwrap()).collect();
        let first = large(1, 250).unwrap();
        assert!(refused(large(1, 20)).contains("http.body_client_percent"));
        assert!(refused(large(1, 401)).contains("http.body_max"));
        let alone = large(2, 400).unwrap();
        let third = large(3, 250).unwrap();
        let fourth = large(4, 100).unwrap();
        assert!(refused(large(5, 20)).contains("http.body_bytes_max"));
        drop((many, small(5).unwrap(), first));
        large(1, 250).unwrap();
        drop((alone, third, fourth));
        assert_eq!(0, held.counts().all);
        assert!(held.counts().by_client.is_empty());
    }
}
