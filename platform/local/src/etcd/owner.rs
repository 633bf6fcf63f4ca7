//! The one task that owns the state; everything else [asks](crate::ask) it. Watchers are told what
//! is on disk.

use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use super::{
    engine::{Bounds, Engine, Journal},
    lease::Clock,
    store::{Identity, Store},
};
use crate::{
    StoreError,
    ask::{self, Questions, Stopped},
};

/// Leases that end in one go; the rest follow at once.
const EXPIRE_MAX: usize = 512;

/// What the owner owns.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) engine: Engine,
    pub(crate) clock: Clock,
    pub(crate) identity: Identity,
    /// None while nothing is kept.
    pub(crate) store: Option<Store>,
    /// Changes and grants since the start, for those who like to see a number grow.
    pub(crate) index: u64,
}

/// Asks the owner; clones ask the same one.
#[derive(Debug, Clone)]
pub(crate) struct Asker {
    owner: ask::Asker<State>,
    revision: watch::Receiver<i64>,
}

impl Asker {
    /// Has the owner do `work`, and answers when what it changed is on disk.
    ///
    /// Dropping this future does not undo it: once asked, it is done.
    pub(crate) async fn ask<T, F>(&self, work: F) -> Result<T, Stopped>
    where
        T: Send + 'static,
        F: FnOnce(&mut State) -> T + Send + 'static,
    {
        self.owner.ask(work).await
    }

    /// The revision that is on disk; changes with each write.
    pub(crate) fn revision(&self) -> watch::Receiver<i64> {
        self.revision.clone()
    }
}

/// The task's part.
#[derive(Debug)]
pub(crate) struct Owner {
    state: State,
    history: Bounds,
    questions: Questions<State>,
    revision: watch::Sender<i64>,
}

impl Owner {
    /// An owner of `state`, and how to ask it. Every lease begins anew, with its whole time.
    pub(crate) fn new(mut state: State, history: Bounds) -> (Self, Asker) {
        let now = Instant::now();
        state.clock = Clock::new(now);
        for (id, ttl) in state.engine.leases() {
            state.clock.start(id, ttl, now);
        }
        let (owner, questions) = ask::channel();
        let (revision, seen) = watch::channel(state.engine.revision());
        let asker = Asker {
            owner,
            revision: seen,
        };
        let owner = Self {
            state,
            history,
            questions,
            revision,
        };
        (owner, asker)
    }

    /// Carries out what is asked until nobody can ask any more.
    ///
    /// # Errors
    ///
    /// If the disk fails. What was not written then was not answered either.
    pub(crate) async fn run(mut self) -> Result<(), StoreError> {
        loop {
            // Both arms are cancel-safe: what was not received stays in the channel.
            tokio::select! {
                asked = self.questions.wait() => if !asked {
                    return Ok(());
                },
                () = sleep_until(self.state.clock.next_look()) => {}
            }
            self.look_at_the_time();
            let answers = self.questions.carry_out(&mut self.state);
            self.expire();
            if let Some(revision) = self.state.engine.overdue(self.history) {
                // Between the last compaction and the last change, so it is not refused.
                let _ = self.state.engine.compact(revision);
            }
            self.write().await?;
            for answer in answers {
                answer();
            }
            let revision = self.state.engine.revision();
            self.revision.send_if_modified(|seen| {
                let changed = *seen != revision;
                *seen = revision;
                changed
            });
        }
    }

    fn look_at_the_time(&mut self) {
        if let Some(gap) = self.state.clock.look(Instant::now()) {
            tracing::warn!(
                seconds = gap.as_secs_f64(),
                "process did not run; leases extended by as much"
            );
        }
    }

    /// Ends the leases whose time is over: after what was asked, so that a lease that was kept
    /// alive in time lives on however late that is read.
    fn expire(&mut self) {
        let State { engine, clock, .. } = &mut self.state;
        for id in clock.ended(Instant::now()).into_iter().take(EXPIRE_MAX) {
            clock.stop(id);
            // The clock has only leases that the engine has.
            let _ = engine.revoke(id);
            tracing::debug!(lease = id, "lease expired");
        }
    }

    async fn write(&mut self) -> Result<(), StoreError> {
        let State {
            engine,
            store,
            index,
            ..
        } = &mut self.state;
        let journal = engine.take_journal();
        if journal.is_empty() {
            return Ok(());
        }
        *index += count(&journal);
        let Some(store) = store.clone() else {
            return Ok(());
        };
        let (revision, compacted) = (engine.revision(), engine.compacted());
        store.write(journal, revision, compacted).await
    }
}

fn count(journal: &Journal) -> u64 {
    let count = journal.changes.len() + journal.leases.len() + usize::from(journal.compacted);
    u64::try_from(count).unwrap_or(u64::MAX)
}
