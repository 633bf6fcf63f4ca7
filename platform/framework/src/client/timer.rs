//! A call's clock: one timer from its first wait to the end of its answer.

use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{self, Sleep};
use tonic::Code;

use crate::{
    deadline::Deadline,
    transport::subchannel::{Outgoing, Replayable},
};

/// Ends when the deadline passes, if there is one.
#[derive(Debug)]
pub(super) struct Timer {
    deadline: Option<Deadline>,
    sleep: Option<Pin<Box<Sleep>>>,
}

/// How long an attempt may take, as long as there may be another one after it: one whose request is
/// too large to be sent again would be given up for nothing.
pub(super) struct Patience {
    time: Duration,
    replayable: Replayable,
}

impl Patience {
    pub(super) fn new(time: Duration, outgoing: &mut Outgoing) -> Self {
        Self {
            time,
            replayable: outgoing.follow_replayable(),
        }
    }
}

/// The time passed first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Passed {
    /// That of the call.
    Deadline,
    /// That of the attempt.
    Attempt,
}

impl Timer {
    pub(super) fn new(deadline: Option<Deadline>) -> Self {
        Self {
            deadline,
            sleep: None,
        }
    }

    /// Runs `future` until it is done or the deadline passes. Pinned by its owner, who has it once;
    /// taken by value it would be kept twice.
    pub(super) async fn bound<F: Future>(
        &mut self,
        future: Pin<&mut F>,
    ) -> Result<F::Output, Passed> {
        self.bound_within(None, future).await
    }

    /// The same, and no longer than `patience` says.
    pub(super) async fn bound_within<F: Future>(
        &mut self,
        patience: Option<Patience>,
        mut future: Pin<&mut F>,
    ) -> Result<F::Output, Passed> {
        let alarm =
            |patience: Patience| (Box::pin(time::sleep(patience.time)), patience.replayable);
        let mut attempt = patience.map(alarm);
        poll_fn(|cx| {
            if let Poll::Ready(output) = future.as_mut().poll(cx) {
                return Poll::Ready(Ok(output));
            }
            // First, so that an attempt that has all the time of its call ends with it.
            if self.poll_passed(cx).is_ready() {
                return Poll::Ready(Err(Passed::Deadline));
            }
            let Some((alarm, replayable)) = &mut attempt else {
                return Poll::Pending;
            };
            ready!(alarm.as_mut().poll(cx));
            if replayable.is_so() {
                return Poll::Ready(Err(Passed::Attempt));
            }
            attempt = None;
            Poll::Pending
        })
        .await
    }

    /// Ready once the deadline has passed. The timer is made by the first wait: a call that never
    /// waits needs none.
    pub(super) fn poll_passed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(deadline) = self.deadline else {
            return Poll::Pending;
        };
        self.sleep
            .get_or_insert_with(|| Box::pin(time::sleep_until(deadline.instant())))
            .as_mut()
            .poll(cx)
    }

    /// Whether `code` is how a peer says that the deadline passed: one that gives up at that
    /// moment resets its stream with CANCEL, and may be heard before the timer is.
    pub(super) fn explains(&self, code: Code) -> bool {
        code == Code::Cancelled && self.has_passed()
    }

    /// Whether it has passed, for a caller that never waits.
    pub(super) fn has_passed(&self) -> bool {
        self.deadline.is_some_and(Deadline::has_passed)
    }
}
