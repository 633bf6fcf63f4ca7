//! A call of which several attempts are on their way at once.

use std::{
    net::SocketAddr,
    pin::pin,
    sync::{Mutex, PoisonError},
};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use http::request::Parts;
use tokio::time::{self, Instant};
use tonic::Status;

use super::{
    Answered, Call,
    attempt::{Asked, Begun, Broken, Repeats},
    timer::Timer,
};
use crate::{
    deadline::Deadline,
    retry::hedge::{Others, Plan},
    telemetry::rpc::Try,
    transport::subchannel::Outgoing,
};

/// One attempt that ended, and its clock.
type Ended = (Result<Begun, Broken>, Timer);

/// What all attempts of a call begin with.
struct Origin {
    deadline: Option<Deadline>,
    head: Parts,
    /// Where attempts went, those that are on their way included.
    tried: Mutex<Vec<SocketAddr>>,
}

impl Origin {
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
        mut head: Parts,
        mut outgoing: Outgoing,
    ) -> Result<Answered, Status> {
        let streams = self.method.is_none_or(|method| method.client_streaming);
        if self.in_retry || streams || !self.is_kept(deadline, &mut outgoing).await? {
            return self.retried(deadline, &mut head, &mut outgoing).await;
        }
        let origin = Origin {
            deadline,
            head,
            tried: Mutex::default(),
        };
        let (answered, timer) = self.race(&origin, outgoing).await;
        match answered {
            Ok(begun) => Ok(Answered { begun, timer }),
            Err(broken) => Err(broken.status),
        }
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
    async fn race(&self, origin: &Origin, kept: Outgoing) -> Ended {
        let (policy, allowance) = (&self.retry, &self.target.allowance);
        let mut plan = Plan::begin(policy, Instant::now());
        let mut running = FuturesUnordered::new();
        running.push(self.hedge(origin, kept.copy(), Try::First, 0));
        let mut last: Option<Ended> = None;
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
                        Some(ended) => return ended,
                        None => continue,
                    }
                }
            };
            let failure = match &ended.0 {
                Ok(begun) => begun.failure(),
                Err(broken) => broken.failure(),
            };
            let others = match failure {
                Some(failure) => plan.failed(failure, policy, allowance, Instant::now()),
                // One that could not even be sent says nothing of those that were.
                None if ended.0.is_err() && !running.is_empty() => Others::GoOn,
                None => Others::Cancelled,
            };
            let failed_before = last.replace(ended);
            if let Some((Ok(begun), _)) = failed_before {
                begun.give_up(&self.throttle);
            }
            let waits = plan.next().is_some_and(|next| {
                let fits = |deadline: Deadline| next < deadline.instant();
                origin.deadline.is_none_or(fits)
            });
            let over = others == Others::Cancelled || (running.is_empty() && !waits);
            if let Some(ended) = last.take_if(|_| over) {
                return ended;
            }
        }
    }

    async fn hedge(
        &self,
        origin: &Origin,
        mut outgoing: Outgoing,
        which: Try,
        previous: u8,
    ) -> Ended {
        let mut timer = Timer::new(origin.deadline);
        let mut head = origin.head.clone();
        let tried = origin.tried().clone();
        let asked = Asked {
            which,
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
        (outcome, timer)
    }
}
