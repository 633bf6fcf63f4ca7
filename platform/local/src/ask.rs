//! Asking the one task that owns a state.
//!
//! ```text
//! calls ──Command──▶ owner: carry out all that waits ──▶ disk, one write ──▶ answers
//! ```
//!
//! What is asked is carried out in memory, in the order in which it came, as many requests as are
//! there; then all of it is written at once; only then is anyone answered, readers too. So nobody
//! ever sees what a crash could take back, and one write serves everyone who waits for it.

use std::fmt;

use tokio::sync::{mpsc, oneshot};

/// Requests that wait for the owner; more wait in their calls.
const QUEUE: usize = 256;

/// Requests carried out before one write.
const BATCH: usize = 256;

/// What the owner was asked.
type Command<S> = Box<dyn FnOnce(&mut S) -> Answer + Send>;

/// Tells whoever asked, once it is written.
pub(crate) type Answer = Box<dyn FnOnce() + Send>;

/// The state has no owner any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stopped;

/// Asks the owner of a state; clones ask the same one.
pub(crate) struct Asker<S> {
    commands: mpsc::Sender<Command<S>>,
}

impl<S> Clone for Asker<S> {
    fn clone(&self) -> Self {
        Self {
            commands: self.commands.clone(),
        }
    }
}

impl<S> fmt::Debug for Asker<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asker").finish_non_exhaustive()
    }
}

impl<S: 'static> Asker<S> {
    /// Has the owner do `work`, and answers when what it changed is on disk.
    ///
    /// Dropping this future does not undo it: once asked, it is done.
    pub(crate) async fn ask<T, F>(&self, work: F) -> Result<T, Stopped>
    where
        T: Send + 'static,
        F: FnOnce(&mut S) -> T + Send + 'static,
    {
        self.begin(work).await?.await.map_err(|_| Stopped)
    }

    /// As [`Asker::ask`], but ends once it is in line; what is received is the answer. Work that one
    /// caller begins is done in the order in which that caller began it.
    pub(crate) async fn begin<T, F>(&self, work: F) -> Result<oneshot::Receiver<T>, Stopped>
    where
        T: Send + 'static,
        F: FnOnce(&mut S) -> T + Send + 'static,
    {
        let (sender, receiver) = oneshot::channel();
        let command: Command<S> = Box::new(|state| {
            let answer = work(state);
            Box::new(|| {
                // Whoever asked may be gone.
                let _ = sender.send(answer);
            })
        });
        self.commands.send(command).await.map_err(|_| Stopped)?;
        Ok(receiver)
    }
}

/// What an owner is asked.
pub(crate) struct Questions<S> {
    commands: mpsc::Receiver<Command<S>>,
    waiting: Vec<Command<S>>,
}

impl<S> fmt::Debug for Questions<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Questions").finish_non_exhaustive()
    }
}

impl<S> Questions<S> {
    /// Waits until something is asked; false once nobody can ask any more. Cancel-safe.
    pub(crate) async fn wait(&mut self) -> bool {
        self.commands.recv_many(&mut self.waiting, BATCH).await > 0
    }

    /// Carries out what has been waited for; the answers are to be given once it is written.
    pub(crate) fn carry_out(&mut self, state: &mut S) -> Vec<Answer> {
        let asked = self.waiting.drain(..);
        asked.map(|command| command(state)).collect()
    }
}

/// Both ends.
pub(crate) fn channel<S>() -> (Asker<S>, Questions<S>) {
    let (sender, commands) = mpsc::channel(QUEUE);
    let questions = Questions {
        commands,
        waiting: Vec::with_capacity(BATCH),
    };
    (Asker { commands: sender }, questions)
}
