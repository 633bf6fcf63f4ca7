//! RabbitMQ, over AMQP 0-9-1: 3.10 and later, and written for 4.
//!
//! Two connections: one publishes, one consumes and asks. A broker that is short of memory or disk stops
//! reading from whoever publishes; what is settled has to reach it all the same, or its queues would not
//! get shorter. Neither is made again by the client library, which gives up after some tries and cannot
//! tell what was on its way: each is [made again by us](link), when somebody wants it.
//!
//! What RabbitMQ cannot do as [`broker`](crate::broker) says: nobody confirms that a message is settled,
//! so an ack may get lost with its connection, and the message comes again. How many messages others
//! have in hand is not told. A time that a message waits is rounded up to the next of 1 s, 5 s, 25 s,
//! 125 s and 10 min; longer ones are 10 min. Who looks at events is not told how many were missed, but
//! that some were. Of dead letters, the oldest 10,000 of a group are seen. Single queues can be deleted,
//! unlike elsewhere: what comes for one that is gone [strays](strays).

mod connect;
mod dead;
mod failure;
mod lane;
mod link;
mod names;
mod place;
mod publish;
mod strays;
mod subscription;
mod tail;
mod topology;
mod upkeep;
mod wanted;
mod wire;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use gantry::{config::Live, journal::Journal, shutdown::Tasks};
use gantry_store::Timestamp;
use lapin::Channel;
use tokio::time;
use tokio_util::sync::CancellationToken;

use self::{
    failure::{Failure, there},
    link::Link,
    place::Place,
    publish::Publisher,
    subscription::Reader,
    tail::Looking,
};
use crate::{
    BUCKETS, Message,
    broker::{
        Broker, BrokerError, Config, Connection, DeadLetter, Fill, Group, Headers, PublishError,
        Subscription, Tail, Work,
    },
    bucket,
};

/// How we are called by those who look after a RabbitMQ.
const NAME: &str = "gantry";

/// How many times as long as a single answer may take what asks for some of them.
const ANSWERS: u32 = 3;

/// The same for what makes, takes away or looks at many things.
const ANSWERS_MANY: u32 = 12;

/// How often it is looked for what is written down about a group, and the pause between: while an instance
/// of the group reads it, it is not seen.
const NOTE_LOOKS: u32 = 6;
const NOTE_PAUSE: Duration = Duration::from_millis(50);

/// A RabbitMQ.
pub(super) struct Rabbit {
    shared: Arc<Shared>,
}

/// What all that is done with one has in common.
struct Shared {
    place: Arc<Place>,
    publisher: Publisher,
    consuming: Link,
    /// Messages in hand, by group.
    unsettled: Mutex<BTreeMap<String, u64>>,
    /// Partitions of the groups that were declared here.
    partitions: Mutex<BTreeMap<String, u16>>,
    last_place: AtomicU64,
    /// Who looks at dead letters has them in hand; another one would see none of them meanwhile.
    looking: tokio::sync::Mutex<()>,
}

impl Rabbit {
    /// The RabbitMQ that `config` names. Nothing is connected yet.
    pub(super) fn new(config: &Live<Config>, tasks: &Tasks, journal: &Journal) -> Self {
        let place = Arc::new(Place::new(&config.load()));
        let link = |role: &str| {
            let name = format!("{NAME} {role}");
            Link::new(Arc::clone(&place), name, journal.clone())
        };
        let publishing = link("publishing");
        let publisher = Publisher::new(publishing, config.clone(), tasks.clone(), journal.clone());
        Self {
            shared: Arc::new(Shared {
                publisher,
                consuming: link("consuming"),
                unsettled: Mutex::default(),
                partitions: Mutex::default(),
                last_place: AtomicU64::new(0),
                looking: tokio::sync::Mutex::default(),
                place,
            }),
        }
    }

    /// Bounds something about `what` that is asked in some steps, from a connection on.
    async fn answered<T>(
        &self,
        answers: u32,
        what: &str,
        asked: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, BrokerError> {
        let answered = self.shared.in_time(answers, asked).await;
        answered.map_err(|failure| failure.about(what))
    }
}

impl Shared {
    /// Bounds something that is asked in some steps.
    async fn within<T>(
        &self,
        answers: u32,
        asked: impl Future<Output = Result<T, BrokerError>>,
    ) -> Result<T, BrokerError> {
        let answered = time::timeout(self.place.connect_timeout * answers, asked).await;
        answered.unwrap_or(Err(BrokerError::TimedOut))
    }

    /// The same for what is not told of yet.
    async fn in_time<T>(
        &self,
        answers: u32,
        asked: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let answered = time::timeout(self.place.connect_timeout * answers, asked).await;
        answered.unwrap_or(Err(Failure::TimedOut))
    }

    /// A channel for one thing that is asked; the last handle closes it, and so does any refusal.
    async fn channel(&self) -> Result<Channel, Failure> {
        let live = self.consuming.live().await?;
        match live.connection().create_channel().await {
            Ok(channel) => Ok(channel),
            Err(error) => {
                let failure = Failure::from(error);
                self.consuming.note(&live, failure.clone()).await;
                Err(failure)
            }
        }
    }

