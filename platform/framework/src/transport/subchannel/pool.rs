//! The connections of one subchannel that take calls, and the calls that wait for a place.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use arc_swap::ArcSwap;
use tokio::sync::{Notify, oneshot};

use super::connection::{Connection, Slot};

/// Hands out places on connections, oldest connection first, in the order of asking.
#[derive(Debug)]
pub(super) struct Pool {
    /// Oldest first, so that the youngest empties when there is little to do.
    usable: ArcSwap<Vec<Arc<Connection>>>,
    waiting: Mutex<VecDeque<oneshot::Sender<Slot>>>,
    /// Length of `waiting`, readable without its lock.
    waiting_count: AtomicUsize,
    waiting_max: usize,
    /// Wakes the supervisor: a connection changed, or calls wait.
    pub(super) changed: Notify,
}

/// What became of a call that asked for a place.
#[derive(Debug)]
pub(super) enum Asked {
    /// It has one.
    Slot(Slot),
    /// It is in line; the line is dismissed when the last connection goes.
    Wait(oneshot::Receiver<Slot>),
    /// No connection takes calls.
    Gone,
    /// The line is full.
    Full,
}

impl Pool {
    pub(super) fn new(waiting_max: usize) -> Self {
        Self {
            usable: ArcSwap::default(),
            waiting: Mutex::default(),
            waiting_count: AtomicUsize::new(0),
            waiting_max,
            changed: Notify::new(),
        }
    }

    /// A place that is free now, if nobody is in line: nobody overtakes those.
    pub(super) fn free(&self) -> Option<Slot> {
        (self.waiting_count() == 0).then(|| self.open()).flatten()
    }

    /// Whether there is one.
    pub(super) fn has_room(&self) -> bool {
        let usable = self.usable.load();
        self.waiting_count() == 0 && usable.iter().any(|connection| connection.has_room())
    }

    pub(super) fn ask(&self) -> Asked {
        if let Some(slot) = self.free() {
            return Asked::Slot(slot);
        }
        let mut waiting = self.lock();
        // Those it has may have retired a moment ago: nobody waits for a place at them.
        if !self.is_usable() {
            return Asked::Gone;
        }
        prune(&mut waiting, self.waiting_max);
        if waiting.len() >= self.waiting_max {
            self.waiting_count.store(waiting.len(), Ordering::SeqCst);
            return Asked::Full;
        }
        let (sender, receiver) = oneshot::channel();
        waiting.push_back(sender);
        self.waiting_count.store(waiting.len(), Ordering::SeqCst);
        drop(waiting);
        // A place may have been freed between the first look and joining the line.
        self.serve();
        self.changed.notify_one();
        Asked::Wait(receiver)
    }

    /// Calls in line, those that gave up meanwhile included.
    pub(super) fn waiting_count(&self) -> usize {
        self.waiting_count.load(Ordering::SeqCst)
    }

    /// Gives free places to those in line.
    pub(super) fn serve(&self) {
        if self.waiting_count() == 0 {
            return;
        }
        // Dropped after the lock: a slot that goes serves the line itself.
        let mut unwanted = None;
        let mut waiting = self.lock();
        while !waiting.is_empty() {
            let Some(slot) = unwanted.take().or_else(|| self.open()) else {
                break;
            };
            let waiter = waiting.pop_front().expect("the line is not empty");
            // One that gave up returns the slot, for the next.
            unwanted = waiter.send(slot).err();
        }
        self.waiting_count.store(waiting.len(), Ordering::SeqCst);
        drop(waiting);
        drop(unwanted);
    }

    /// Replaces the connections that take calls. Without any, the line is dismissed.
    pub(super) fn publish(&self, usable: Vec<Arc<Connection>>) {
        let dismissed = {
            let mut waiting = self.lock();
            let empty = usable.is_empty();
            self.usable.store(Arc::new(usable));
            if empty {
                self.waiting_count.store(0, Ordering::SeqCst);
                std::mem::take(&mut *waiting)
            } else {
                VecDeque::new()
            }
        };
        drop(dismissed);
        self.serve();
    }

    /// Whether some connection takes calls, full or not.
    pub(super) fn is_usable(&self) -> bool {
        let usable = self.usable.load();
        usable
            .iter()
            .any(|connection| connection.shared().is_usable())
    }

