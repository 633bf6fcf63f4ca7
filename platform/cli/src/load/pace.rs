//! When calls are sent: at a given rate whatever becomes of them, or one as another ends.
//!
//! At a constant rate call `k` is due at `k / rate` after the beginning; `rates` says when it is where
//! the rate changes. What the server, or this program, does meanwhile moves no later call: all that
//! came due are sent as soon as possible, and their latency counts from when they were due. A measurement that waited for the server
//! instead would leave out just the calls that a stall hits ("coordinated omission").

use std::{cell::RefCell, future::Future, pin::pin, time::Duration};

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::{
    sync::mpsc,
    time::{self, Instant, MissedTickBehavior},
};

use super::{
    exchange::Ended,
    rates::Rates,
    tally::{Due, Tally},
};

/// Calls sent before those in flight are looked at again.
const BATCH: usize = 64;

/// How often progress is told.
const TELL: Duration = Duration::from_secs(1);

/// How a run is paced.
#[derive(Debug, Clone)]
pub(crate) enum Pace {
    /// So many calls per second, however long they take.
    Open {
        rates: Rates,
        /// A call that comes due while so many are in flight is not sent.
        in_flight_max: usize,
    },
    /// So many calls at a time, each sent when another has ended.
    Closed { concurrency: usize },
}

/// When a run ends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Calls are sent for so long.
    pub(crate) duration: Option<Duration>,
    /// So many calls are due.
    pub(crate) count: Option<u64>,
    /// How long calls in flight may take once no more are sent; what is left is cut.
    pub(crate) linger: Duration,
}

/// What is called.
pub(crate) trait Calls {
    /// Chooses the method of call `number`, and prepares it. Nothing is sent before the future is
    /// polled.
    fn prepare(&mut self, number: u64) -> (usize, impl Future<Output = Ended> + use<Self>);
}

/// How a run came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Finished {
    /// Somebody cut it short.
    pub(crate) interrupted: bool,
    /// How long calls were sent.
    pub(crate) sending: Duration,
}

/// Sends calls as `pace` and `limits` say, and writes into `tally` what becomes of them.
///
/// The first message of `interrupts` ends the sending, the second cuts what is in flight. `tell`
/// is called each second, `sent` once no more calls are sent.
pub(crate) async fn run<C: Calls>(
    pace: &Pace,
    limits: Limits,
    calls: &mut C,
    tally: &RefCell<Tally>,
    interrupts: &mut mpsc::Receiver<()>,
    mut tell: impl FnMut(&mut Tally),
    sent: impl FnOnce(),
) -> Finished {
    let began = tally.borrow().began;
    let mut schedule = Schedule {
        pace,
        limits,
        began,
        number: 0,
    };
    let mut in_flight = FuturesUnordered::new();
    let mut ticker = time::interval_at(began + TELL, TELL);
    ticker.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut timer = pin!(time::sleep_until(began));
    let mut interrupted = false;
    // Since when no more calls are sent.
    let mut ended: Option<Instant> = None;
    let mut sent = Some(sent);
    for turn in 1_usize.. {
        if turn.is_multiple_of(BATCH) {
            // The connections run on this thread too.
            tokio::task::yield_now().await;
        }
        if ended.is_none() {
            let next = schedule.advance(in_flight.len(), tally, |number, at| {
                let (method, call) = calls.prepare(number);
                in_flight.push(measured(Due { method, at }, call, tally));
            });
            timer.as_mut().reset(next.unwrap_or_else(|| {
                let now = Instant::now();
                ended = Some(now);
                if let Some(sent) = sent.take() {
                    sent();
                }
                now + limits.linger
            }));
        }
        if ended.is_some() && in_flight.is_empty() {
            break;
        }
        tokio::select! {
            biased;
            Some(()) = interrupts.recv() => {
                if interrupted {
                    break;
                }
                interrupted = true;
                schedule.limits.count = Some(0);
            }
            _ = ticker.tick() => tell(&mut tally.borrow_mut()),
            Some(()) = in_flight.next() => {}
            () = &mut timer => {
                if ended.is_some() {
                    break;
                }
            }
        }
    }
    Finished {
        interrupted,
        sending: ended.unwrap_or_else(Instant::now) - began,
    }
}

/// One call, written down when it is sent and when it has ended. One that is dropped in between
/// stays open in the books.
async fn measured(due: Due, call: impl Future<Output = Ended>, tally: &RefCell<Tally>) {
    let sent = Instant::now();
    tally.borrow_mut().sent(due, sent);
    let ended = call.await;
    tally.borrow_mut().ended(due, sent, Instant::now(), ended);
}

/// Which call is next, and when.
#[derive(Debug)]
struct Schedule<'a> {
    pace: &'a Pace,
    limits: Limits,
    began: Instant,
    /// The next call.
    number: u64,
}

/// What to do now.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// The call of this number, which was due at this time.
    Send(u64, Instant),
    /// There is no place for the call due at this time.
    Drop(Instant),
    /// Nothing, until then or until a call has ended.
    Wait(Instant),
    /// Nothing any more.
    End,
}

impl Schedule<'_> {
    /// Sends what is due by `send`, but for the next look at what is in flight. Returns when to go
    /// on, or none if everything has been sent.
    fn advance(
        &mut self,
        mut in_flight: usize,
        tally: &RefCell<Tally>,
        mut send: impl FnMut(u64, Instant),
    ) -> Option<Instant> {
        for _ in 0..BATCH {
            match self.next(in_flight) {
                Next::Send(number, at) => {
                    in_flight += 1;
                    send(number, at);
                }
                Next::Drop(at) => tally.borrow_mut().dropped(at),
                Next::Wait(until) => return Some(until),
                Next::End => return None,
            }
        }
        Some(Instant::now())
    }

    /// The next step at this moment, with `in_flight` calls on their way.
    fn next(&mut self, in_flight: usize) -> Next {
        let now = Instant::now();
        if self.limits.count.is_some_and(|count| self.number >= count) {
            return Next::End;
        }
        match self.pace {
            Pace::Open {
                rates,
                in_flight_max,
            } => {
                let Some(due) = self.due(rates) else {
                    return Next::End;
                };
                if due > now {
                    return Next::Wait(due);
                }
                self.number += 1;
                if in_flight >= *in_flight_max {
                    return Next::Drop(due);
                }
                Next::Send(self.number - 1, due)
            }
            Pace::Closed { concurrency } => {
                let end = self.limits.duration.map(|duration| self.began + duration);
                if end.is_some_and(|end| now >= end) {
                    return Next::End;
                }
                if in_flight >= *concurrency {
                    return Next::Wait(end.unwrap_or(now + TELL));
                }
                self.number += 1;
                Next::Send(self.number - 1, now)
            }
        }
    }

    /// When the next call is due; none if the run is over by then.
    fn due(&self, rates: &Rates) -> Option<Instant> {
        let offset = rates.due(self.number)?;
        let within = self
            .limits
            .duration
            .is_none_or(|duration| offset < duration);
        within.then(|| self.began + offset)
    }
}

#[cfg(test)]
mod tests;
