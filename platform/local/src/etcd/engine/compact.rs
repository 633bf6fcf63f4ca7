//! Forgetting: history before a revision.
//!
//! History is what a compaction could free: every version that another followed, and every
//! deletion. What it takes is counted as it comes, by the revision from which on a compaction
//! frees it, so that neither a write nor the choice of a revision walks the keys.

use std::collections::VecDeque;

use super::{Engine, Refusal, Version};

/// How much history is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// Revisions.
    pub(crate) revisions: i64,
    /// Bytes of keys and values, roughly.
    pub(crate) bytes: usize,
}

/// What history takes.
#[derive(Debug, Default)]
pub(super) struct Past {
    /// Bytes that a compaction to this revision frees beyond one to the revision before it.
    freed_at: VecDeque<(i64, usize)>,
    bytes: usize,
}

impl Past {
    /// So many bytes are freed by a compaction to `revision`, or to a later one.
    pub(super) fn add(&mut self, revision: i64, bytes: usize) {
        self.bytes += bytes;
        // A deletion adds to the revision after its own, so that may be there before its time.
        let later = self.freed_at.iter().rev();
        let later = later.take_while(|(at, _)| *at > revision).count();
        let place = self.freed_at.len() - later;
        match place.checked_sub(1).map(|last| &mut self.freed_at[last]) {
            Some((at, sum)) if *at == revision => *sum += bytes,
            _ => self.freed_at.insert(place, (revision, bytes)),
        }
    }

    /// History until `revision` was freed.
    fn free(&mut self, revision: i64) {
        while let Some((_, bytes)) = self.freed_at.pop_front_if(|(at, _)| *at <= revision) {
            self.bytes -= bytes;
        }
    }

    /// The first revision to which a compaction leaves no more than `bytes_max`.
    fn within(&self, bytes_max: usize) -> Option<i64> {
        let mut left = self.bytes;
        let mut revision = None;
        for (at, bytes) in &self.freed_at {
            if left <= bytes_max {
                break;
            }
            left -= bytes;
            revision = Some(*at);
        }
        revision
    }
}

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
        self.past.free(revision);
        self.compacted = revision;
        self.journal.compacted = true;
        self.journal.dropped.append(&mut dropped);
        Ok(())
    }

    /// The revision to compact to so that history stays within bounds, where it is beyond one of
    /// them by a quarter: forgetting is cheaper done seldom.
    pub(crate) fn overdue(&self, bounds: Bounds) -> Option<i64> {
        let Bounds { revisions, bytes } = bounds;
        let kept = self.revision - self.compacted.max(1);
        let long = kept > revisions + revisions / 4;
        let large = self.past.bytes > bytes + bytes / 4;
        let by_length = long.then(|| self.revision - revisions);
        // The last deletions are only freed by what comes after them.
        let by_size = self.past.within(bytes).filter(|_| large);
        let by_size = by_size.map(|revision| revision.min(self.revision));
        let revision = by_length.max(by_size)?;
        (revision > self.compacted).then_some(revision)
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

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use fastrand::Rng;

    use super::*;
    use crate::etcd::engine::{Delete, Put, Range};

    /// What the newest versions take: all that no compaction frees.
    fn present(engine: &Engine) -> usize {
        let newest = engine
            .keys
            .iter()
            .filter_map(|(key, all)| Some((key, all.last()?)));
        let there = newest.filter(|(_, version)| version.value.is_some());
        there.map(|(key, version)| version.cost(key)).sum()
    }

    /// Puts or deletes some key.
    fn change(engine: &mut Engine, random: &mut Rng) {
        let key = Bytes::from(format!("{}", random.u8(..8)));
        if random.u8(..4) == 0 {
            engine.delete(&Delete {
                range: Range::new(Bytes::from("0"), key.clone()),
                prev_kv: false,
            });
        }
        let put = Put {
            key,
            value: vec![0; random.usize(..1_000)].into(),
            lease: 0,
            prev_kv: false,
            ignore_value: false,
            ignore_lease: false,
        };
        engine.put(&put).expect("there is room");
    }

    /// Goal: what history takes is known without looking, and the revision chosen brings it
    /// within its bound with nothing forgotten beyond that.
    /// Method: random changes and compactions, counted anew after each; a compaction wherever one
    /// is due, and then one to the revision before would not have been enough.
    #[test]
    fn history_is_counted_as_it_comes() {
        let bounds = Bounds {
            revisions: 1_000_000,
            bytes: 20_000,
        };
        let mut compacted = 0;
        for seed in 0..20 {
            let mut random = Rng::with_seed(seed);
            let mut engine = Engine::new(usize::MAX);
            for _ in 0..500 {
                change(&mut engine, &mut random);
                if random.u8(..200) == 0 {
                    engine.compact(engine.revision()).expect("it is new");
                }
                assert_eq!(engine.size - present(&engine), engine.past.bytes, "{seed}");
                assert!(engine.past.bytes <= bounds.bytes / 4 * 5 + 10_000, "{seed}");
                let Some(revision) = engine.overdue(bounds) else {
                    continue;
                };
                compacted += 1;
                if revision - 1 > engine.compacted {
                    engine.compact(revision - 1).expect("it is due");
                    assert!(engine.past.bytes > bounds.bytes, "{seed}: too much");
                }
                engine.compact(revision).expect("it is due");
                assert!(engine.past.bytes <= bounds.bytes, "{seed}: too little");
            }
        }
        assert!(compacted > 100, "{compacted}");
    }
}
