//! A call of which several attempts are on their way at once.

use std::{
    net::SocketAddr,
    pin::pin,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use http::request::Parts;
use tokio::time::{self, Instant};
use tonic::Status;

use super::{
    Answered, Call,
    attempt::{Asked, Outcome},
    repeats::Repeats,
    timer::Timer,
};
use crate::{
    deadline::Deadline,
    limit::throttle::Throttle,
    retry::{
        Failure, Latencies,
        hedge::{Others, Plan},
    },
    telemetry::rpc::Try,
    transport::subchannel::Outgoing,
};

/// One attempt that ended, and its clock.
struct Ended {
    which: Try,
    outcome: Outcome,
    timer: Timer,
}

/// What all attempts of a call begin with.
struct Origin<'a> {
    deadline: Option<Deadline>,
    head: &'a Parts,
    /// Where attempts went, those that are on their way included.
    tried: Mutex<Vec<SocketAddr>>,
}

impl Origin<'_> {
    fn tried(&self) -> std::sync::MutexGuard<'_, Vec<SocketAddr>> {
        self.tried.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Call {
    /// Sends the call to one instance after the other, until one of them answers. The others are
    /// dropped then, and their streams reset.
    ///
    /// A request that is too large to be kept, and one that comes in parts, is sent to one at a time.
    pub(super) async fn hedged(
        &self,
        deadline: Option<Deadline>,
        head: &mut Parts,
        outgoing: &mut Outgoing,
    ) -> Result<Answered, Status> {
        let streams = self.method.is_none_or(|method| method.client_streaming);
        if self.in_retry || streams || !self.is_kept(deadline, outgoing).await? {
            return self.retried(deadline, head, outgoing).await;
        }
        let origin = Origin {
            deadline,
            head,
            tried: Mutex::default(),
        };
        self.race(&origin, outgoing).await
    }

    async fn is_kept(
        &self,
        deadline: Option<Deadline>,
        outgoing: &mut Outgoing,
    ) -> Result<bool, Status> {
        match Timer::new(deadline).bound(pin!(outgoing.fill())).await {
            Ok(kept) => kept,
            Err(_) => Err(self.too_late("reading the request")),
        }
    }

    /// `kept` holds the whole request.
    async fn race(&self, origin: &Origin<'_>, kept: &mut Outgoing) -> Result<Answered, Status> {
        let (policy, allowance) = (&self.retry, &self.target.allowance);
        let mut first = First::begin(self.latencies.as_deref());
        let mut plan = Plan::begin(policy, first.p95(), first.began);
        let mut running = FuturesUnordered::new();
        running.push(self.hedge(origin, kept.copy(), Try::First, 0));
        let mut last: Option<Status> = None;
        loop {
            let next = plan.next();
            let ended = tokio::select! {
                // Both are looked at anew in each round.
                biased;
                Some(ended) = running.next(), if !running.is_empty() => ended,
                () = time::sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {
                    let previous = plan.previous();
                    if plan.take(policy, allowance, Instant::now()) {
                        running.push(self.hedge(origin, kept.copy(), Try::Hedge, previous));
                    }
                    match last.take_if(|_| running.is_empty()) {
                        Some(status) => return Err(status),
                        None => continue,
                    }
                }
            };
            let failure = ended.failure();
            match failure {
                Some(_) if ended.which == Try::First => first.failed(),
                None if ended.outcome.is_ok() => first.outdone(Instant::now()),
                _ => {}
            }
            let others = match failure {
                Some(failure) => plan.failed(failure, policy, allowance, Instant::now()),
                // One that could not even be sent says nothing of those that were.
                None if ended.outcome.is_err() && !running.is_empty() => Others::GoOn,
                None => Others::Cancelled,
            };
            let waits = plan.next().is_some_and(|next| {
                let fits = |deadline: Deadline| next < deadline.instant();
                origin.deadline.is_none_or(fits)
            });
            if others == Others::Cancelled || (running.is_empty() && !waits) {
                return ended.answered();
            }
            // The others are waited for, and what failed holds no place meanwhile.
            last = Some(ended.give_up(&self.throttle));
        }
    }

    async fn hedge(
        &self,
        origin: &Origin<'_>,
        mut outgoing: Outgoing,
        which: Try,
        previous: u8,
    ) -> Ended {
        let mut timer = Timer::new(origin.deadline);
        let mut head = origin.head.clone();
        let tried = origin.tried().clone();
        let asked = Asked {
            which,
            at: Instant::now(),
            previous,
            tried: &tried,
            deadline: origin.deadline,
        };
        let note = |addr| origin.tried().push(addr);
        let mut repeats = Repeats::default();
        let outcome = self
            .attempt(
                &mut head,
                &mut outgoing,
                &mut timer,
                asked,
                &mut repeats,
                note,
            )
            .await;
        Ended {
            which,
            outcome,
            timer,
        }
    }
}

impl Ended {
    fn failure(&self) -> Option<Failure> {
        match &self.outcome {
            Ok(begun) => begun.failure(),
            Err(broken) => broken.failure(),
        }
    }

    /// It is how the call ends.
    fn answered(self) -> Result<Answered, Status> {
        let timer = self.timer;
        match self.outcome {
            Ok(begun) => Ok(Answered { begun, timer }),
            Err(broken) => Err(broken.status),
        }
    }

    /// It failed, and others are waited for: what is left of it is what it says.
    fn give_up(self, throttle: &Throttle) -> Status {
        match self.outcome {
            Ok(begun) => {
                let status = begun.status();
                begun.give_up(throttle);
                status
            }
            Err(broken) => broken.status,
        }
    }
}

/// The first attempt, by which it is known how long calls take: hedges are made of those that take
/// long, and say nothing of the others.
struct First<'a> {
    began: Instant,
    /// None where nobody wants to know, or nothing is learned of this one any more.
    latencies: Option<&'a Latencies>,
}

impl<'a> First<'a> {
    fn begin(latencies: Option<&'a Latencies>) -> Self {
        Self {
            began: Instant::now(),
            latencies,
        }
    }

    fn p95(&self) -> Option<Duration> {
        self.latencies.and_then(Latencies::p95)
    }

    /// How soon calls fail is no measure of how soon they are answered.
    fn failed(&mut self) {
        self.latencies = None;
    }

    /// It was answered, or is given up as another one was: it would have taken longer still, and left
    /// out it would make calls seem faster than they are.
    fn outdone(&self, now: Instant) {
        if let Some(latencies) = self.latencies {
            latencies.count(now - self.began);
        }
    }
}
