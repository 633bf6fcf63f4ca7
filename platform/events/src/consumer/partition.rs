//! One partition of a consumer, for as long as this instance has it.
//!
//! ```text
//! subscription ─▶ lanes ─▶ work, several lanes at once ─▶ settled
//! ```

use std::{pin::Pin, sync::Arc, time::Duration};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use gantry::{backoff::Backoff, status::chain, telemetry::metric::Gauge};
use gantry_store::Timestamp;
use tokio::time;
use tokio_util::sync::CancellationToken;

use super::{
    Shared,
    facts::{Facts, Malformed},
    inbox::Claim,
    lanes::{Lane, Lanes, Step},
    pauses,
    work::{Change, Done, Work},
};
use crate::broker::{Delivery, Settler, Subscription};

/// How long an event waits at hand for one of its key that comes again that soon.
const PARK_MAX: Duration = Duration::from_secs(3);

/// How often those that wait at hand are looked at.
const PARK_LOOK: Duration = Duration::from_millis(100);

/// An event at hand.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) delivery: Delivery,
    pub(super) facts: Result<Arc<Facts>, Malformed>,
}

/// A partition that this instance has.
#[derive(Debug)]
pub(super) struct Partition {
    pub(super) shared: Arc<Shared>,
    pub(super) claim: Claim,
    /// Cancelled when nothing more is to be begun.
    pub(super) give_back: CancellationToken,
}

impl Partition {
    /// Consumes it until it is to be given back, and nothing of it is in flight. Dropped, what was in
    /// flight comes again.
    pub(super) async fn run(self) {
        let Some(mut lanes) = self.lanes().await else {
            return;
        };
        let mut pauses = pauses();
        let mut gauge = Counted {
            gauge: self.shared.metrics.held.clone(),
            held: 0,
        };
        gauge.set(lanes.held());
        while !self.give_back.is_cancelled() {
            match self.subscribe().await {
                Some(Ok(subscription)) => {
                    if self.serve(subscription, &mut lanes, &mut gauge).await {
                        pauses = super::pauses();
                    }
                }
                Some(Err(error)) => {
                    let part = self.claim.part;
                    let error = chain(&error);
                    tracing::warn!(group = %self.shared.group.name, part, error, "not subscribed; trying again");
                }
                None => return,
            }
            if !self.pause(&mut pauses).await {
                return;
            }
        }
    }

    /// Waits a moment; whether to go on.
    async fn pause(&self, pauses: &mut Backoff) -> bool {
        let pause = time::sleep(pauses.next_pause());
        self.give_back.run_until_cancelled(pause).await.is_some()
    }

    /// Nothing at hand yet, and what is held.
    async fn lanes(&self) -> Option<Lanes<Job>> {
        let mut pauses = pauses();
        let held = loop {
            match self.shared.inbox.held(self.claim.part).await {
                Ok(held) => break held,
                Err(error) => {
                    tracing::warn!(error = %chain(&error), "held events were not read; trying again");
                }
            }
            if !self.pause(&mut pauses).await {
                return None;
            }
        };
        let parked_max = usize::from(self.shared.prefetch / 2);
        let park_micros_max = i64::try_from(PARK_MAX.as_micros()).unwrap_or(i64::MAX);
        let mut lanes = Lanes::new(parked_max, park_micros_max);
        for held in held {
            lanes.hold(&held.lane, held.sequence, held.due_at);
        }
        Some(lanes)
    }

    async fn subscribe(&self) -> Option<Result<Box<dyn Subscription>, crate::broker::BrokerError>> {
        let shared = &self.shared;
        let group = &shared.group.name;
        let subscribe = shared
            .broker
            .subscribe(group, self.claim.part, shared.prefetch);
        self.give_back.run_until_cancelled(subscribe).await
    }

    /// Has what comes handled until the subscription ends or the partition is to be given back, and then
    /// until nothing is in flight; whether anything came.
    async fn serve(
        &self,
        mut subscription: Box<dyn Subscription>,
        lanes: &mut Lanes<Job>,
        gauge: &mut Counted,
    ) -> bool {
        let settler: Arc<dyn Settler> = Arc::from(subscription.settler());
        let mut running = FuturesUnordered::new();
        let prefetch = usize::from(self.shared.prefetch);
        let (mut open, mut any) = (true, false);
        loop {
            while open && let Some((lane, step)) = lanes.step(Timestamp::now()) {
                let work = Work {
                    shared: &self.shared,
                    claim: &self.claim,
                    give_back: &self.give_back,
                    settler: Arc::clone(&settler),
                };
                running.push(begun(work, lane, step));
            }
            if !open {
                // What was not begun comes again.
                lanes.forget();
                if running.is_empty() {
                    return any;
                }
            }
            // Cancel-safe: futures that run stay where they are, and a delivery is either here or not.
            tokio::select! {
                biased;
                () = self.give_back.cancelled(), if open => open = false,
                Some((lane, done)) = running.next() => {
                    open &= after(lanes, &lane, done);
                    gauge.set(lanes.held());
                }
                next = subscription.next(), if open && lanes.len() < prefetch => match next {
                    Some(delivery) => {
                        any = true;
                        self.arrive(lanes, delivery);
                    }
                    None => open = false,
                },
                () = time::sleep(PARK_LOOK), if open && lanes.is_blocked() => lanes.look_again(),
            }
        }
    }

    fn arrive(&self, lanes: &mut Lanes<Job>, delivery: Delivery) {
        let facts = Facts::read(&delivery.message, Timestamp::now()).map(Arc::new);
        self.shared.metrics.arrived(&delivery);
        let (lane, sequence) = match &facts {
            Ok(facts) => (Arc::clone(&facts.lane), facts.sequence),
            // Nothing is known of its order.
            Err(_) => (
                Arc::new(Lane {
                    source: String::new(),
                    key: delivery.message.key.clone(),
                }),
                None,
            ),
        };
        lanes.arrive(lane, sequence, Job { delivery, facts });
    }
}

/// Work that was begun, with the lane it is at.
type Begun<'a> = Pin<Box<dyn Future<Output = (Arc<Lane>, Done)> + Send + 'a>>;

fn begun(work: Work<'_>, lane: Arc<Lane>, step: Step<Job>) -> Begun<'_> {
    Box::pin(async move { (lane, work.run(step).await) })
}

/// The held events of this partition, in the gauge of all.
struct Counted {
    gauge: Gauge,
    held: usize,
}

impl Counted {
    fn set(&mut self, held: usize) {
        (self.held..held).for_each(|_| self.gauge.increment());
        (held..self.held).for_each(|_| self.gauge.decrement());
        self.held = held;
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.set(0);
    }
}

/// Takes in how work at a lane ended; whether to go on.
fn after(lanes: &mut Lanes<Job>, lane: &Arc<Lane>, done: Done) -> bool {
    if let Some((job, until)) = done.back
        && let Ok(Some(sequence)) = job.facts.as_ref().map(|facts| facts.sequence)
    {
        lanes.put_back(lane, sequence, job, until);
    }
    match done.change {
        Change::None => {}
        Change::Held(sequence, until) => lanes.hold(lane, sequence, until),
        Change::Freed(sequence) => lanes.free(lane, sequence),
    }
    lanes.done(lane);
    !done.lost
}