    fn count_unsettled(&self, group: &str, change: i64) {
        let mut unsettled = self
            .unsettled
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let count = unsettled.entry(group.to_owned()).or_default();
        *count = count.saturating_add_signed(change);
        if *count == 0 {
            unsettled.remove(group);
        }
    }

    fn unsettled(&self, group: &str) -> u64 {
        let unsettled = self
            .unsettled
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        unsettled.get(group).copied().unwrap_or_default()
    }

    /// A place for a dead letter: when it became one, in microseconds, and after those before it.
    fn next_place(&self) -> u64 {
        let now = Timestamp::now().micros();
        let now = u64::try_from(now).unwrap_or_default();
        let after = |last: u64| Some(now.max(last + 1));
        let last = self
            .last_place
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, after);
        now.max(last.unwrap_or_default() + 1)
    }

    async fn declare(&self, group: &Group, keeps: bool) -> Result<(), BrokerError> {
        let channel = self.channel().await;
        let channel = channel.map_err(|failure| failure.about(&group.name))?;
        topology::declare(&channel, group).await?;
        wanted::bring_to(self, &channel, group, keeps).await?;
        self.partitions()
            .insert(group.name.clone(), group.partitions);
        Ok(())
    }

    /// Makes what is missing again, of a group that was whole: all but queues of other partitions.
    async fn restore(&self, group: &Group, partition: Option<u16>) -> Result<(), BrokerError> {
        let about = |failure: Failure| failure.about(&group.name);
        if !self.is_noted(&group.name).await.map_err(about)? {
            return self.declare(group, true).await;
        }
        let channel = self.channel().await.map_err(about)?;
        topology::restore(&channel, group, partition).await?;
        wanted::bring_to(self, &channel, group, true).await
    }

    fn partitions(&self) -> MutexGuard<'_, BTreeMap<String, u16>> {
        self.partitions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    async fn subscribe(
        self: &Arc<Self>,
        group: &str,
        partition: u16,
        prefetch: u16,
    ) -> Result<Reader, Failure> {
        let live = self.consuming.live().await?;
        let shared = Arc::clone(self);
        Reader::subscribe(shared, &live, (group, partition), prefetch).await
    }

    async fn fill(&self, group: &str) -> Result<Fill, Failure> {
        let mut channel = self.channel().await?;
        let strays = names::strays(group);
        let mut fill = Fill {
            unsettled: self.unsettled(group),
            // Without it there is no group.
            dead_letters: topology::ready(&channel, &names::dead(group)).await?,
            strays: self.unsettled(&strays),
            ..Fill::default()
        };
        let (ready, _) = self
            .counts(&mut channel, &strays)
            .await?
            .unwrap_or_default();
        fill.strays += ready;
        for (_, word) in names::PAUSES {
            let queue = names::wait(group, word);
            let (ready, _) = self.counts(&mut channel, &queue).await?.unwrap_or_default();
            fill.delayed += ready;
        }
        let known = self.partitions().get(group).copied();
        let mut missing = 0;
        for number in 0..known.unwrap_or(BUCKETS) {
            let queue = names::partition(group, number);
            if let Some((ready, consumers)) = self.counts(&mut channel, &queue).await? {
                fill.ready.resize(usize::from(number), 0);
                fill.ready.push(ready);
                fill.consumers += consumers;
                missing = 0;
            } else {
                missing += 1;
                // One that was deleted, or the one after the last.
                if known.is_none() && missing > 1 {
                    break;
                }
            }
        }
        fill.ready.resize(
            usize::from(known.unwrap_or_default()).max(fill.ready.len()),
            0,
        );
        Ok(fill)
    }

    /// Messages that wait in a queue, and its consumers; none where there is no such queue. Asking for one
    /// closes the channel, which is another one then, and is an error in the log of the broker.
    async fn counts(
        &self,
        channel: &mut Channel,
        queue: &str,
    ) -> Result<Option<(u64, u64)>, Failure> {
        let seen = there(topology::seen(channel, queue).await)?;
        if seen.is_none() {
            *channel = self.channel().await?;
        }
        Ok(seen)
    }

