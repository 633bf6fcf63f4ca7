//! One partition of a consumer, for as long as this instance has it.
//!
//! ```text
//! subscription ─▶ lanes ─▶ work, several lanes at once ─▶ settled
//! ```

use std::{pin::Pin, sync::Arc, time::Duration};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use gantry::backoff::Backoff;
use gantry_store::Timestamp;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{self, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;

use super::{
    Shared,
    clock::Clock,
    facts::{Facts, Malformed},
    inbox::Claim,
    lanes::{Lane, Lanes, Limits, Step},
    pauses,
    shown::Where,
    work::{Change, Done, Work},
};
use crate::broker::{BrokerError, Delivery, Settler, Subscription};

/// How long an event waits at hand for one of its key that comes again that soon.
const PARK_MAX: Duration = Duration::from_secs(3);

/// How often those that wait at hand are looked at; those that are put off gather for so long.
const PARK_LOOK: Duration = Duration::from_millis(100);

/// An event at hand.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) delivery: Delivery,
    pub(super) facts: Result<Arc<Facts>, Malformed>,
    /// Its place among those that wait at hand to be tried again, while it does.
    pub(super) rest: Option<OwnedSemaphorePermit>,
}

/// A partition that this instance has.
#[derive(Debug)]
pub(super) struct Partition {
    pub(super) shared: Arc<Shared>,
    pub(super) claim: Claim,
    /// By what events wait here.
    pub(super) clock: Clock,
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
        let mut held = 0;
        self.show(&lanes, &mut held);
        while !self.give_back.is_cancelled() {
            match self.subscribe().await {
                Some(Ok(subscription)) => {
                    self.shared.shown.fine(self.here());
                    if self.serve(subscription, &mut lanes, &mut held).await {
                        pauses = super::pauses();
                    }
                }
                Some(Err(error)) => {
                    self.shared.shown.broker(self.here(), &error);
                    if matches!(error, BrokerError::Missing(_)) && self.restore().await.is_none() {
                        return;
                    }
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
                Err(error) => self.shared.shown.database(self.here(), &error),
            }
            if !self.pause(&mut pauses).await {
                return None;
            }
        };
        let mut lanes = Lanes::new(Limits {
            parked_max: usize::from(self.shared.prefetch) * 3 / 4,
            park_max: PARK_MAX,
            pause_max: self.shared.config.load().pause_max,
            pauses: self.shared.broker.pauses(),
            lost_after: self.shared.config.load().lost_after,
        });
        for held in held {
            lanes.hold(&held.lane, held.sequence, self.clock.of(held.due_at));
        }
        Some(lanes)
    }

    fn here(&self) -> Where {
        Where::Part(self.claim.part)
    }

    /// Shows how much is held, where that is not as it was.
    fn show(&self, lanes: &Lanes<Job>, held: &mut usize) {
        if std::mem::replace(held, lanes.held()) != lanes.held() {
            let (events, keys) = (lanes.held(), lanes.held_keys());
            self.shared.shown.holds(self.claim.part, events, keys);
        }
    }

    /// Has the queue made again that somebody has deleted, or that a broker has lost with all that it had.
    /// None if the partition was to be given back meanwhile.
    async fn restore(&self) -> Option<()> {
        let group = self.shared.wants.group();
        let restore = self.shared.broker.restore(&group, self.claim.part);
        let restored = self.give_back.run_until_cancelled(restore).await?;
        if let Err(error) = restored {
            self.shared.shown.broker(self.here(), &error);
        }
        Some(())
    }

    async fn subscribe(&self) -> Option<Result<Box<dyn Subscription>, BrokerError>> {
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
        held: &mut usize,
    ) -> bool {
        let settler: Arc<dyn Settler> = Arc::from(subscription.settler());
        let mut running = FuturesUnordered::new();
        let prefetch = usize::from(self.shared.prefetch);
        // Others go on meanwhile, in what is left of the prefetch.
        let rests = Arc::new(Semaphore::new(prefetch / 2));
        let mut looks = time::interval(PARK_LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut open, mut any) = (true, false);
        loop {
            // What has ended may have done so as it heard that it is to be given back.
            open &= !self.give_back.is_cancelled();
            while open && let Some(step) = lanes.step(self.clock.now()) {
                let work = Work {
                    shared: &self.shared,
                    claim: &self.claim,
                    clock: self.clock,
                    give_back: &self.give_back,
                    settler: Arc::clone(&settler),
                    rests: Arc::clone(&rests),
                };
                running.push(begun(work, step));
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
                Some(done) = running.next() => {
                    open &= after(lanes, done);
                    self.show(lanes, held);
                }
                // Before what comes: however much that is, others waited long enough.
                _ = looks.tick(), if open && lanes.is_blocked() => lanes.look_again(),
                next = subscription.next(), if open && lanes.len() < prefetch => match next {
                    Some(delivery) => {
                        any = true;
                        self.arrive(lanes, delivery);
                    }
                    None => open = false,
                },
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
        let rest = None;
        lanes.arrive(
            lane,
            sequence,
            Job {
                delivery,
                facts,
                rest,
            },
        );
    }
}

/// Work that was begun.
type Begun<'a> = Pin<Box<dyn Future<Output = Done> + Send + 'a>>;

fn begun(work: Work<'_>, step: Step<Job>) -> Begun<'_> {
    Box::pin(work.run(step))
}

/// Takes in how work ended; whether to go on.
fn after(lanes: &mut Lanes<Job>, done: Done) -> bool {
    for (lane, change) in &done.changes {
        match *change {
            Change::None => {}
            Change::Held(sequence, until) => lanes.hold(lane, sequence, until),
            Change::Freed(sequence) => lanes.free(lane, sequence),
        }
    }
    if let Some((lane, job, wait)) = done.back {
        lanes.put_back(&lane, job, wait);
    }
    for lane in &done.lanes {
        lanes.done(lane);
    }
    !done.ends
}