    pub(super) fn len(&self) -> usize {
        self.usable.load().len()
    }

    fn open(&self) -> Option<Slot> {
        self.usable.load().iter().find_map(Connection::open)
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<oneshot::Sender<Slot>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lets go of those in line that gave up: at the head always, elsewhere only when their places are
/// needed. A look at the whole line at each asking would cost with the square of its length.
fn prune(waiting: &mut VecDeque<oneshot::Sender<Slot>>, most: usize) {
    while waiting.front().is_some_and(oneshot::Sender::is_closed) {
        waiting.pop_front();
    }
    if waiting.len() >= most {
        waiting.retain(|waiter| !waiter.is_closed());
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            Config,
            connection::{Health, Shared},
            keepalive::Leave,
        },
        *,
    };
    use crate::{journal::Journal, shutdown::Tasks};

    /// A connection whose peer allows `places` calls at once.
    async fn connection(pool: &Arc<Pool>, places: u32) -> Arc<Connection> {
        let (io, peer) = tokio::io::duplex(1 << 10);
        let tasks = Tasks::new(Journal::new());
        tasks.spawn("peer", async move {
            let mut builder = h2::server::Builder::new();
            let builder = builder.max_concurrent_streams(places);
            let mut peer = builder.handshake::<_, bytes::Bytes>(peer).await.unwrap();
            while peer.accept().await.is_some() {}
        });
        let shared = Shared::new(
            std::net::SocketAddr::from(([127, 0, 0, 1], 1)),
            http::uri::Authority::from_static("peer"),
            http::uri::Scheme::HTTP,
            Arc::clone(pool),
            tasks,
            Health::Serving,
            Leave::new(false),
        );
        let config = Config::default();
        let set_up = Connection::set_up(Box::new(io), Arc::new(shared), &config);
        set_up.await.unwrap()
    }

    /// Goal: nobody overtakes those in line, also where a place is free and they were not yet
    /// told.
    /// Method: a connection of one place, and one in line for it whom nobody has looked for; then
    /// another asks.
    #[tokio::test]
    async fn nobody_overtakes_those_in_line() {
        let pool = Arc::new(Pool::new(8));
        let connection = connection(&pool, 1).await;
        pool.publish(vec![connection]);
        let (sender, mut first) = oneshot::channel();
        pool.lock().push_back(sender);
        pool.waiting_count.store(1, Ordering::SeqCst);

        let Asked::Wait(mut second) = pool.ask() else {
            panic!("the one in line was overtaken");
        };
        let slot = first.try_recv().expect("it is the first one's place");
        second.try_recv().unwrap_err();
        drop(slot);
        let slot = second.try_recv().expect("it is the next one's place");
        drop(slot);
        assert!(matches!(pool.ask(), Asked::Slot(_)));
    }

    /// Goal: nobody waits at an endpoint whose connections take no calls.
    /// Method: the only one retires, and is not yet replaced.
    #[tokio::test]
    async fn nobody_waits_at_one_that_retired() {
        let pool = Arc::new(Pool::new(8));
        let connection = connection(&pool, 1).await;
        pool.publish(vec![Arc::clone(&connection)]);
        let place = pool.ask();
        assert!(matches!(place, Asked::Slot(_)));
        assert!(matches!(pool.ask(), Asked::Wait(_)));
        drop(place);

        connection.shared().retire("test");
        assert!(matches!(pool.ask(), Asked::Gone));
    }

    /// Goal: who gave up makes room when it is needed, and nobody looks for them before.
    /// Method: give up in the middle of a line and at its head, with room and without.
    #[test]
    fn those_who_gave_up_make_room() {
        let (senders, mut receivers): (VecDeque<_>, Vec<_>) =
            (0..5).map(|_| oneshot::channel()).unzip();
        let mut waiting = senders;
        drop(receivers.remove(2));
        prune(&mut waiting, 6);
        assert_eq!(5, waiting.len(), "the line was searched with room in it");
        prune(&mut waiting, 5);
        assert_eq!(4, waiting.len());
        drop(receivers.remove(0));
        prune(&mut waiting, 5);
        assert_eq!(3, waiting.len());
        prune(&mut waiting, 3);
        assert_eq!(3, waiting.len());
    }
}
