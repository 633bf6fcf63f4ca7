//! Strays: events that came while the queue was gone in which they belong.
//!
//! RabbitMQ puts them into a queue of their group, and whoever publishes is told that they are taken. Each
//! instance of the group subscribes to it, and the one that it hands them to moves them, many at once and
//! those of a key one after the other. They go by the exchange through which messages come back to
//! their queue: where that is still gone, they are not taken and stay in hand, instead of going around.
//!
//! A queue that is made again has no events at first but those that are moved into it: it is bound to what
//! is published once there are no more strays, so that none is overtaken by what comes after it. What
//! comes in the moment in which it is bound may be.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    pin::Pin,
    sync::Arc,
};

use futures_util::{FutureExt as _, StreamExt as _, stream::FuturesUnordered};
use gantry::backoff::{self, Backoff};
use lapin::{
    Channel, Consumer,
    message::Delivery,
    options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions},
    protocol,
    types::FieldTable,
};
use tokio::time::{self, Duration, Instant};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::{
    Message,
    broker::{
        Group, PublishError,
        rabbit::{ANSWERS, ANSWERS_MANY, Shared, failure::Failure, names, topology, wire},
    },
    bucket,
};

/// Most in hand.
const PREFETCH: u16 = 256;

/// Pauses between tries of moving what is not taken, and of subscribing.
const PAUSES: backoff::Config = backoff::Config {
    min: Duration::from_millis(200),
    max: Duration::from_secs(10),
    multiplier: 2.0,
    jitter: 0.2,
};

/// How long it goes on until queues are bound though there is always another one in hand, and how often
/// that is tried then.
const LONG: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_secs(1);

/// How long those on their way are waited for at the end.
const STOP_MAX: Duration = Duration::from_secs(1);

/// Moves strays of a group until `stop`, however often the broker is away.
pub(super) async fn tend(shared: &Arc<Shared>, group: &Group, stop: &CancellationToken) {
    let mut pauses = pauses();
    while let Some(begun) = stop.run_until_cancelled(begin(shared, group)).await {
        let ended = match begun {
            Ok(mut mover) => {
                let ended = mover.run(stop).await;
                mover.end().await;
                if mover.count > 0 {
                    pauses.reset();
                }
                ended
            }
            Err(failure) => Err(failure),
        };
        let again = async {
            if let Err(failure) = ended {
                debug!(group = %group.name, error = %failure, "strays are not moved");
                if matches!(failure, Failure::Missing(_)) {
                    again(shared, group).await;
                }
            }
            time::sleep(pauses.next_pause()).await;
        };
        if stop.run_until_cancelled(again).await.is_none() {
            return;
        }
    }
}

async fn begin<'a>(shared: &'a Arc<Shared>, group: &'a Group) -> Result<Mover<'a>, Failure> {
    let mut mover = shared.in_time(ANSWERS, Mover::begin(shared, group)).await?;
    // Whoever made queues last may have ended before they were bound; one that is there does it itself.
    if mover.begins {
        mover.bind().await?;
    }
    Ok(mover)
}

fn pauses() -> Backoff {
    Backoff::new(PAUSES).expect("the pauses are above zero and grow")
}

/// Makes the queue of strays again. Why it cannot is told by who consumes from the others.
async fn again(shared: &Shared, group: &Group) {
    let restored = Box::pin(shared.restore(group, None));
    if let Err(error) = shared.within(ANSWERS_MANY, restored).await {
        debug!(group = %group.name, %error, "queues are not made again");
    }
}

/// One in hand.
struct Stray {
    tag: u64,
    partition: u16,
    message: Message,
    _counted: Counted,
}

/// Has it be counted as long as it is in hand: the broker does not count it among those that wait.
struct Counted {
    shared: Arc<Shared>,
    queue: Arc<str>,
}

impl Counted {
    fn new(shared: &Arc<Shared>, queue: &Arc<str>) -> Self {
        shared.count_unsettled(queue, 1);
        Self {
            shared: Arc::clone(shared),
            queue: Arc::clone(queue),
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.shared.count_unsettled(&self.queue, -1);
    }
}

/// How a try ended.
struct Tried {
    key: String,
    outcome: Result<(), PublishError>,
}

/// A partition that did not take one.
struct Held {
    pauses: Backoff,
    until: Instant,
}

/// Closes a channel with it, by which all comes back that is in hand. A consumer that nobody reads would keep
/// the queue from all others.
struct Open(Channel);

impl Drop for Open {
    fn drop(&mut self) {
        // It is sent as it is first polled; nobody waits for the answer.
        let closing = self
            .0
            .close(protocol::constants::REPLY_SUCCESS, "OK".into());
        drop(closing.now_or_never());
    }
}

impl Held {
    fn new(now: Instant) -> Self {
        Self {
            pauses: pauses(),
            until: now,
        }
    }

    fn holds(&self, now: Instant) -> bool {
        self.until > now
    }

