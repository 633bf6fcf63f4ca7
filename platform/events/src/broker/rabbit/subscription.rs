//! The messages of one queue, and what becomes of each.
//!
//! A subscription has a channel of its own: closing it gives back all that is not settled. To come again
//! later, and to become a dead letter, a copy of the message is published elsewhere and confirmed before
//! the message is acked: there are two of it for a moment, and never none.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::{FutureExt as _, StreamExt as _};
use gantry::backoff;
use lapin::{
    Channel, Consumer,
    options::{BasicAckOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions},
    protocol,
    types::FieldTable,
};
use tokio::time;
use tracing::warn;

use crate::{
    Message,
    broker::{
        BrokerError, Delivery, Headers, Settle, Settler, Subscription, Tag, Work,
        rabbit::{Shared, failure::Failure, link::Live, names, wire},
    },
};

/// Pauses between tries of publishing a copy that is not taken.
const PAUSES: backoff::Config = backoff::Config {
    min: Duration::from_millis(200),
    max: Duration::from_secs(10),
    multiplier: 2.0,
    jitter: 0.2,
};

/// Reads a queue.
pub(super) struct Reader {
    consumer: Consumer,
    hand: Arc<Hand>,
}

/// What is handed out and not settled.
struct Hand {
    shared: Arc<Shared>,
    group: String,
    partition: u16,
    open: Mutex<Open>,
}

/// None of it once the subscription has ended.
#[derive(Default)]
struct Open {
    channel: Option<Channel>,
    unsettled: BTreeMap<u64, Message>,
}

impl Reader {
    pub(super) async fn subscribe(
        shared: Arc<Shared>,
        live: &Live,
        (group, partition): (&str, u16),
        prefetch: u16,
    ) -> Result<Self, Failure> {
        let channel = live.connection().create_channel().await?;
        // Before the consumer is there: given up from now on, the channel is closed all the same. Else the
        // consumer would come about with nobody to read it, and keep the queue from all others.
        let hand = Arc::new(Hand {
            shared,
            group: group.to_owned(),
            partition,
            open: Mutex::new(Open {
                channel: Some(channel.clone()),
                unsettled: BTreeMap::new(),
            }),
        });
        channel
            .basic_qos(prefetch, BasicQosOptions::default())
            .await?;
        let queue = names::partition(group, partition);
        let consumer = channel
            .basic_consume(
                queue.as_str().into(),
                "".into(),
                BasicConsumeOptions::default(),
                FieldTable::default(),
            )
            .await?;
        Ok(Self { consumer, hand })
    }

    async fn take(&mut self) -> Option<Delivery> {
        self.hand.open().channel.as_ref()?;
        let delivery = match self.consumer.next().await {
            Some(Ok(delivery)) => delivery,
            ended => {
                self.hand.tell_end(ended.and_then(Result::err));
                self.hand.end();
                return None;
            }
        };
        let (tag, key) = (delivery.delivery_tag, delivery.routing_key.as_str());
        let read = wire::read(&delivery.properties, key, delivery.data);
        self.hand.hold(tag, &read.message);
        Some(Delivery {
            tag: Tag(tag),
            redelivered: delivery.redelivered || read.came_before,
            message: read.message,
        })
    }
}

impl Hand {
    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hold(&self, tag: u64, message: &Message) {
        self.shared.count_unsettled(&self.group, 1);
        self.open().unsettled.insert(tag, message.clone());
    }

    fn let_go(&self, tag: u64) {
        if self.open().unsettled.remove(&tag).is_some() {
            self.shared.count_unsettled(&self.group, -1);
        }
    }

    /// Gives all back that is not settled.
    fn end(&self) {
        let ended = std::mem::take(&mut *self.open());
        if let Some(channel) = ended.channel {
            // Before the consumer goes: at its cancellation alone the queue would go on to the next one,
            // past what comes back with the channel. It is sent as it is first polled; nobody waits
            // for the answer.
            let closing = channel.close(protocol::constants::REPLY_SUCCESS, "OK".into());
            drop(closing.now_or_never());
        }
        let count = i64::try_from(ended.unsettled.len()).unwrap_or(i64::MAX);
        self.shared.count_unsettled(&self.group, -count);
    }

