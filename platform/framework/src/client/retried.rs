//! A call whose attempts follow each other.

use std::{net::SocketAddr, ops::ControlFlow, time::Duration};

use http::request::Parts;
use tokio::time::{self, Instant};
use tonic::Status;

use super::{
    Answered, Call,
    attempt::{Asked, Begun, Outcome},
    repeats::Repeats,
    timer::Timer,
};
use crate::{
    deadline::Deadline,
    retry::{Circumstances, Course, Failure, Next, Way},
    telemetry::rpc::Try,
    transport::subchannel::Outgoing,
};

/// What a call remembers of attempts that failed; a call that succeeds at once makes none.
#[derive(Default)]
struct Memory {
    course: Course,
    tried: Vec<SocketAddr>,
    delay: Duration,
}

impl Call {
    /// Makes attempts until one is answered, or fails and is not to be tried again: its failure
    /// is then the call's, as it is.
    pub(super) async fn retried(
        &self,
        deadline: Option<Deadline>,
        head: &mut Parts,
        outgoing: &mut Outgoing,
    ) -> Result<Answered, Status> {
        let mut timer = Timer::new(deadline);
        let mut memory = Memory::default();
        let mut repeats = Repeats::default();
        let (mut which, mut at) = (Try::First, self.began);
        loop {
            let asked = Asked {
                which,
                at,
                previous: memory.course.previous(),
                tried: &memory.tried,
                deadline,
            };
            let attempt = self.attempt(head, outgoing, &mut timer, asked, &mut repeats, |_| {});
            // Apart: a future over a thousand bytes is too large for the allocator's own caches, and
            // costs more than two small ones.
            let outcome = Box::pin(attempt).await;
            // What ended is gone before the pause: it is large.
            let pause = match self.next(outcome, &mut memory, deadline, outgoing) {
                ControlFlow::Break(Ok(begun)) => return Ok(Answered { begun, timer }),
                ControlFlow::Break(Err(status)) => return Err(status),
                ControlFlow::Continue(pause) => pause,
            };
            // It ends before the deadline: nothing else has to be waited for.
            Box::pin(time::sleep(pause)).await;
            (which, at) = (Try::Retry, Instant::now());
        }
    }

    /// What becomes of a call after an attempt: it ends, or there is another one after a pause.
    fn next(
        &self,
        outcome: Outcome,
        memory: &mut Memory,
        deadline: Option<Deadline>,
        outgoing: &mut Outgoing,
    ) -> ControlFlow<Result<Box<Begun>, Status>, Duration> {
        let failure = self.failure(&outcome);
        let pause = failure.and_then(|failure| self.after(failure, memory, deadline, outgoing));
        let Some(pause) = pause else {
            if !memory.delay.is_zero() {
                self.measured.delayed(memory.delay);
            }
            return ControlFlow::Break(outcome.map_err(|broken| broken.status));
        };
        match outcome {
            Ok(begun) => {
                memory.tried.push(begun.sent.addr());
                begun.give_up(&self.throttle);
            }
            Err(broken) => memory.tried.extend(broken.addr),
        }
        let _: bool = outgoing.rewind();
        memory.delay += pause;
        ControlFlow::Continue(pause)
    }

    fn failure(&self, outcome: &Outcome) -> Option<Failure> {
        if self.way == Way::Once {
            return None;
        }
        match outcome {
            Ok(begun) => begun.failure(),
            Err(broken) => broken.failure(),
        }
    }

    /// The pause before another attempt, if there is to be one.
    fn after(
        &self,
        failure: Failure,
        memory: &mut Memory,
        deadline: Option<Deadline>,
        outgoing: &Outgoing,
    ) -> Option<Duration> {
        let circumstances = Circumstances {
            in_retry: self.in_retry,
            replayable: outgoing.is_replayable(),
            left: deadline.map(Deadline::remaining),
        };
        let (policy, allowance) = (&self.retry, &self.target.allowance);
        let course = &mut memory.course;
        match course.after(failure, policy, circumstances, allowance, Instant::now()) {
            Next::Retry(pause) => Some(pause),
            Next::Stop(_) => None,
        }
    }
}
