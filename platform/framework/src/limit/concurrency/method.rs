//! The calls of one method.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::time::Instant;
use tonic::Status;

use super::{
    Mode, Policy, Refused,
    gradient::{Gradient, Sample},
    shares::Counts,
};
use crate::{
    caller::Criticality,
    config::Live,
    contract::Method,
    limit::{
        board::{Board, Count, Fill, Filled, Kind, number},
        queue::{self, Queue},
        throughput::Throughput,
    },
    telemetry::{metric::Held, platform::Concurrency},
};

/// More calls than there can be, of which percentages can be taken.
const UNBOUNDED: usize = usize::MAX >> 16;

/// Admits the calls of one method; clones share the count.
#[derive(Debug, Clone)]
pub struct Limiter {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    method: &'static str,
    policy: Live<Policy>,
    /// Whether its calls can be measured: a stream takes as long as its caller wants.
    measurable: bool,
    counts: Counts,
    gradient: Gradient,
    queue: Queue<Place>,
    throughput: Throughput,
    metrics: Concurrency,
    refused: Refused,
    /// Calls that the limit which is measured would have refused, were it held to.
    would_refuse: Count,
}

/// What becomes of a call that is not refused.
#[derive(Debug)]
pub enum Admission {
    /// It is let in.
    Admitted(Place),
    /// It may be, in a moment.
    Waits(Waiting),
}

impl Policy {
    fn queue(&self, limit: usize) -> queue::Rules {
        queue::Rules {
            calls_max: limit * self.queue_percent / 100,
            target: self.queue_target,
            interval: self.queue_interval,
        }
    }
}

impl Limiter {
    /// Holds calls of `method` to the `policy` of the moment. Its answers count in `throughput`.
    #[must_use]
    pub fn new(method: &'static Method, policy: Live<Policy>, throughput: Throughput) -> Self {
        let metrics = Concurrency::register(method.full_name());
        let gradient = Gradient::default();
        if method.is_unary() {
            policy.read(|policy| metrics.found(gradient.limit(policy.adaptive_max)));
        }
        Self {
            shared: Arc::new(Shared {
                method: method.full_name(),
                policy,
                measurable: method.is_unary(),
                counts: Counts::default(),
                gradient,
                queue: Queue::default(),
                throughput,
                metrics,
                refused: Refused::default(),
                would_refuse: Count::default(),
            }),
        }
    }

    /// Is seen on `board` from now on.
    pub fn show(&self, board: &Board) {
        board.show(&self.shared);
    }

    /// Lets a call in, or has it wait. How much it matters is asked for where that is of any matter.
    ///
    /// # Errors
    ///
    /// UNAVAILABLE if there is no room, neither among those in flight nor among those that wait.
    pub fn admit(&self, criticality: impl FnOnce() -> Criticality) -> Result<Admission, Status> {
        let shared = &self.shared;
        shared.policy.read(|policy| {
            if let Some(limit) = shared.limit(policy) {
                return self.admit_within(limit, policy, criticality());
            }
            let in_flight = shared.counts.add();
            shared.watch(policy, in_flight);
            Ok(Admission::Admitted(self.place(policy, None)))
        })
    }

    fn admit_within(
        &self,
        limit: usize,
        policy: &Policy,
        criticality: Criticality,
    ) -> Result<Admission, Status> {
        let shared = &self.shared;
        // Whoever comes passes nobody who waits, except by a share of its own.
        let taken = if shared.queue.is_empty() {
            shared.counts.take(criticality, limit, &policy.shares)
        } else {
            let counts = &shared.counts;
            counts.take_own(criticality, limit, &policy.shares)
        };
        if taken {
            return Ok(Admission::Admitted(self.place(policy, Some(criticality))));
        }
        let line = shared.queue.join(criticality, policy.queue(limit));
        let line = line.map_err(|_| self.refuse())?;
        let waiting = Waiting {
            line: Some(line),
            limiter: self.clone(),
            counted: Some(shared.metrics.wait()),
        };
        self.serve(policy);
        Ok(Admission::Waits(waiting))
    }

    /// Gives places to those who wait, as far as there are any.
    fn serve(&self, policy: &Policy) {
        let shared = &self.shared;
        // Without a limit any more, nobody shall go on waiting.
        let limit = shared.limit(policy).unwrap_or(UNBOUNDED);
        shared.queue.serve(policy.queue(limit), |criticality| {
            let taken = shared.counts.take(criticality, limit, &policy.shares);
            taken.then(|| self.place(policy, Some(criticality)))
        });
    }

    fn place(&self, policy: &Policy, criticality: Option<Criticality>) -> Place {
        Place {
            limiter: self.clone(),
            criticality,
            began: Instant::now(),
            adaptive_max: (policy.adaptive != Mode::Off).then_some(policy.adaptive_max),
            measured: false,
        }
    }

