//! A short line of calls that wait for a place.
//!
//! It evens out that calls do not come evenly, and no more: where somebody has been waiting for all of
//! the last [`Rules::interval`], more comes than can be served. Then the line would only make everybody
//! late. So it turns: whoever came last is served first, as it still has the time, and who has waited for
//! [`Rules::target`] is refused. Once the line is empty it is as before.
//!
//! Calls that matter more are served first, and take the room of those that matter less. Dropping
//! [`Waiting`] gives its room up, and a place that was just given to it.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    sync::oneshot,
    time::{Instant, Sleep, sleep_until},
};

use crate::caller::Criticality;

/// How long calls may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// How many at once.
    pub calls_max: usize,
    /// How long each, where somebody has been waiting for all of `interval`.
    pub target: Duration,
    /// For how long somebody may be waiting until then.
    pub interval: Duration,
}

/// Why a call does not wait, or does so no longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refused {
    /// As many wait as may.
    #[error("as many calls wait as may")]
    Full,
    /// One that matters more took the room.
    #[error("a call that matters more took the room")]
    Displaced,
    /// The line stands, and the call has waited for as long as it may then.
    #[error("it waited in a line that has been standing")]
    Overdue,
}

/// A line of calls that wait for a `T`; clones are the same line.
#[derive(Debug)]
pub struct Queue<T> {
    shared: Arc<Shared<T>>,
}

impl<T> Clone for Queue<T> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self {
            shared: Arc::new(Shared {
                length: AtomicUsize::new(0),
                line: Mutex::new(Line::default()),
            }),
        }
    }
}

#[derive(Debug)]
struct Shared<T> {
    /// How many wait, for those who do not want the lock.
    length: AtomicUsize,
    line: Mutex<Line<T>>,
}

#[derive(Debug)]
struct Line<T> {
    /// By criticality, each in the order they came.
    waiting: [VecDeque<Waiter<T>>; Criticality::ALL.len()],
    last: u64,
    /// Since when somebody waits.
    standing: Option<Instant>,
}

impl<T> Default for Line<T> {
    fn default() -> Self {
        Self {
            waiting: Default::default(),
            last: 0,
            standing: None,
        }
    }
}

#[derive(Debug)]
struct Waiter<T> {
    id: u64,
    told: oneshot::Sender<Result<T, Refused>>,
}

impl<T> Queue<T> {
    /// Whether nobody waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.shared.length.load(SeqCst) == 0
    }

    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shared.length.load(SeqCst)
    }

    /// Joins the line. Whoever joins calls [`Queue::serve`] then: there may have been a place before
    /// anybody saw that it is wanted.
    ///
    /// # Errors
    ///
    /// If there is no room, and nobody in it who matters less.
    pub fn join(&self, criticality: Criticality, rules: Rules) -> Result<Waiting<T>, Refused> {
        let now = Instant::now();
        let mut line = self.shared.lock();
        let displaced = if line.len() < rules.calls_max {
            None
        } else {
            Some(line.displace(criticality).ok_or(Refused::Full)?)
        };
        line.last += 1;
        let id = line.last;
        let standing = *line.standing.get_or_insert(now);
        let (told, tell) = oneshot::channel();
        line.waiting[criticality as usize].push_back(Waiter { id, told });
        self.shared.publish(&mut line);
        if let Some(displaced) = displaced {
            // It may be gone already.
            drop(displaced.told.send(Err(Refused::Displaced)));
        }
        drop(line);
        let due = (now + rules.target).max(standing + rules.interval);
        Ok(Waiting {
            shared: Arc::clone(&self.shared),
            tell,
            ticket: Ticket {
                id,
                criticality,
                since: now,
                rules,
            },
            timer: Box::pin(sleep_until(due)),
        })
    }

    /// Gives what `take` has for calls of a criticality to those who wait, until it has nothing more
    /// for any of them.
    pub fn serve(&self, rules: Rules, mut take: impl FnMut(Criticality) -> Option<T>) {
        // What nobody takes is dropped without the lock: that may serve again.
        let mut left = Vec::new();
        let mut line = self.shared.lock();
        let stands = line.stands(rules, Instant::now());
        for criticality in Criticality::ALL.into_iter().rev() {
            let waiting = &mut line.waiting[criticality as usize];
            while !waiting.is_empty() {
                let Some(taken) = take(criticality) else {
                    break;
                };
                left.extend(give(waiting, taken, stands));
            }
        }
        self.shared.publish(&mut line);
        drop(line);
        drop(left);
    }
}

