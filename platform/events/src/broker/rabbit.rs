//! RabbitMQ, over AMQP 0-9-1: 3.10 and later, and written for 4.
//!
//! Two connections: one publishes, one consumes and asks. A broker that is short of memory or disk stops
//! reading from whoever publishes; what is settled has to reach it all the same, or its queues would not
//! get shorter. Neither is made again by the client library, which gives up after some tries and cannot
//! tell what was on its way: each is [made again by us](link), when somebody wants it.
//!
//! What RabbitMQ cannot do as [`broker`](crate::broker) says: nobody confirms that a message is settled,
//! so an ack may get lost with its connection, and the message comes again. How many messages others
//! have in hand is not told. A time that a message waits is rounded up to the next of 1 s, 5 s, 30 s,
//! 2 min and 10 min; longer ones are 10 min. Who looks at events is not told how many were missed, but
//! that some were. Of dead letters, the oldest 10,000 of a group are seen.

mod connect;
mod dead;
mod failure;
mod link;
mod names;
mod place;
mod publish;
mod subscription;
mod tail;
mod topology;
mod wanted;
mod wire;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use gantry::{config::Live, journal::Journal};
use lapin::Channel;
use tokio::time;

use self::{
    failure::Failure, link::Link, place::Place, publish::Publisher, subscription::Reader,
    tail::Looking,
};
use crate::{
    BUCKETS, Message,
    broker::{
        Broker, BrokerError, Config, DeadLetter, Fill, Group, Headers, PublishError, Subscription,
        Tail, Work,
    },
    bucket,
};

/// How we are called by those who look after a RabbitMQ.
const NAME: &str = "gantry";

/// How many times as long as a single answer may take what asks for some of them.
const ANSWERS: u32 = 3;

/// The same for what makes, takes away or looks at many things.
const ANSWERS_MANY: u32 = 12;

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
    last_place: AtomicU64,
    /// Who looks at dead letters has them in hand; another one would see none of them meanwhile.
    looking: tokio::sync::Mutex<()>,
}

impl Rabbit {
    /// The RabbitMQ that `config` names. Nothing is connected yet.
    pub(super) fn new(config: &Live<Config>, journal: &Journal) -> Self {
        let place = Arc::new(Place::new(&config.load()));
        let link = |role: &str| {
            let name = format!("{NAME} {role}");
            Link::new(Arc::clone(&place), name, journal.clone())
        };
        let publisher = Publisher::new(link("publishing"), config.clone(), journal.clone());
        Self {
            shared: Arc::new(Shared {
                publisher,
                consuming: link("consuming"),
                unsettled: Mutex::default(),
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
        let asked = async { asked.await.map_err(|failure| failure.about(what)) };
        self.within(answers, asked).await
    }

    async fn within<T>(
        &self,
        answers: u32,
        asked: impl Future<Output = Result<T, BrokerError>>,
    ) -> Result<T, BrokerError> {
        let bound = self.shared.place.connect_timeout * answers;
        let answered = time::timeout(bound, asked).await;
        answered.unwrap_or(Err(BrokerError::TimedOut))
    }
}

impl Shared {
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
        let now = micros_now();
        let after = |last: u64| Some(now.max(last + 1));
        let last = self
            .last_place
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, after);
        now.max(last.unwrap_or_default() + 1)
    }

    async fn declare(&self, group: &Group) -> Result<(), BrokerError> {
        let channel = self.channel().await;
        let channel = channel.map_err(|failure| failure.about(&group.name))?;
        topology::declare(&channel, group).await?;
        wanted::bring_to(self, &channel, group).await
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
        let channel = self.channel().await?;
        let mut fill = Fill {
            unsettled: self.unsettled(group),
            dead_letters: topology::ready(&channel, &names::dead(group)).await?,
            ..Fill::default()
        };
        for (_, word) in names::PAUSES {
            fill.delayed += topology::ready(&channel, &names::wait(group, word)).await?;
        }
        for number in 0..BUCKETS {
            match topology::ready(&channel, &names::partition(group, number)).await {
                Ok(ready) => fill.ready.push(ready),
                Err(error) => match Failure::from(error) {
                    // The one after the last closes the channel.
                    Failure::Missing(_) if number > 0 => break,
                    failure => return Err(failure),
                },
            }
        }
        Ok(fill)
    }

    async fn remove(&self, group: &str) -> Result<(), Failure> {
        let channel = self.channel().await?;
        Ok(topology::remove(&channel, group).await?)
    }

    async fn ping(&self) -> Result<(), Failure> {
        let channel = self.channel().await?;
        // Whatever is answered: that it is, is what matters.
        Ok(topology::declare_exchanges(&channel).await?)
    }
}

/// Wall-clock time, in microseconds since 1970.
#[expect(
    clippy::disallowed_methods,
    reason = "places are the same for all that look at them"
)]
fn micros_now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let micros = since.unwrap_or_default().as_micros();
    u64::try_from(micros).unwrap_or(u64::MAX)
}

impl Broker for Rabbit {
    fn system(&self) -> &'static str {
        "rabbitmq"
    }

    fn declare<'a>(&'a self, group: &'a Group) -> Work<'a, Result<(), BrokerError>> {
        Box::pin(self.within(ANSWERS_MANY, self.shared.declare(group)))
    }

    fn publish(&self, message: Message) -> Work<'_, Result<(), PublishError>> {
        Box::pin(async move {
            let key = names::event_key(&message.topic, bucket(&message.key));
            let publisher = &self.shared.publisher;
            publisher
                .publish((names::EVENTS, &key), &message, None)
                .await
        })
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

    fn fill<'a>(&'a self, group: &'a str) -> Work<'a, Result<Fill, BrokerError>> {
        Box::pin(self.answered(ANSWERS, group, self.shared.fill(group)))
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
        Box::pin(self.within(ANSWERS_MANY, settled))
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