    fn refuse(&self) -> Status {
        let text = "too many calls of the method are in flight";
        self.shared.refused.refuse(text)
    }

    /// Calls in flight now.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.shared.counts.all()
    }

    /// Calls that wait now.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.shared.queue.len()
    }
}

impl Shared {
    /// How many may be in flight, if there is a bound.
    fn limit(&self, policy: &Policy) -> Option<usize> {
        let found = (policy.adaptive == Mode::On && self.measurable)
            .then(|| self.gradient.limit(policy.adaptive_max));
        match (policy.fixed(), found) {
            (Some(fixed), Some(found)) => Some(fixed.min(found)),
            (fixed, found) => fixed.or(found),
        }
    }

    /// Counts a call that was let in and would not be, if what is measured were held to. Those that
    /// would wait are in flight here.
    fn watch(&self, policy: &Policy, in_flight: usize) {
        if policy.adaptive != Mode::Shadow || !self.measurable {
            return;
        }
        let limit = self.gradient.limit(policy.adaptive_max);
        if in_flight > limit + policy.queue(limit).calls_max {
            self.metrics.would_refuse();
            self.would_refuse.add();
        }
    }

    fn fill(&self, kind: Kind, used: usize, max: Option<usize>) -> Fill {
        Fill {
            method: self.method.to_owned(),
            max: max.map(number),
            ..Fill::new(kind, number(used))
        }
    }
}

impl Filled for Shared {
    fn fills(&self, _now: Instant) -> Vec<Fill> {
        let in_flight = self.counts.all();
        self.policy.read(|policy| {
            let mut fills = vec![Fill {
                refused: self.refused.count.get(),
                ..self.fill(Kind::Concurrency, in_flight, policy.fixed())
            }];
            if policy.adaptive != Mode::Off && self.measurable {
                let found = self.gradient.limit(policy.adaptive_max);
                fills.push(Fill {
                    enforced: policy.adaptive == Mode::On,
                    would_refuse: self.would_refuse.get(),
                    ..self.fill(Kind::Adaptive, in_flight, Some(found))
                });
            }
            if let Some(limit) = self.limit(policy) {
                let room = policy.queue(limit).calls_max;
                fills.push(self.fill(Kind::Queue, self.queue.len(), Some(room)));
            }
            fills
        })
    }
}

/// The place of one call, until dropped.
#[derive(Debug)]
pub struct Place {
    limiter: Limiter,
    /// Whose share it is counted in; nobody's where there was no limit.
    criticality: Option<Criticality>,
    began: Instant,
    /// What a limit that is measured is at most, if one is.
    adaptive_max: Option<usize>,
    measured: bool,
}

/// How a call came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// The handler did what it does, whatever it said.
    Worked,
    /// It failed, or was given up.
    Failed,
}

impl Place {
    /// The handler has answered; `worked` is whether it did what it does, although that may be to say
    /// no. How long that took says how much there is to do.
    pub fn answered(&mut self, worked: bool) {
        self.measure(if worked { Ended::Worked } else { Ended::Failed });
    }

    fn measure(&mut self, ended: Ended) {
        let shared = &self.limiter.shared;
        if !shared.measurable || std::mem::replace(&mut self.measured, true) {
            return;
        }
        let now = Instant::now();
        let took = now.saturating_duration_since(self.began);
        if ended == Ended::Worked {
            shared.throughput.add(took, now);
        }
        let Some(max) = self.adaptive_max else {
            return;
        };
        let sample = Sample {
            took,
            now,
            in_flight: shared.counts.all(),
        };
        let limit = match ended {
            Ended::Worked => shared.gradient.take(sample, max),
            Ended::Failed => shared.gradient.take_failed(sample, max),
        };
        if let Some(limit) = limit {
            shared.metrics.found(limit);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Nobody waits any more, or nobody may.
        self.measure(Ended::Failed);
        let shared = &self.limiter.shared;
        shared.counts.free(self.criticality);
        if !shared.queue.is_empty() {
            shared.policy.read(|policy| self.limiter.serve(policy));
        }
    }
}

/// A call that waits for its place; dropped, it does so no longer.
#[derive(Debug)]
pub struct Waiting {
    line: Option<queue::Waiting<Place>>,
    limiter: Limiter,
    /// Counts it among those that wait.
    counted: Option<Held>,
}

impl Future for Waiting {
    type Output = Result<Place, Status>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let line = this.line.as_mut().expect("polled after it was ready");
        let place = ready!(Pin::new(line).poll(cx));
        this.line = None;
        this.counted = None;
        let mut place = place.map_err(|_| this.limiter.refuse())?;
        // Waiting is no work.
        place.began = Instant::now();
        Poll::Ready(Ok(place))
    }
}
