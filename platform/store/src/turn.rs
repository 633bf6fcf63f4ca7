//! Whose turn it is to write into a file that has one writer at a time.
//!
//! SQLite has its writers try again until they succeed. Whoever has just written is there first, so
//! of two processes that are busy one would wait until its time is up. Those of a process queue in
//! memory; processes queue by locks on two files beside the database:
//!
//! ```text
//! in memory ─▶ FILE-queue ─▶ FILE-turn ─▶ write ─▶ the next in memory, for a moment
//!                  └─ given back once the turn is had
//! ```
//!
//! Whoever waits for the turn has the queue, which whoever had the turn must pass to have it again. So
//! two processes take turns. To find that it is one's turn takes as long as a look at it, longer than
//! many a write: a process has the turn for those of its writers that wait, one after the other, and not
//! for one alone, but never begins one when it has had it for a while. So whoever is next waits for no
//! more than that while and a write. Locks end with their process; one that stands still in the queue is
//! passed by. SQLite's own locks stay: whoever does not queue disturbs nothing.

use std::{
    ffi::OsString,
    fs::{File, TryLockError},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{self, Instant},
};

use crate::{Config, Error, Kind, url::Place};

/// How long the queue is waited for: many times as long as whoever is next waits for its turn.
const QUEUE_MAX: Duration = Duration::from_millis(500);
/// How often a lock is looked at: about as long as a commit takes.
const LOOK_PAUSE: Duration = Duration::from_millis(1);
/// How long a process may have had the turn when it begins another write: several times as long as the
/// looks of the next one take, and a small part of what anybody waits.
const KEPT_MAX: Duration = Duration::from_millis(10);

/// The turns of one process at one database.
#[derive(Debug)]
pub(crate) struct Turns {
    /// Nobody takes turns at a server.
    file: Option<OsString>,
    writers: Arc<Semaphore>,
    locks: OnceLock<Arc<Locks>>,
    warned: AtomicBool,
    line: Arc<Line>,
}

/// Writers of one process that wait, and what they leave to each other.
#[derive(Debug, Default)]
struct Line(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    count: usize,
    /// Left to the next of them; to others once there is none.
    left: Option<Had>,
}

/// The turn of a process.
#[derive(Debug)]
struct Had {
    _lock: Locked,
    since: Instant,
    /// Whether somebody sees to it that it is given back where nobody takes what is left.
    watched: bool,
}

/// One of those that wait, until dropped.
struct Waits(Arc<Line>);

#[derive(Debug)]
struct Locks {
    queue: File,
    turn: File,
    /// Whether the queue was not to be had when that was last tried.
    stuck: AtomicBool,
}

/// The turn, until dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    had: Option<Had>,
    line: Arc<Line>,
    // Given back last: the next of this process finds what is left to it.
    _permit: OwnedSemaphorePermit,
}

/// One of the two, until dropped.
#[derive(Debug)]
struct Locked {
    locks: Arc<Locks>,
    which: fn(&Locks) -> &File,
}

impl Turns {
    pub(crate) fn new(config: &Config) -> Self {
        let file = match config.url.place() {
            Place::File(path) => Some(path.as_os_str().to_owned()),
            Place::Server(_) => None,
        };
        Self {
            file,
            writers: Arc::new(Semaphore::new(1)),
            locks: OnceLock::new(),
            warned: AtomicBool::new(false),
            line: Arc::default(),
        }
    }

    /// None where they cannot be had: then SQLite's own must do.
    fn locks(&self, file: &OsString) -> Option<&Arc<Locks>> {
        if let Some(locks) = self.locks.get() {
            return Some(locks);
        }
        match Locks::open(file) {
            Ok(locks) => Some(self.locks.get_or_init(|| Arc::new(locks))),
            Err(error) => {
                if !self.warned.swap(true, Ordering::Relaxed) {
                    tracing::warn!(%error, "processes do not queue to write: no file beside the database");
                }
                None
            }
        }
    }

