//! What is known of one name: the list as told, and what is kept for a while though it is not
//! listed any more. No I/O and no clock of its own.
//!
//! A registry that loses its data must not take down what works. So an entry is not dropped at
//! once, but held for [`HOLD`], where a fault of the registry is the likelier reason: it is missing
//! after an interruption, or so many went that less than half of the recent number is left (a
//! panic floor). A held endpoint serves as long as its connection does; see
//! [`Attributes::held`](crate::discovery::Attributes::held). Where nothing else is listed, those
//! held are kept until something is: services that cannot reach the registry still serve.

use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

use tokio::time::Instant;

use super::pages::Position;
use crate::discovery::Endpoint;

/// How long an entry that may be missing by mistake is kept.
pub(super) const HOLD: Duration = Duration::from_mins(1);

type Key = Vec<u8>;

/// What is known of one name.
#[derive(Debug, Default)]
pub(super) struct View {
    live: BTreeMap<Key, Endpoint>,
    held: BTreeMap<Key, (Endpoint, Instant)>,
    /// The largest number of recent entries, and when there last were so many.
    peak: Option<(usize, Instant)>,
    position: Option<Position>,
    /// What the disk remembers from before the first list.
    remembered: Vec<Endpoint>,
}

impl View {
    /// Knows nothing but what was known when it was last written down.
    pub(super) fn remembering(endpoints: Vec<Endpoint>) -> Self {
        Self {
            remembered: endpoints,
            ..Self::default()
        }
    }

    /// Whether a list has been told.
    pub(super) fn is_listed(&self) -> bool {
        self.position.is_some()
    }

    /// How many entries are listed.
    pub(super) fn len(&self) -> usize {
        self.live.len()
    }

    /// Whether there is an entry under `key`.
    pub(super) fn has(&self, key: &[u8]) -> bool {
        self.live.contains_key(key)
    }

    /// Takes a list in. Says whether the registry began anew: it is behind where it was, or
    /// another one.
    pub(super) fn list(
        &mut self,
        entries: impl IntoIterator<Item = (Key, Endpoint)>,
        position: Position,
        now: Instant,
    ) -> bool {
        let entries: BTreeMap<_, _> = entries.into_iter().collect();
        let remembered = std::mem::take(&mut self.remembered);
        if self.position.is_none() && entries.is_empty() {
            // Empty while we remember otherwise: more likely its loss than that all have gone.
            for endpoint in remembered {
                let key = endpoint.addr.to_string().into_bytes();
                self.held.insert(key, (endpoint, now + HOLD));
            }
        }
        let anew = self.position.is_some_and(|before| {
            before.cluster != position.cluster || before.revision > position.revision
        });
        self.position = Some(position);
        self.hold_on(now);
        for (key, endpoint) in std::mem::replace(&mut self.live, entries) {
            if !self.live.contains_key(&key) {
                self.held.insert(key, (endpoint, now + HOLD));
            }
        }
        self.count(now);
        anew
    }

    /// An entry came or changed.
    pub(super) fn put(&mut self, key: Key, endpoint: Endpoint, now: Instant) {
        self.held.remove(&key);
        self.hold_on(now);
        self.live.insert(key, endpoint);
        self.count(now);
    }

    /// An entry went, or is not to be called any more.
    pub(super) fn delete(&mut self, key: &[u8], now: Instant) {
        self.count(now);
        let Some(endpoint) = self.live.remove(key) else {
            return;
        };
        let (peak, _) = self.peak.unwrap_or((0, now));
        if self.live.len() * 2 < peak {
            self.held.insert(key.to_vec(), (endpoint, now + HOLD));
        }
    }

    /// Before entries come where none was listed: the registry is being filled again, and those
    /// held are on their way.
    fn hold_on(&mut self, now: Instant) {
        if self.live.is_empty() {
            for (_, until) in self.held.values_mut() {
                *until = now + HOLD;
            }
        }
    }

    fn count(&mut self, now: Instant) {
        let count = self.live.len();
        match self.peak {
            Some((peak, at)) if count < peak && now - at < HOLD => {}
            _ => self.peak = Some((count, now)),
        }
        // An address that is listed again, if under another key, needs no holding.
        let listed: HashSet<_> = if self.held.is_empty() {
            HashSet::new()
        } else {
            self.live.values().map(|endpoint| endpoint.addr).collect()
        };
        self.held
            .retain(|_, (endpoint, _)| !listed.contains(&endpoint.addr));
    }

    /// Lets go of what was held long enough, unless nothing else is there. Says whether anything
    /// was.
    pub(super) fn expire(&mut self, now: Instant) -> bool {
        if self.live.is_empty() {
            return false;
        }
        let before = self.held.len();
        self.held.retain(|_, (_, until)| *until > now);
        self.held.len() != before
    }

    /// When something will have been held long enough.
    pub(super) fn next_expiry(&self) -> Option<Instant> {
        if self.live.is_empty() {
            return None;
        }
        self.held.values().map(|(_, until)| *until).min()
    }

    /// How many are held.
    pub(super) fn held(&self) -> usize {
        self.held.len()
    }

