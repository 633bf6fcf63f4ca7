//! A configuration that changes while it is used.

use std::{
    any::Any,
    fmt,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;
use tokio::sync::watch;

/// Settings as they are now; clones see the same changes.
///
/// Reading takes no lock. Whoever reads twice may see two versions: work that must see one keeps
/// what [`Live::load`] gave it. A module is handed its own part alone, see [`Live::map`].
pub struct Live<C> {
    node: Arc<Node<C>>,
}

impl<C> Clone for Live<C> {
    fn clone(&self) -> Self {
        Self {
            node: Arc::clone(&self.node),
        }
    }
}

impl<C: fmt::Debug> fmt::Debug for Live<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Live")
            .field("version", &self.version())
            .field("current", &self.node.current.load())
            .finish()
    }
}

impl<C: Send + Sync + 'static> Live<C> {
    /// Settings that never change.
    #[must_use]
    pub fn fixed(config: C) -> Self {
        Publisher::new(config).live()
    }

    /// The settings now.
    #[must_use]
    pub fn load(&self) -> Arc<C> {
        self.node.current.load_full()
    }

    /// Reads from the settings now, without keeping them: the cheapest way for one value.
    pub fn read<R>(&self, read: impl FnOnce(&C) -> R) -> R {
        read(&self.node.current.load())
    }

    /// The settings now and each later change; a reader that is slow sees the newest alone.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Arc<C>> {
        self.node.changed.subscribe()
    }

    /// A part of these settings. Its subscribers are woken when this part changes.
    #[must_use]
    pub fn map<S>(&self, part: impl Fn(&C) -> &S + Send + Sync + 'static) -> Live<S>
    where
        S: Clone + PartialEq + Send + Sync + 'static,
    {
        self.derive(move |config| part(config).clone())
    }

    /// What is made of these settings. Its subscribers are woken when the outcome changes.
    #[must_use]
    pub fn derive<S>(&self, derive: impl Fn(&C) -> S + Send + Sync + 'static) -> Live<S>
    where
        S: PartialEq + Send + Sync + 'static,
    {
        // Under the lock that publishing takes: no change falls between the first value and the
        // registration of the rest.
        let mut derived = self.node.lock();
        let first = derive(&self.node.current.load());
        let node = Node::new(first, self.version(), Some(Arc::clone(&self.node) as _));
        let weak: Weak<Node<S>> = Arc::downgrade(&node);
        derived.push(Box::new(move |config, version| {
            let Some(node) = weak.upgrade() else {
                return false;
            };
            let next = derive(config);
            if next == **node.current.load() {
                node.version.store(version, Ordering::Release);
            } else {
                node.publish(Arc::new(next), version);
            }
            true
        }));
        Live { node }
    }
}

impl<C> Live<C> {
    /// How many configurations the process has applied, the first included. Of a part: the
    /// version of the whole that it belongs to.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.node.version.load(Ordering::Acquire)
    }
}

/// The one that changes a [`Live`].
///
/// The platform has one for the process's configuration; tests make their own.
#[derive(Debug)]
pub struct Publisher<C> {
    live: Live<C>,
}

impl<C: Send + Sync + 'static> Publisher<C> {
    /// Begins with `config` as version 1.
    #[must_use]
    pub fn new(config: C) -> Self {
        Self {
            live: Live {
                node: Node::new(config, 1, None),
            },
        }
    }

    /// What readers hold.
    #[must_use]
    pub fn live(&self) -> Live<C> {
        self.live.clone()
    }

    /// Replaces the settings, in one step for every reader of the whole; parts follow before this
    /// returns. Says which version it is.
    pub fn publish(&mut self, config: C) -> u64 {
        let version = self.live.version() + 1;
        self.live.node.publish(Arc::new(config), version);
        version
    }
}

struct Node<C> {
    current: ArcSwap<C>,
    version: AtomicU64,
    changed: watch::Sender<Arc<C>>,
    derived: Mutex<Vec<Derived<C>>>,
    /// What this is derived from; without it nobody would pass changes on.
    _parent: Option<Arc<dyn Any + Send + Sync>>,
}

/// Passes a change on; false once nobody holds what it passes it on to.
type Derived<C> = Box<dyn Fn(&C, u64) -> bool + Send>;

impl<C> Node<C> {
    fn new(config: C, version: u64, parent: Option<Arc<dyn Any + Send + Sync>>) -> Arc<Self> {
        let config = Arc::new(config);
        Arc::new(Self {
            current: ArcSwap::new(Arc::clone(&config)),
            version: AtomicU64::new(version),
            changed: watch::Sender::new(config),
            derived: Mutex::new(Vec::new()),
            _parent: parent,
        })
    }

    fn publish(&self, config: Arc<C>, version: u64) {
        let mut derived = self.lock();
        self.current.store(Arc::clone(&config));
        self.version.store(version, Ordering::Release);
        derived.retain(|pass_on| pass_on(&config, version));
        // Last, so that whoever it wakes finds the parts changed too.
        self.changed.send_replace(config);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Derived<C>>> {
        self.derived.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Clone, PartialEq)]
    struct Whole {
        left: u32,
        right: u32,
    }

    fn publisher() -> Publisher<Whole> {
        Publisher::new(Whole { left: 1, right: 1 })
    }

    /// Goal: a part follows the whole, and wakes its subscribers for its own changes alone.
    /// Method: change the other part, then this one.
    #[tokio::test]
    async fn a_part_is_woken_by_its_own_changes_alone() {
        let mut publisher = publisher();
        let left = publisher.live().map(|whole| &whole.left);
        let mut changes = left.subscribe();

        publisher.publish(Whole { left: 1, right: 2 });
        assert!(!changes.has_changed().unwrap());
        assert_eq!(2, left.version());

        publisher.publish(Whole { left: 2, right: 2 });
        changes.changed().await.unwrap();
        assert_eq!((2, 2), (**changes.borrow(), *left.load()));
        assert_eq!(3, left.version());
    }

    /// Goal: a part of a part lives on when only it is held.
    /// Method: drop what is between, then change.
    #[test]
    fn a_part_of_a_part_needs_nobody_to_hold_what_is_between() {
        let mut publisher = publisher();
        let odd = publisher
            .live()
            .map(|whole| &whole.left)
            .derive(|left| left % 2 == 1);
        assert!(odd.read(|odd| *odd));

        publisher.publish(Whole { left: 2, right: 1 });

        assert!(!odd.read(|odd| *odd));
    }

    /// Goal: what nobody holds any more costs nothing.
    /// Method: make many parts, drop them, change once, count what is left.
    #[test]
    fn parts_that_are_dropped_are_forgotten() {
        let mut publisher = publisher();
        let live = publisher.live();
        for _ in 0..10 {
            drop(live.map(|whole| &whole.left));
        }

        publisher.publish(Whole { left: 2, right: 2 });

        assert_eq!(0, live.node.lock().len());
    }

    #[test]
    fn a_fixed_configuration_is_version_one() {
        let live = Live::fixed(5);
        assert_eq!((1, 5), (live.version(), *live.load()));
    }
}
