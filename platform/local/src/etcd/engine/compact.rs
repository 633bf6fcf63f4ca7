//! Forgetting: history before a revision.

use super::{Engine, Refusal, Version};

impl Engine {
    /// Forgets what was before `revision`. What a key was at `revision` stays, and so do the
    /// deletions of that very revision: a watch may still begin there.
    ///
    /// # Errors
    ///
    /// If that is done already, or the revision is not yet there.
    pub(crate) fn compact(&mut self, revision: i64) -> Result<(), Refusal> {
        if revision <= self.compacted {
            return Err(Refusal::Compacted);
        }
        if revision > self.revision {
            return Err(Refusal::FutureRevision);
        }
        let mut dropped = Vec::new();
        let mut freed = 0;
        self.keys.retain(|key, versions| {
            let from = first_kept(versions, revision);
            for version in versions.drain(..from) {
                freed += version.cost(key);
                dropped.push(version.place);
            }
            !versions.is_empty()
        });
        let old = self
            .log
            .partition_point(|change| change.place.revision < revision);
        self.log.drain(..old);
        self.size -= freed;
        self.compacted = revision;
        self.journal.compacted = true;
        self.journal.dropped.append(&mut dropped);
        Ok(())
    }

    /// The revision to compact to so that history stays within bounds, where it is beyond them by
    /// a quarter: forgetting is cheaper done seldom.
    pub(crate) fn overdue(&self, revisions_max: i64) -> Option<i64> {
        let kept = self.revision - self.compacted.max(1);
        (kept > revisions_max + revisions_max / 4).then(|| self.revision - revisions_max)
    }

    /// Before which revision history is gone; -1 for none.
    pub(crate) fn compacted(&self) -> i64 {
        self.compacted
    }
}

/// The index of the oldest version that someone may still ask for.
fn first_kept(versions: &[Version], revision: i64) -> usize {
    let later = versions.partition_point(|version| version.place.revision <= revision);
    let Some(last) = later.checked_sub(1) else {
        return 0;
    };
    let Version { place, value } = &versions[last];
    if value.is_none() && place.revision < revision {
        later
    } else {
        last
    }
}