    /// Every endpoint once, in the order of keys, held ones last.
    pub(super) fn endpoints(&self) -> Vec<Endpoint> {
        let mut seen = HashSet::new();
        let held = self
            .held
            .values()
            .map(|(endpoint, _)| endpoint)
            .chain(&self.remembered)
            .map(|endpoint| {
                let mut endpoint = endpoint.clone();
                endpoint.attributes.held = true;
                endpoint
            });
        self.live
            .values()
            .cloned()
            .chain(held)
            .filter(|endpoint| seen.insert(endpoint.addr))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(port: u16) -> (Key, Endpoint) {
        let addr = std::net::SocketAddr::from(([10, 0, 0, 1], port));
        (format!("orders/{addr}").into_bytes(), addr.into())
    }

    fn at(revision: i64) -> Position {
        Position {
            cluster: 1,
            revision,
        }
    }

    /// The ports there are, and whether each is held.
    fn ports(view: &View) -> Vec<(u16, bool)> {
        let endpoints = view.endpoints().into_iter();
        endpoints
            .map(|it| (it.addr.port(), it.attributes.held))
            .collect()
    }

    fn listed(ports: impl IntoIterator<Item = u16>) -> View {
        let mut view = View::default();
        view.list(ports.into_iter().map(endpoint), at(5), Instant::now());
        view
    }

    /// Goal: one that goes is dropped at once; when more than half go, those beyond are held, and
    /// not for ever, unless nothing else is there.
    /// Method: delete four of four, one by one; let time pass; one comes back, and a minute passes.
    #[tokio::test(start_paused = true)]
    async fn less_than_half_is_a_fault_of_the_registry() {
        let mut view = listed([1, 2, 3, 4]);
        view.delete(&endpoint(1).0, Instant::now());
        view.delete(&endpoint(2).0, Instant::now());
        assert_eq!(vec![(3, false), (4, false)], ports(&view));
        view.delete(&endpoint(3).0, Instant::now());
        view.delete(&endpoint(4).0, Instant::now());
        assert_eq!(vec![(3, true), (4, true)], ports(&view));

        assert_eq!(None, view.next_expiry());
        tokio::time::advance(HOLD * 10).await;
        assert!(!view.expire(Instant::now()));
        assert_eq!(vec![(3, true), (4, true)], ports(&view));

        let (key, value) = endpoint(1);
        view.put(key, value, Instant::now());
        assert!(
            !view.expire(Instant::now()),
            "the others may come back, too"
        );
        assert_eq!(Some(Instant::now() + HOLD), view.next_expiry());
        tokio::time::advance(HOLD).await;
        assert!(view.expire(Instant::now()));
        assert_eq!(vec![(1, false)], ports(&view));
    }

    /// Goal: those that were held for long get their time anew when a list brings others back.
    /// Method: an empty list, ten minutes, a list of one of them, a minute.
    #[tokio::test(start_paused = true)]
    async fn a_list_that_fills_again_is_waited_for() {
        let mut view = listed([1, 2]);
        view.list([], at(6), Instant::now());
        tokio::time::advance(HOLD * 10).await;
        assert!(!view.expire(Instant::now()));
        view.list([endpoint(1)], at(7), Instant::now());
        assert!(!view.expire(Instant::now()));
        assert_eq!(vec![(1, false), (2, true)], ports(&view));
        tokio::time::advance(HOLD).await;
        assert!(view.expire(Instant::now()));
        assert_eq!(vec![(1, false)], ports(&view));
    }

    /// Goal: a slow decline is not a fault.
    /// Method: four endpoints go, one every two minutes.
    #[tokio::test(start_paused = true)]
    async fn a_slow_decline_is_followed() {
        let mut view = listed([1, 2, 3, 4]);
        for port in [1, 2, 3] {
            tokio::time::advance(HOLD * 2).await;
            view.delete(&endpoint(port).0, Instant::now());
        }
        assert_eq!(vec![(4, false)], ports(&view));
    }

    /// Goal: what is missing after an interruption is held, and live again once it registers, under
    /// whatever key.
    /// Method: an empty list of a registry that began anew, then two come back.
    #[tokio::test(start_paused = true)]
    async fn a_registry_that_lost_everything_takes_nothing_down() {
        let mut view = listed([1, 2, 3]);
        let now = Instant::now();
        assert!(view.list([], at(1), now), "it began anew");
        assert_eq!(vec![(1, true), (2, true), (3, true)], ports(&view));

        let (key, value) = endpoint(2);
        view.put(key, value, now);
        view.put(b"orders/other".to_vec(), endpoint(3).1, now);
        let expected = vec![(2, false), (3, false), (1, true)];
        assert_eq!(expected, ports(&view));
        assert_eq!(1, view.held());
    }

    /// Goal: what the disk remembers serves until the registry answers, and is kept only where
    /// that answer is nothing at all.
    /// Method: both answers.
    #[tokio::test(start_paused = true)]
    async fn what_was_remembered_gives_way_to_a_list() {
        let remembered = || View::remembering(vec![endpoint(7).1]);
        let mut view = remembered();
        assert_eq!(vec![(7, true)], ports(&view));
        view.list([endpoint(1)], at(9), Instant::now());
        assert_eq!(vec![(1, false)], ports(&view));

        let mut view = remembered();
        view.list([], at(9), Instant::now());
        assert_eq!(vec![(7, true)], ports(&view));
    }
}