/// Gives `taken` to the next; back where all that were left are gone.
fn give<T>(waiting: &mut VecDeque<Waiter<T>>, mut taken: T, stands: bool) -> Option<T> {
    loop {
        let next = if stands {
            waiting.pop_back()
        } else {
            waiting.pop_front()
        };
        let Some(next) = next else {
            return Some(taken);
        };
        match next.told.send(Ok(taken)) {
            // It went away and has not said so yet.
            Err(Ok(back)) => taken = back,
            Ok(()) | Err(Err(_)) => return None,
        }
    }
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, Line<T>> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of who has come or gone.
    fn publish(&self, line: &mut Line<T>) {
        let length = line.len();
        if length == 0 {
            line.standing = None;
        }
        self.length.store(length, SeqCst);
    }
}

impl<T> Line<T> {
    fn len(&self) -> usize {
        self.waiting.iter().map(VecDeque::len).sum()
    }

    /// Whether somebody has been waiting for too long.
    fn stands(&self, rules: Rules, now: Instant) -> bool {
        self.standing
            .is_some_and(|since| since + rules.interval <= now)
    }

    /// Takes out the last of those who matter least, if they matter less than `criticality`.
    fn displace(&mut self, criticality: Criticality) -> Option<Waiter<T>> {
        let less = &mut self.waiting[..criticality as usize];
        less.iter_mut().find_map(VecDeque::pop_back)
    }

    /// Takes out one, wherever it stands.
    fn leave(&mut self, ticket: &Ticket) {
        self.waiting[ticket.criticality as usize].retain(|waiter| waiter.id != ticket.id);
    }
}

/// Somebody's place in the line.
#[derive(Debug)]
struct Ticket {
    id: u64,
    criticality: Criticality,
    since: Instant,
    rules: Rules,
}

/// A call that waits; dropped, it does so no longer.
#[derive(Debug)]
pub struct Waiting<T> {
    shared: Arc<Shared<T>>,
    tell: oneshot::Receiver<Result<T, Refused>>,
    ticket: Ticket,
    timer: Pin<Box<Sleep>>,
}

impl<T> Waiting<T> {
    /// Leaves the line if the time is over, else says when that is to be looked at again. Nothing of
    /// both where it was served meanwhile.
    fn look(&self) -> Option<Result<Instant, Refused>> {
        let Ticket { since, rules, .. } = self.ticket;
        let now = Instant::now();
        let mut line = self.shared.lock();
        let standing = line.standing?;
        let due = (since + rules.target).max(standing + rules.interval);
        if now < due {
            return Some(Ok(due));
        }
        let before = line.len();
        line.leave(&self.ticket);
        let left = line.len() < before;
        self.shared.publish(&mut line);
        left.then_some(Err(Refused::Overdue))
    }
}

impl<T> Future for Waiting<T> {
    type Output = Result<T, Refused>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            if let Poll::Ready(told) = Pin::new(&mut self.tell).poll(cx) {
                // A line is not dropped while somebody waits in it.
                return Poll::Ready(told.unwrap_or(Err(Refused::Displaced)));
            }
            ready!(self.timer.as_mut().poll(cx));
            match self.look() {
                Some(Ok(due)) => self.timer.as_mut().reset(due),
                Some(Err(refused)) => return Poll::Ready(Err(refused)),
                // What it was told is there now.
                None => {}
            }
        }
    }
}

impl<T> Drop for Waiting<T> {
    fn drop(&mut self) {
        let mut line = self.shared.lock();
        line.leave(&self.ticket);
        self.shared.publish(&mut line);
    }
}

#[cfg(test)]
mod tests;
