//! The messages of one queue, written down and tricked with.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use gantry_events::broker::{BrokerError, Delivery, Settle, Settler, Subscription, Tag, Work};
use tokio::time::{self, Instant};

use super::{Numbers, Tricks, event_id, now, told};
use crate::{
    evidence::End,
    log::{Line, Log},
};

/// How long one that is to come behind another waits for it.
const SWAP_MAX: Duration = Duration::from_millis(100);

/// Most deliveries after which a copy comes.
const COPY_AFTER_MAX: u64 = 5;

/// How long a copy waits for that many at most.
const COPY_MAX: Duration = Duration::from_millis(50);

/// Messages of a queue behind the door.
#[derive(Debug)]
pub(super) struct Watched {
    inner: Box<dyn Subscription>,
    log: Arc<Log>,
    numbers: Arc<Numbers>,
    tags: Arc<Tags>,
    tricks: Tricks,
    random: fastrand::Rng,
    /// Deliveries so far.
    count: u64,
    /// The one that another is to pass, and until when it waits for that.
    passed: Option<(Delivery, Instant)>,
    /// The one that was passed, until it is handed out.
    overtaken: Option<Tag>,
    /// What is to be handed out before all else.
    next: VecDeque<Delivery>,
    /// Copies, the number of the delivery after which they come, and by when they do anyway.
    copies: VecDeque<(Delivery, u64, Instant)>,
}

/// Which tag of the broker each of ours stands for: copies share one.
#[derive(Debug, Default)]
struct Tags {
    open: Mutex<BTreeMap<Tag, Tag>>,
}

impl Tags {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Tag, Tag>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The broker's tag of `ours`, where it is still to be settled: once for all copies.
    fn settle(&self, ours: Tag) -> Option<Tag> {
        let mut open = self.lock();
        let inner = open.remove(&ours)?;
        open.retain(|_, other| *other != inner);
        Some(inner)
    }
}

impl Watched {
    pub(super) fn new(
        inner: Box<dyn Subscription>,
        log: Arc<Log>,
        numbers: Arc<Numbers>,
        tricks: Tricks,
    ) -> Self {
        Self {
            inner,
            log,
            numbers,
            tags: Arc::default(),
            random: fastrand::Rng::with_seed(tricks.seed),
            tricks,
            count: 0,
            passed: None,
            overtaken: None,
            next: VecDeque::new(),
            copies: VecDeque::new(),
        }
    }

    fn chance(&mut self, percent: u8) -> bool {
        percent > 0 && self.random.u8(..100) < percent
    }

    /// A delivery that needs nothing of the broker, where one is due.
    fn due(&mut self, now: Instant) -> Option<Delivery> {
        if let Some(next) = self.next.pop_front() {
            return Some(next);
        }
        let copy = self.copies.front();
        if copy.is_some_and(|(_, after, until)| self.count >= *after || now >= *until) {
            return self.copies.pop_front().map(|(copy, _, _)| copy);
        }
        if self.passed.as_ref().is_some_and(|(_, until)| now >= *until) {
            return self.passed.take().map(|(delivery, _)| delivery);
        }
        None
    }

    /// When the next one is due.
    fn due_at(&self) -> Option<Instant> {
        let copy = self.copies.front().map(|(_, _, until)| *until);
        let passed = self.passed.as_ref().map(|(_, until)| *until);
        copy.into_iter().chain(passed).min()
    }

    /// Takes in what the broker has handed out; answers what is handed on, if anything is.
    fn take(&mut self, mut delivery: Delivery, now: Instant) -> Option<Delivery> {
        let inner = delivery.tag;
        delivery.tag = Tag(self.numbers.next());
        self.tags.lock().insert(delivery.tag, inner);
        if self.chance(self.tricks.double) {
            let copy = Delivery {
                tag: Tag(self.numbers.next()),
                ..delivery.clone()
            };
            self.tags.lock().insert(copy.tag, inner);
            let after = self.count + self.random.u64(1..=COPY_AFTER_MAX);
            self.copies.push_back((copy, after, now + COPY_MAX));
        }
        match self.passed.take() {
            Some((passed, _)) if passed.message.key == delivery.message.key => {
                self.next.push_back(delivery);
                Some(passed)
            }
            Some((passed, _)) => {
                self.overtaken = Some(passed.tag);
                self.next.push_back(passed);
                Some(delivery)
            }
            None if self.chance(self.tricks.swap) => {
                self.passed = Some((delivery, now + SWAP_MAX));
                None
            }
            None => Some(delivery),
        }
    }

    fn handed_on(&mut self, delivery: Delivery) -> Delivery {
        self.count += 1;
        let overtaken = self.overtaken.take_if(|tag| *tag == delivery.tag);
        self.log.add(&Line::Delivery {
            number: delivery.tag.0,
            event_id: event_id(&delivery.message),
            redelivered: delivery.redelivered,
            overtaken: overtaken.is_some(),
            at: now(),
        });
        delivery
    }
}

impl Subscription for Watched {
    fn next(&mut self) -> Work<'_, Option<Delivery>> {
        Box::pin(async move {
            loop {
                if let Some(due) = self.due(Instant::now()) {
                    return Some(self.handed_on(due));
                }
                // Cancel-safe: nothing is taken from the broker that is not kept or handed on at once.
                let taken = match self.due_at() {
                    Some(at) => match time::timeout_at(at, self.inner.next()).await {
                        Ok(taken) => taken,
                        Err(_) => continue,
                    },
                    None => self.inner.next().await,
                };
                if let Some(delivery) = self.take(taken?, Instant::now()) {
                    return Some(self.handed_on(delivery));
                }
            }
        })
    }

    fn settler(&self) -> Box<dyn Settler> {
        Box::new(Settling {
            inner: self.inner.settler(),
            log: Arc::clone(&self.log),
            tags: Arc::clone(&self.tags),
        })
    }
}

#[derive(Debug)]
struct Settling {
    inner: Box<dyn Settler>,
    log: Arc<Log>,
    tags: Arc<Tags>,
}

impl Settler for Settling {
    fn settle(&self, tag: Tag, how: Settle) -> Work<'_, Result<(), BrokerError>> {
        Box::pin(async move {
            let number = tag.0;
            let end = match &how {
                Settle::Ack => End::Acked,
                Settle::Requeue => End::Requeued,
                Settle::Retry { .. } => End::PutOff,
                Settle::Reject(_) => End::Rejected,
            };
            self.log.add(&Line::Settle { number, how: end });
            let Some(inner) = self.tags.settle(tag) else {
                return Ok(());
            };
            let settled = self.inner.settle(inner, how).await;
            self.log.add(&match &settled {
                Ok(()) => Line::Settled { number },
                Err(error) => {
                    let error = told(error);
                    Line::NotSettled { number, error }
                }
            });
            settled
        })
    }
}
