//! A call's clock: one timer from its first wait to the end of its answer.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    task::{Context, Poll},
};

use tokio::time::{self, Sleep};
use tonic::Code;

use crate::deadline::Deadline;

/// Ends when the deadline passes, if there is one.
#[derive(Debug)]
pub(super) struct Timer {
    deadline: Option<Deadline>,
    sleep: Option<Pin<Box<Sleep>>>,
}

/// The deadline passed first.
#[derive(Debug)]
pub(super) struct Passed;

impl Timer {
    pub(super) fn new(deadline: Option<Deadline>) -> Self {
        Self {
            deadline,
            sleep: None,
        }
    }

    /// Runs `future` until it is done or the deadline passes, and drops it then.
    pub(super) async fn bound<F: Future>(&mut self, future: F) -> Result<F::Output, Passed> {
        let mut future = pin!(future);
        poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Ok(output)),
            Poll::Pending => self.poll_passed(cx).map(|()| Err(Passed)),
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
