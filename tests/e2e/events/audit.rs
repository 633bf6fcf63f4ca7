//! A group of our own that has a copy of every event of orders.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use gantry::{config::Live, journal::Journal, shutdown::Tasks};
use gantry_events::{
    broker::{self, Config, Delivery, Group, Settle, Settler},
    headers::SEQUENCE,
};
use tokio::{
    task::JoinSet,
    time::{self, Instant},
};

/// Who follows.
const GROUP: &str = "audit.all";

/// What orders tell.
const TOPICS: [&str; 4] = [
    "shop.orders.v1.OrderPlaced",
    "shop.orders.v1.OrderPaid",
    "shop.orders.v1.OrderConfirmed",
    "shop.orders.v1.OrderCancelled",
];

/// After which of them nothing is told.
const ENDS: [&str; 2] = ["OrderConfirmed", "OrderCancelled"];

/// Events at hand at once.
const PREFETCH: u16 = 100;

/// Follows until dropped, over any outage.
#[derive(Debug)]
pub(super) struct Audit {
    seen: Arc<Mutex<Vec<Seen>>>,
    _task: JoinSet<()>,
}

/// An event that has come.
#[derive(Debug, Clone)]
struct Seen {
    at: Instant,
    key: String,
    topic: String,
    sequence: u64,
}

/// What was told of orders.
#[derive(Debug, Default)]
pub(super) struct Orders {
    /// The last sequence of each, and whether nothing comes after it.
    last: BTreeMap<String, (u64, bool)>,
    /// Events that came before, and came again.
    pub(super) duplicates: usize,
    /// Events that came before their predecessors.
    pub(super) early: Vec<String>,
}

impl Audit {
    /// Has the broker know the group, before anybody tells of anything.
    pub(super) async fn begin(config: Config) -> Self {
        let broker = broker::connect(
            &Live::fixed(config),
            &Tasks::new(Journal::new()),
            &Journal::new(),
        );
        let group = Group {
            name: GROUP.to_owned(),
            partitions: 1,
            topics: TOPICS.map(str::to_owned).to_vec(),
            queue_messages_max: None,
        };
        broker.declare(&group).await.expect("a group");
        let seen = Arc::<Mutex<Vec<Seen>>>::default();
        let mut task = JoinSet::new();
        let to = Arc::clone(&seen);
        task.spawn(async move {
            loop {
                if let Ok(mut subscription) = broker.subscribe(GROUP, 0, PREFETCH).await {
                    let settler: Arc<dyn Settler> = subscription.settler().into();
                    let mut settled = JoinSet::new();
                    while let Some(delivery) = subscription.next().await {
                        let tag = delivery.tag;
                        let mut all = to.lock().unwrap_or_else(PoisonError::into_inner);
                        all.push(Seen::of(delivery));
                        drop(all);
                        let settler = Arc::clone(&settler);
                        // What is not settled comes again.
                        settled.spawn(async move { settler.settle(tag, Settle::Ack).await });
                        while settled.try_join_next().is_some() {}
                    }
                }
                time::sleep(Duration::from_millis(20)).await;
            }
        });
        Self { seen, _task: task }
    }

    /// How long after `since` the first event came, and how long until `count` had.
    ///
    /// # Panics
    ///
    /// If so many have not come.
    pub(super) fn told_after(&self, since: Instant, count: u32) -> (Duration, Duration) {
        let came = self.seen().into_iter().map(|it| it.at);
        let came: Vec<_> = came.filter(|at| *at > since).collect();
        let last = usize::try_from(count).expect("few") - 1;
        (came[0] - since, came[last] - since)
    }

    /// What has come so far.
    fn seen(&self) -> Vec<Seen> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.clone()
    }

    /// What was told of orders so far.
    pub(super) fn orders(&self) -> Orders {
        let mut orders = Orders::default();
        for seen in self.seen() {
            let Seen { key, sequence, .. } = seen;
            let (last, over) = orders.last.entry(key.clone()).or_default();
            match sequence {
                it if it == *last + 1 => {
                    *last = it;
                    *over = ENDS.iter().any(|end| seen.topic.ends_with(end));
                }
                it if it <= *last => orders.duplicates += 1,
                it => orders.early.push(format!("{key}: {it} after {last}")),
            }
        }
        orders
    }
}

impl Seen {
    fn of(delivery: Delivery) -> Self {
        let sequence = delivery.message.headers.get(SEQUENCE);
        let sequence = sequence.and_then(|it| it.parse().ok());
        Self {
            at: Instant::now(),
            key: delivery.message.key,
            topic: delivery.message.topic,
            sequence: sequence.expect("a sequence"),
        }
    }
}

impl Orders {
    /// How many there are, and of how many all was told.
    pub(super) fn count(&self) -> (usize, usize) {
        let over = self.last.values().filter(|(_, over)| *over);
        (self.last.len(), over.count())
    }
}