    /// The one writer's place, where there is one; `name` is for errors. Cancel-safe.
    ///
    /// # Errors
    ///
    /// [`Kind::Busy`] if it is not had within the time that a connection may take to be had, and then
    /// that which another writer may take.
    pub(crate) async fn take(
        &self,
        name: &'static str,
        config: &Config,
    ) -> Result<Option<Turn>, Error> {
        let Some(file) = &self.file else {
            return Ok(None);
        };
        let busy = || Error::of_kind(name, Kind::Busy);
        let waits = Waits::at(&self.line);
        let permit = Arc::clone(&self.writers).acquire_owned();
        let Ok(permit) = time::timeout(config.acquire_timeout, permit).await else {
            return Err(busy());
        };
        let had = match (waits.left(), self.locks(file)) {
            (Some(had), _) => Some(had),
            (None, Some(locks)) => {
                let until = Instant::now() + config.busy_timeout;
                let lock = locks.take(until).await.ok_or_else(busy)?;
                Some(Had {
                    _lock: lock,
                    since: Instant::now(),
                    watched: false,
                })
            }
            (None, None) => None,
        };
        Ok(Some(Turn {
            had,
            line: Arc::clone(&self.line),
            _permit: permit.expect("the semaphore is never closed"),
        }))
    }
}

impl Line {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has what is left of a turn given back once its time is up: one that waits may never look. Whether
    /// there is anybody to do so.
    fn watch(self: &Arc<Self>, since: Instant) -> bool {
        let Ok(runtime) = Handle::try_current() else {
            return false;
        };
        let line = Arc::downgrade(self);
        // It is over within that time, so nobody owns it.
        runtime.spawn(async move {
            time::sleep_until(since + KEPT_MAX).await;
            if let Some(line) = line.upgrade() {
                let mut waiting = line.waiting();
                waiting.left.take_if(|had| had.since == since);
            }
        });
        true
    }
}

impl Waits {
    fn at(line: &Arc<Line>) -> Self {
        line.waiting().count += 1;
        Self(Arc::clone(line))
    }

    /// The turn, where the one before has left it.
    fn left(&self) -> Option<Had> {
        self.0.waiting().left.take()
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        let mut waiting = self.0.waiting();
        waiting.count -= 1;
        if waiting.count == 0 {
            // Nobody here takes it any more.
            waiting.left = None;
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let Some(mut had) = self.had.take() else {
            return;
        };
        let mut waiting = self.line.waiting();
        if waiting.count > 0 && had.since.elapsed() < KEPT_MAX {
            had.watched = had.watched || self.line.watch(had.since);
            waiting.left = had.watched.then_some(had);
        }
    }
}

impl Locks {
    fn open(file: &OsString) -> io::Result<Self> {
        let open = |suffix: &str| {
            let mut path = file.clone();
            path.push(suffix);
            let mut options = File::options();
            options.create(true).truncate(false).write(true);
            // Whoever can open them can keep everybody from writing.
            options.mode(0o600).open(Path::new(&path))
        };
        Ok(Self {
            queue: open("-queue")?,
            turn: open("-turn")?,
            stuck: AtomicBool::new(false),
        })
    }

    /// The turn, once whoever queues before has had it; none after `until`.
    async fn take(self: &Arc<Self>, until: Instant) -> Option<Locked> {
        // Whoever has the queue and does not come on stands still, and everybody would with it.
        let patience = if self.stuck.load(Ordering::Relaxed) {
            Duration::ZERO
        } else {
            QUEUE_MAX
        };
        let queue_until = until.min(Instant::now() + patience);
        let queued = self.lock(|locks| &locks.queue, queue_until).await;
        self.stuck.store(queued.is_none(), Ordering::Relaxed);
        let turn = self.lock(|locks| &locks.turn, until).await;
        drop(queued);
        turn
    }

    async fn lock(self: &Arc<Self>, which: fn(&Self) -> &File, until: Instant) -> Option<Locked> {
        loop {
            match which(self).try_lock() {
                Err(TryLockError::WouldBlock) if Instant::now() >= until => return None,
                Err(TryLockError::WouldBlock) => time::sleep(LOOK_PAUSE).await,
                // Where there are no locks, SQLite's own must do.
                Ok(()) | Err(TryLockError::Error(_)) => {
                    return Some(Locked {
                        locks: Arc::clone(self),
                        which,
                    });
                }
            }
        }
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        if let Err(error) = (self.which)(&self.locks).unlock() {
            tracing::debug!(%error, "a lock of a database cannot be given back");
        }
    }
}
