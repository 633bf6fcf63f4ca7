//! Who may hold a connection of the side port, and who goes when there is no place left.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// The places of all connections.
///
/// Whoever comes gets one: a probe that waits behind connections which do nothing would have a
/// process restarted that works. So a newcomer is never refused; the oldest connection of
/// whoever holds most goes instead.
#[derive(Debug)]
pub(super) struct Places {
    free: Arc<Semaphore>,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    next: u64,
    /// Oldest first. Those that were told to go are not here any more.
    places: BTreeMap<u64, (IpAddr, CancellationToken)>,
}

/// The place of one open connection; dropping it frees the place.
#[derive(Debug)]
pub(super) struct Place {
    id: u64,
    places: Arc<Places>,
    /// Once it is cancelled the connection must end at once.
    pub(super) cut: CancellationToken,
    _permit: OwnedSemaphorePermit,
}

impl Places {
    /// So many; at least one.
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self {
            free: Arc::new(Semaphore::new(most.max(1))),
            held: Mutex::default(),
        })
    }

    /// A place for a connection of `peer`, whose [`Place::cut`] is a child of `stopping`. Waits only
    /// until a connection that was cut for it has ended.
    pub(super) async fn take(
        self: &Arc<Self>,
        peer: IpAddr,
        stopping: &CancellationToken,
    ) -> Place {
        let peer = peer.to_canonical();
        if self.free.available_permits() == 0 {
            self.lock().cut_one_for(peer);
        }
        let permit = Arc::clone(&self.free).acquire_owned().await;
        let permit = permit.expect("the semaphore is never closed");
        let cut = stopping.child_token();
        let mut held = self.lock();
        held.next += 1;
        let id = held.next;
        held.places.insert(id, (peer, cut.clone()));
        drop(held);
        Place {
            id,
            places: Arc::clone(self),
            cut,
            _permit: permit,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn cut_one_for(&mut self, newcomer: IpAddr) {
        let mut counts = HashMap::from([(newcomer, 1_usize)]);
        for (peer, _) in self.places.values() {
            *counts.entry(*peer).or_default() += 1;
        }
        let most = self
            .places
            .iter()
            .max_by_key(|(id, (peer, _))| (counts.get(peer), Reverse(**id)));
        let Some(id) = most.map(|(id, _)| *id) else {
            return;
        };
        if let Some((peer, cut)) = self.places.remove(&id) {
            tracing::debug!(%peer, "side port connection makes room for another");
            cut.cancel();
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.lock().places.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOME: [&str; 6] = [
        "192.0.2.1",
        "192.0.2.2",
        "192.0.2.2",
        "::ffff:192.0.2.2",
        "192.0.2.3",
        "192.0.2.3",
    ];

    /// Goal: where all places are taken the oldest connection of whoever holds most goes, the
    /// newcomer's own where that is he.
    /// Method: six places of three peers, one of them written as IPv6; one more, of one peer or
    /// another.
    #[tokio::test]
    async fn the_oldest_of_the_greediest_makes_room() {
        let cases = [
            ("192.0.2.9", 1),
            ("192.0.2.1", 1),
            ("192.0.2.3", 1),
            ("192.0.2.2", 1),
        ];
        for (newcomer, cut) in cases {
            let (places, held, _stopping) = taken(&SOME).await;
            assert_eq!(
                Some(cut),
                cut_for(&places, held, newcomer).await,
                "{newcomer}"
            );
        }
        // Of two that hold as many, whoever asks for more.
        let even = ["192.0.2.1", "192.0.2.2", "192.0.2.1", "192.0.2.2"];
        let (places, held, _stopping) = taken(&even).await;
        assert_eq!(Some(1), cut_for(&places, held, "192.0.2.2").await);
        // Of strangers to each other, the oldest.
        let (places, held, _stopping) = taken(&["192.0.2.1", "192.0.2.2"]).await;
        assert_eq!(Some(0), cut_for(&places, held, "192.0.2.3").await);
    }

    /// Goal: a place that is freed is taken before anybody is cut, and nobody is remembered.
    /// Method: fill, free one, take one, leave.
    #[tokio::test]
    async fn a_free_place_costs_nobody_his() {
        let (places, mut held, stopping) = taken(&SOME).await;
        held.pop();
        held.push(places.take("192.0.2.2".parse().unwrap(), &stopping).await);
        assert!(held.iter().all(|place| !place.cut.is_cancelled()));
        stopping.cancel();
        assert!(held.iter().all(|place| place.cut.is_cancelled()));
        drop(held);
        assert!(places.lock().places.is_empty());
        assert_eq!(SOME.len(), places.free.available_permits());
    }

    async fn taken(peers: &[&str]) -> (Arc<Places>, Vec<Place>, CancellationToken) {
        let places = Places::new(peers.len());
        let stopping = CancellationToken::new();
        let mut held = Vec::new();
        for peer in peers {
            held.push(places.take(peer.parse().unwrap(), &stopping).await);
        }
        (places, held, stopping)
    }

    /// Which of `held` goes so that `newcomer` gets a place.
    async fn cut_for(places: &Arc<Places>, mut held: Vec<Place>, newcomer: &str) -> Option<usize> {
        let stopping = CancellationToken::new();
        let mut taking = std::pin::pin!(places.take(newcomer.parse().unwrap(), &stopping));
        let waits = futures_util::poll!(taking.as_mut()).is_pending();
        assert!(waits, "there are more places than connections may be");
        let cut: Vec<_> = (0..held.len())
            .filter(|at| held[*at].cut.is_cancelled())
            .collect();
        let [one] = cut[..] else {
            return None;
        };
        drop(held.remove(one));
        let _place = taking.await;
        Some(one)
    }
}