    /// Whether a group was declared to its end, and what is published still gets there.
    async fn knows(&self, group: &str) -> Result<bool, Failure> {
        if !self.is_noted(group).await? {
            return Ok(false);
        }
        let channel = self.channel().await?;
        for exchange in [group, &names::parts(group)] {
            if there(topology::look(&channel, exchange).await)?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether a group was declared to its end: what it wants is written down last.
    async fn is_noted(&self, group: &str) -> Result<bool, Failure> {
        let channel = self.channel().await?;
        for look in 1..=NOTE_LOOKS {
            match there(topology::ready(&channel, &names::about(group)).await)? {
                Some(notes) if notes > 0 => return Ok(true),
                Some(_) if look < NOTE_LOOKS => time::sleep(NOTE_PAUSE).await,
                Some(_) => {}
                None => return Ok(false),
            }
        }
        Ok(false)
    }

    async fn remove(&self, group: &str) -> Result<(), Failure> {
        let channel = self.channel().await?;
        self.partitions().remove(group);
        Ok(topology::remove(&channel, group).await?)
    }

    async fn ping(&self) -> Result<(), Failure> {
        let channel = self.channel().await?;
        // Whatever is answered: that it is, is what matters.
        Ok(topology::declare_exchanges(&channel).await?)
    }
}

impl Broker for Rabbit {
    fn system(&self) -> &'static str {
        "rabbitmq"
    }

    fn connections(&self) -> Vec<Connection> {
        let consuming = self.shared.consuming.shown("consuming");
        vec![self.shared.publisher.shown(), consuming]
    }

    fn pauses(&self) -> &'static [Duration] {
        &names::LENGTHS
    }

    fn declare<'a>(&'a self, group: &'a Group) -> Work<'a, Result<(), BrokerError>> {
        Box::pin(
            self.shared
                .within(ANSWERS_MANY, self.shared.declare(group, true)),
        )
    }

    fn restore<'a>(
        &'a self,
        group: &'a Group,
        partition: u16,
    ) -> Work<'a, Result<(), BrokerError>> {
        let restored = self.shared.restore(group, Some(partition));
        Box::pin(self.shared.within(ANSWERS_MANY, restored))
    }

    fn narrow<'a>(&'a self, group: &'a Group) -> Work<'a, Result<(), BrokerError>> {
        Box::pin(
            self.shared
                .within(ANSWERS_MANY, self.shared.declare(group, false)),
        )
    }

    fn publish_by(
        &self,
        epoch: Option<u64>,
        message: Message,
    ) -> Work<'_, Result<(), PublishError>> {
        Box::pin(async move {
            let key = names::event_key(&message.topic, bucket(&message.key));
            let publisher = &self.shared.publisher;
            publisher
                .publish_by(epoch, (names::EVENTS, &key), &message, None)
                .await
        })
    }

    fn epoch(&self) -> Work<'_, Result<u64, BrokerError>> {
        Box::pin(self.answered(ANSWERS, "the broker", self.shared.publisher.epoch()))
    }

    fn subscribe<'a>(
        &'a self,
        group: &'a str,
        partition: u16,
        prefetch: u16,
    ) -> Work<'a, Result<Box<dyn Subscription>, BrokerError>> {
        Box::pin(async move {
            let subscribed = self.shared.subscribe(group, partition, prefetch);
            let queue = names::partition(group, partition);
            let reader = self.answered(ANSWERS, &queue, subscribed).await?;
            Ok(Box::new(reader) as Box<dyn Subscription>)
        })
    }

    fn tend<'a>(&'a self, group: &'a Group, stop: &'a CancellationToken) -> Work<'a, ()> {
        Box::pin(async move {
            let strays = strays::tend(&self.shared, group, stop);
            tokio::join!(strays, upkeep::tend(&self.shared, group, stop));
        })
    }

    fn fill<'a>(&'a self, group: &'a str) -> Work<'a, Result<Fill, BrokerError>> {
        Box::pin(self.answered(ANSWERS, group, self.shared.fill(group)))
    }

    fn knows<'a>(&'a self, group: &'a str) -> Work<'a, Result<bool, BrokerError>> {
        Box::pin(self.answered(ANSWERS, group, self.shared.knows(group)))
    }

    fn dead_letters<'a>(
        &'a self,
        group: &'a str,
        after: u64,
        count_max: u16,
    ) -> Work<'a, Result<Vec<DeadLetter>, BrokerError>> {
        let listed = dead::list(&self.shared, group, after, count_max);
        Box::pin(self.answered(ANSWERS_MANY, group, listed))
    }

    fn settle_dead_letter<'a>(
        &'a self,
        group: &'a str,
        letter: &'a DeadLetter,
        headers: Option<Headers>,
    ) -> Work<'a, Result<(), BrokerError>> {
        let settled = dead::settle(&self.shared, group, letter, headers);
        Box::pin(self.shared.within(ANSWERS_MANY, settled))
    }

    fn remove<'a>(&'a self, group: &'a str) -> Work<'a, Result<(), BrokerError>> {
        Box::pin(self.answered(ANSWERS_MANY, group, self.shared.remove(group)))
    }

    fn tail<'a>(&'a self, topics: &'a [String]) -> Work<'a, Result<Box<dyn Tail>, BrokerError>> {
        Box::pin(async move {
            let begun = async {
                let live = self.shared.consuming.live().await?;
                Looking::begin(&live, topics).await
            };
            let looking = self.answered(ANSWERS, "a look at events", begun).await?;
            Ok(Box::new(looking) as Box<dyn Tail>)
        })
    }

    fn ping(&self) -> Work<'_, Result<(), BrokerError>> {
        Box::pin(self.answered(ANSWERS, "the broker", self.shared.ping()))
    }
}

impl fmt::Debug for Rabbit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rabbit({})", self.shared.place)
    }
}