    /// Takes in that one was not taken; whether that is new: others that were on their way with the first
    /// say nothing.
    fn refused(&mut self, now: Instant) -> bool {
        let is_new = !self.holds(now);
        if is_new {
            self.until = now + self.pauses.next_pause();
        }
        is_new
    }
}

/// Moves those that one subscription hands out.
struct Mover<'a> {
    shared: &'a Arc<Shared>,
    group: &'a Group,
    queue: Arc<str>,
    channel: Open,
    consumer: Consumer,
    /// Whether nobody else moved strays as it came, and none waited.
    begins: bool,
    /// In hand, by key; the first of each is on its way, or its key waits.
    keys: HashMap<String, VecDeque<Stray>>,
    waiting: VecDeque<String>,
    under_way: FuturesUnordered<Pin<Box<dyn Future<Output = Tried> + Send>>>,
    held: BTreeMap<u16, Held>,
    /// When it is looked whether all are moved, so that queues may be bound; none while they are.
    look_at: Option<Instant>,
    /// Moved since queues were bound.
    spell: u64,
    /// Moved.
    count: u64,
}

impl<'a> Mover<'a> {
    async fn begin(shared: &'a Arc<Shared>, group: &'a Group) -> Result<Self, Failure> {
        let live = shared.consuming.live().await?;
        let channel = Open(live.connection().create_channel().await?);
        channel
            .0
            .basic_qos(PREFETCH, BasicQosOptions::default())
            .await?;
        let queue: Arc<str> = names::strays(&group.name).into();
        // Before any is handed out: from then on they are not counted.
        let begins = topology::seen(&channel.0, &queue).await? == (0, 0);
        let consumed = channel.0.basic_consume(
            (&*queue).into(),
            "".into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        );
        Ok(Self {
            consumer: consumed.await?,
            begins,
            channel,
            queue,
            shared,
            group,
            keys: HashMap::new(),
            waiting: VecDeque::new(),
            under_way: FuturesUnordered::new(),
            held: BTreeMap::new(),
            look_at: None,
            spell: 0,
            count: 0,
        })
    }

