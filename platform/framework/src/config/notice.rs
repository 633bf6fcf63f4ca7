//! Notices that a configuration may have changed, and says when to look.
//!
//! A file that is being written is not read: a half of it may well be valid. Who writes has
//! finished when the file is closed or takes the name of another, and where the system does not
//! tell, when nothing has happened for a while.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    path::{Path, PathBuf},
    time::Duration,
};

use notify::{
    Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _,
    event::{AccessKind, AccessMode, MetadataKind, ModifyKind, RenameMode},
};
use tokio::{sync::watch, time::Instant};

/// From a finished write to a look: several files are often written together.
const SETTLE: Duration = Duration::from_millis(20);

/// Without another sign this long, a write is taken to be finished.
const QUIET: Duration = Duration::from_millis(500);

/// Between one look and the next, at least.
const GAP: Duration = Duration::from_millis(100);

/// Between looks without a sign: some file systems give none.
const POLL: Duration = Duration::from_secs(5);

/// What has been noticed so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Notices {
    /// Signs of change.
    pub(super) signs: u64,
    /// Whether a write was going on at the last of them.
    pub(super) writing: bool,
    /// Requests to look in any case.
    pub(super) asked: u64,
}

impl Notices {
    pub(super) fn sign(&mut self, writing: bool) {
        self.signs += 1;
        self.writing = writing;
    }
}

/// When to look next.
#[derive(Debug)]
pub(super) struct Schedule {
    seen: Notices,
    due: Option<Instant>,
    quiet_at: Option<Instant>,
    earliest: Instant,
    poll_at: Instant,
}

/// Why to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// Something may have changed.
    Sign,
    /// It has been a while.
    Poll,
}

impl Schedule {
    /// Looks at once: what was loaded may have changed since.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            seen: Notices::default(),
            due: Some(now),
            quiet_at: None,
            earliest: now,
            poll_at: now + POLL,
        }
    }

    /// Takes note of what has been noticed up to `now`.
    pub(super) fn note(&mut self, now: Instant, notices: Notices) {
        if notices.asked != self.seen.asked {
            self.hurry(now);
        }
        if notices.signs != self.seen.signs {
            self.quiet_at = notices.writing.then_some(now + QUIET);
            self.hurry(self.quiet_at.unwrap_or(now + SETTLE));
        }
        self.seen = notices;
    }

    fn hurry(&mut self, at: Instant) {
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }

    /// When to look, and why.
    pub(super) fn next(&self) -> (Instant, Look) {
        match self.quiet_at.or(self.due) {
            Some(at) => (at.max(self.earliest), Look::Sign),
            None => (self.poll_at, Look::Poll),
        }
    }

    /// Says that the look has begun.
    pub(super) fn begun(&mut self, now: Instant) {
        self.due = None;
        self.quiet_at = None;
        self.earliest = now + GAP;
        self.poll_at = now + POLL;
    }

    /// Says that a change was found without a sign of it, whose end will not be told either.
    pub(super) fn found(&mut self, now: Instant) {
        self.quiet_at = Some(now + QUIET);
        self.hurry(now + QUIET);
    }

    /// Says that what was seen changed meanwhile, so that the look counts for nothing.
    pub(super) fn again(&mut self, now: Instant) {
        self.due = Some(now);
        self.earliest = now + SETTLE;
    }
}

/// Signs of change from the file system, for as long as it is held.
#[derive(Debug)]
pub(super) struct Eyes {
    _watcher: Option<RecommendedWatcher>,
}

impl Eyes {
    /// Watches the folders of `paths`, which survive that a file is replaced.
    ///
    /// Without a working watch the files are still looked at from time to time.
    pub(super) fn open<'a>(
        paths: impl Iterator<Item = &'a Path>,
        notices: watch::Sender<Notices>,
    ) -> Self {
        let mut folders = BTreeSet::new();
        let mut names = BTreeSet::from([OsString::from("..data")]);
        for path in paths {
            let folder = path
                .parent()
                .filter(|folder| !folder.as_os_str().is_empty());
            folders.insert(folder.map_or_else(|| PathBuf::from("."), Path::to_owned));
            names.extend(path.file_name().map(OsString::from));
        }
        if folders.is_empty() {
            return Self { _watcher: None };
        }
        let opened = notify::recommended_watcher(move |event: notify::Result<Event>| {
            if let Some(writing) = event.ok().and_then(|event| judge(&event, &names)) {
                notices.send_modify(|notices| notices.sign(writing));
            }
        });
        let opened = opened.and_then(|mut watcher| {
            for folder in folders.iter().filter(|folder| folder.is_dir()) {
                watcher.watch(folder, RecursiveMode::NonRecursive)?;
            }
            Ok(watcher)
        });
        let watcher = opened.inspect_err(|error| {
            tracing::warn!(%error, interval = ?POLL, "configuration files are polled");
        });
        Self {
            _watcher: watcher.ok(),
        }
    }
}

/// Whether an event is a sign of change, and if so, whether a write still goes on.
///
/// Reading a file is an event too, and so is what a log beside it does: neither is a sign.
fn judge(event: &Event, names: &BTreeSet<OsString>) -> Option<bool> {
    if event.need_rescan() {
        return Some(false);
    }
    let ours = |path: &PathBuf| path.file_name().is_some_and(|name| names.contains(name));
    if !event.paths.iter().any(ours) {
        return None;
    }
    match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write))
        | EventKind::Modify(ModifyKind::Name(RenameMode::To | RenameMode::Both)) => Some(false),
        EventKind::Access(_)
        | EventKind::Modify(ModifyKind::Metadata(MetadataKind::AccessTime)) => None,
        // A change of who may read it.
        EventKind::Modify(ModifyKind::Metadata(_)) => Some(false),
        // A name that goes away comes back at once where an editor replaces the file.
        EventKind::Any
        | EventKind::Create(_)
        | EventKind::Modify(_)
        | EventKind::Remove(_)
        | EventKind::Other => Some(true),
    }
}