    fn tell_end(&self, error: Option<lapin::Error>) {
        let queue = names::partition(&self.group, self.partition);
        match error.map(Failure::from) {
            None => warn!(%queue, "the broker ended a subscription"),
            // Of a connection that is gone it is told where it is made again.
            Some(Failure::Lost | Failure::Broken(_)) => {}
            Some(error) => warn!(%queue, %error, "the broker ended a subscription"),
        }
    }

    fn of(&self, tag: u64) -> Result<(Channel, Message), BrokerError> {
        let open = self.open();
        let Some(channel) = &open.channel else {
            return Err(ended());
        };
        let message = open.unsettled.get(&tag);
        let message = message.ok_or_else(|| BrokerError::Missing("such a message".to_owned()))?;
        Ok((channel.clone(), message.clone()))
    }

    async fn settle(&self, tag: u64, how: Settle) -> Result<(), BrokerError> {
        let (channel, message) = self.of(tag)?;
        let settled = match how {
            Settle::Ack => channel.basic_ack(tag, BasicAckOptions::default()).await,
            Settle::Requeue => {
                // RabbitMQ 4.3 counts a reject, and not this: to give back is no fault of a message.
                let options = BasicNackOptions {
                    requeue: true,
                    multiple: false,
                };
                channel.basic_nack(tag, options).await
            }
            Settle::Retry { after, headers } => {
                // Nothing of the channel is held while it may take long.
                drop(channel);
                let key = names::wait_key(names::pause(after), &self.group, self.partition);
                let copied = self.copied(tag, (names::WAIT, &key), message, headers, false);
                copied.await?
            }
            Settle::Reject(headers) => {
                drop(channel);
                let key = names::rejected_key(&self.group, self.partition);
                let copied = self.copied(tag, (names::DEAD, &key), message, headers, true);
                copied.await?
            }
        };
        settled.map_err(|_| ended())?;
        self.let_go(tag);
        Ok(())
    }

    /// Has a copy of a message confirmed elsewhere, however long that takes, and acks the message.
    async fn copied(
        &self,
        tag: u64,
        to: (&str, &str),
        mut message: Message,
        headers: Headers,
        dead: bool,
    ) -> Result<lapin::Result<()>, BrokerError> {
        message.headers.extend(headers);
        let place = dead.then(|| self.shared.next_place());
        let mut tries = 0;
        while let Err(error) = self.shared.publisher.publish(to, &message, place).await {
            if tries == 0 {
                let queue = names::partition(&self.group, self.partition);
                warn!(%queue, exchange = to.0, %error, "a message cannot be put elsewhere, and is tried again");
            }
            time::sleep(PAUSES.pause_after(tries)).await;
            tries += 1;
            // Whose subscription has ended comes again without us.
            self.of(tag)?;
        }
        let (channel, _) = self.of(tag)?;
        Ok(channel.basic_ack(tag, BasicAckOptions::default()).await)
    }
}

fn ended() -> BrokerError {
    BrokerError::Disconnected("the subscription has ended".into())
}

impl Subscription for Reader {
    fn next(&mut self) -> Work<'_, Option<Delivery>> {
        Box::pin(self.take())
    }

    fn settler(&self) -> Box<dyn Settler> {
        Box::new(Settles(Arc::clone(&self.hand)))
    }
}

// Whoever settles has it too, and may be there for longer.
impl Drop for Reader {
    fn drop(&mut self) {
        self.hand.end();
    }
}

impl Drop for Hand {
    fn drop(&mut self) {
        self.end();
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.hand.fmt(f)
    }
}

impl fmt::Debug for Hand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription")
            .field("group", &self.group)
            .field("partition", &self.partition)
            .finish_non_exhaustive()
    }
}

/// Settles what a [`Reader`] hands out.
#[derive(Debug)]
struct Settles(Arc<Hand>);

impl Settler for Settles {
    fn settle(&self, tag: Tag, how: Settle) -> Work<'_, Result<(), BrokerError>> {
        Box::pin(self.0.settle(tag.0, how))
    }
}