    async fn run(&mut self, stop: &CancellationToken) -> Result<(), Failure> {
        loop {
            self.take_all()?;
            self.start();
            let now = Instant::now();
            match stop.run_until_cancelled(self.look_after(now)).await {
                Some(kept) => kept?,
                None => return Ok(()),
            }
            let due = self.held.values().map(|held| held.until);
            let due = due.filter(|until| *until > now).chain(self.look_at).min();
            // Cancel-safe: what is on its way stays there, and a stray is here or not.
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                Some(tried) = self.under_way.next() => self.tried(tried).await?,
                next = self.consumer.next() => self.handed_out(next)?,
                () = at(due) => {}
            }
        }
    }

    /// Has queues be handed what is published, where it is time for that.
    async fn look_after(&mut self, now: Instant) -> Result<(), Failure> {
        if self.look_at.is_some_and(|at| now >= at) {
            self.look_at = Some(now + LOOK);
            self.bind().await?;
        }
        Ok(())
    }

    fn handed_out(&mut self, next: Option<lapin::Result<Delivery>>) -> Result<(), Failure> {
        match next {
            Some(Ok(delivery)) => self.take(delivery),
            Some(Err(error)) => return Err(error.into()),
            // The broker says so where the queue is deleted.
            None => return Err(Failure::Missing(self.queue.to_string())),
        }
        Ok(())
    }

    /// Takes all that is there.
    fn take_all(&mut self) -> Result<(), Failure> {
        while let Some(next) = self.consumer.next().now_or_never() {
            self.handed_out(next)?;
        }
        Ok(())
    }

    fn take(&mut self, delivery: Delivery) {
        let key = delivery.routing_key.as_str();
        let of_key = key
            .rsplit('.')
            .next()
            .and_then(|bucket| bucket.parse().ok());
        let read = wire::read(&delivery.properties, key, delivery.data);
        let message = read.message;
        let partition = of_key.unwrap_or_else(|| bucket(&message.key)) % self.group.partitions;
        if self.look_at.is_none() {
            let queue = names::partition(&self.group.name, partition);
            warn!(%queue, "events come whose queue was gone; they are moved there");
            self.look_at = Some(Instant::now() + LONG);
        }
        let key = message.key.clone();
        let stray = Stray {
            tag: delivery.delivery_tag,
            partition,
            message,
            _counted: Counted::new(self.shared, &self.queue),
        };
        let of_key = self.keys.entry(key.clone()).or_default();
        if of_key.is_empty() {
            self.waiting.push_back(key);
        }
        of_key.push_back(stray);
    }

    /// Sends those that wait, as far as their partitions are not held.
    fn start(&mut self) {
        let now = Instant::now();
        for _ in 0..self.waiting.len() {
            let Some(key) = self.waiting.pop_front() else {
                return;
            };
            let Some(stray) = self.keys.get(&key).and_then(VecDeque::front) else {
                continue;
            };
            let held = self.held.get(&stray.partition);
            if held.is_some_and(|held| held.holds(now)) {
                self.waiting.push_back(key);
                continue;
            }
            let way = names::stray_key(&self.group.name, stray.partition);
            let (shared, message) = (Arc::clone(self.shared), stray.message.clone());
            self.under_way.push(Box::pin(async move {
                let publisher = &shared.publisher;
                let sent = publisher.publish((names::RETURN, &way), &message, None);
                let outcome = sent.await;
                Tried { key, outcome }
            }));
        }
    }

    async fn tried(&mut self, Tried { key, outcome }: Tried) -> Result<(), Failure> {
        let Some(of_key) = self.keys.get_mut(&key) else {
            return Ok(());
        };
        let Some(partition) = of_key.front().map(|stray| stray.partition) else {
            return Ok(());
        };
        if let Err(error) = outcome {
            self.waiting.push_back(key);
            self.hold(partition, &error);
            return Ok(());
        }
        let moved = of_key.pop_front();
        if of_key.is_empty() {
            self.keys.remove(&key);
        } else {
            self.waiting.push_back(key);
        }
        if let Some(stray) = moved {
            let channel = &self.channel.0;
            let acked = channel.basic_ack(stray.tag, BasicAckOptions::default());
            acked.await?;
        }
        let mut left = self.keys.values().flatten();
        // With some left, one that takes now and then is tried as seldom as before.
        if !left.any(|stray| stray.partition == partition) {
            self.held.remove(&partition);
        }
        self.spell += 1;
        self.count += 1;
        if self.keys.is_empty() {
            self.look_at = Some(Instant::now());
        }
        Ok(())
    }

    /// Has a partition be tried again later.
    fn hold(&mut self, partition: u16, error: &PublishError) {
        let now = Instant::now();
        let is_first = !self.held.contains_key(&partition);
        let held = self.held.entry(partition);
        if !held.or_insert_with(|| Held::new(now)).refused(now) {
            return;
        }
        let queue = names::partition(&self.group.name, partition);
        if is_first {
            warn!(%queue, %error, "events whose queue was gone are not taken there yet");
        } else {
            debug!(%queue, %error, "strays stay in hand");
        }
    }

    /// Has queues be handed what is published, where nothing is left that has to come before it; looks again
    /// later where something is.
    async fn bind(&mut self) -> Result<(), Failure> {
        self.look_at.get_or_insert_with(|| Instant::now() + LOOK);
        let seen = async { Ok(topology::seen(&self.channel.0, &self.queue).await?) };
        let (ready, consumers) = self.shared.in_time(ANSWERS, seen).await?;
        // Of a queue that has no leader the broker says that it has neither messages nor consumers, and we
        // are one.
        if !self.held.is_empty() || ready > 0 || consumers == 0 {
            return Ok(());
        }
        let long = self.spell > 0 && !self.keys.is_empty();
        self.take_all()?;
        if !long && !self.keys.is_empty() {
            return Ok(());
        }
        // One that is gone closes the channel.
        let bound = async {
            let channel = self.shared.channel().await?;
            Ok(topology::bind_partitions(&channel, self.group).await?)
        };
        match self.shared.in_time(ANSWERS_MANY, bound).await {
            Ok(()) => {}
            // Whoever consumes from it makes it again, and says that it was gone.
            Err(Failure::Missing(_)) => return Ok(()),
            Err(failure) => return Err(failure),
        }
        self.look_at = None;
        if self.spell > 0 {
            let (group, count) = (&self.group.name, self.spell);
            info!(%group, count, "events whose queue was gone are there");
            self.spell = 0;
        }
        Ok(())
    }

    /// Waits for what is on its way.
    async fn end(&mut self) {
        let until = Instant::now() + STOP_MAX;
        // None further is begun.
        while let Ok(Some(tried)) = time::timeout_at(until, self.under_way.next()).await {
            if tried.outcome.is_ok() && self.tried(tried).await.is_err() {
                break;
            }
        }
    }
}

/// Ends then; never where there is no such time.
async fn at(due: Option<Instant>) {
    match due {
        Some(due) => time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: what a partition does not take is tried less and less often, however many are on their way.
    /// Method: an hour in which it takes none of what is sent as soon as it may be, many at once; count.
    #[tokio::test(start_paused = true)]
    async fn nothing_is_tried_in_a_hot_loop() {
        let begun = Instant::now();
        let mut held = Held::new(begun);
        let mut tries = 0;
        while begun.elapsed() < Duration::from_hours(1) {
            let now = Instant::now();
            assert!(!held.holds(now));
            assert!(held.refused(now));
            assert!(!held.refused(now));
            assert!(held.holds(now));
            tries += 1;
            time::sleep_until(held.until).await;
        }
        assert!((300..500).contains(&tries), "{tries}");
    }
}
