//! Publishes messages, and believes nothing but the confirmation of each.
//!
//! A message that no queue wants is *confirmed* by RabbitMQ, after it was sent back: whoever looks at
//! confirmations alone takes it for delivered. What comes back is told apart by nothing but the order
//! in which it comes, and confirmations of other messages may come between. So a channel has one message
//! at a time: what comes back is that one. Many channels make up for it.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use gantry::{
    config::Live,
    journal::{Journal, Kind},
};
use lapin::{
    Channel, Confirmation,
    options::{BasicPublishOptions, ConfirmSelectOptions},
};
use tokio::{sync::Semaphore, time};
use tracing::{info, warn};

use crate::{
    Message,
    broker::{
        Config, PublishError,
        rabbit::{
            failure::Failure,
            link::{self, Link},
            topology, wire,
        },
    },
};

/// Most messages on their way at once; others wait for one to be confirmed.
const CHANNELS: usize = 128;

/// Longest key by which a message is routed, in bytes.
const KEY_MAX: usize = 255;

/// Publishes messages over one connection.
#[derive(Debug)]
pub(super) struct Publisher {
    link: Link,
    journal: Journal,
    config: Live<Config>,
    room: Semaphore,
    idle: Mutex<Idle>,
    /// Whether it was told that the broker takes nothing.
    blocked: AtomicBool,
}

/// Channels of one connection on which nothing is on its way.
#[derive(Debug, Default)]
struct Idle {
    live: Option<Arc<link::Live>>,
    channels: Vec<Channel>,
    /// Whether the exchanges that all share are known to be there.
    prepared: bool,
}

impl Publisher {
    pub(super) fn new(link: Link, config: Live<Config>, journal: Journal) -> Self {
        Self {
            link,
            journal,
            config,
            room: Semaphore::new(CHANNELS),
            idle: Mutex::default(),
            blocked: AtomicBool::new(false),
        }
    }

    /// Sends a message to an exchange; ends once it is confirmed by each queue it went to. `place` is
    /// where dead letters are sorted by, for one that is to be.
    pub(super) async fn publish(
        &self,
        (exchange, key): (&str, &str),
        message: &Message,
        place: Option<u64>,
    ) -> Result<(), PublishError> {
        if key.len() > KEY_MAX {
            let why = format!("a name in it has more than {KEY_MAX} bytes");
            return Err(PublishError::Refused(why));
        }
        let bound = self.config.read(|config| config.confirm_timeout);
        let published = time::timeout(bound, self.confirmed((exchange, key), message, place));
        published.await.unwrap_or(Err(PublishError::TimedOut))
    }

    async fn confirmed(
        &self,
        (exchange, key): (&str, &str),
        message: &Message,
        place: Option<u64>,
    ) -> Result<(), PublishError> {
        let _room = self.room.acquire().await.expect("nobody closes it");
        let live = self.link.live().await?;
        if let Some(why) = live.blocked() {
            self.tell_blocked(&why);
            return Err(PublishError::Blocked(why));
        }
        let sent = self.sent(&live, (exchange, key), message, place).await;
        let (channel, confirmation) = match sent {
            Ok(sent) => sent,
            Err(error) => return Err(self.not_sent(&live, error.into()).await),
        };
        self.put_back(&live, channel);
        self.tell_taken();
        match confirmation {
            Confirmation::Ack(None) => Ok(()),
            Confirmation::Ack(Some(_)) | Confirmation::Nack(Some(_)) => {
                Err(PublishError::Unroutable)
            }
            Confirmation::Nack(None) => {
                let why = "a queue is full, or cannot write it down".to_owned();
                Err(PublishError::Refused(why))
            }
            // Only a channel that was never asked to confirm says so: a mistake of ours.
            Confirmation::NotRequested => Err(Failure::Lost.into()),
        }
    }

    /// What becomes of a message whose channel was closed.
    async fn not_sent(&self, live: &Arc<link::Live>, failure: Failure) -> PublishError {
        if !live.connection().status().connected() {
            self.link.note(live, failure.clone()).await;
            return failure.into();
        }
        // Nothing else was on the channel: what the broker says of it, it says of this message.
        match failure {
            Failure::Missing(_) => {
                self.idle().prepared = false;
                PublishError::Unroutable
            }
            Failure::Denied(why) | Failure::Other(why) => PublishError::Refused(why),
            failure => failure.into(),
        }
    }

    /// Sends a message on a channel that nothing else is on; the channel is closed with all that is on
    /// it when this fails or is dropped.
    async fn sent(
        &self,
        live: &Arc<link::Live>,
        (exchange, key): (&str, &str),
        message: &Message,
        place: Option<u64>,
    ) -> lapin::Result<(Channel, Confirmation)> {
        let channel = match self.take(live) {
            Some(channel) => channel,
            None => self.open(live).await?,
        };
        let options = BasicPublishOptions {
            mandatory: true,
            ..BasicPublishOptions::default()
        };
        let properties = wire::properties(message, place);
        let confirmation = channel
            .basic_publish(
                exchange.into(),
                key.into(),
                options,
                &message.body,
                properties,
            )
            .await?
            .await?;
        Ok((channel, confirmation))
    }

    fn take(&self, live: &Arc<link::Live>) -> Option<Channel> {
        let mut idle = self.idle();
        let current = idle.live.as_ref();
        if !current.is_some_and(|current| Arc::ptr_eq(current, live)) {
            *idle = Idle {
                live: Some(Arc::clone(live)),
                ..Idle::default()
            };
        }
        loop {
            let channel = idle.channels.pop()?;
            if channel.status().connected() {
                return Some(channel);
            }
        }
    }

    /// Opens a channel that confirms what is published on it.
    async fn open(&self, live: &Arc<link::Live>) -> lapin::Result<Channel> {
        let channel = live.connection().create_channel().await?;
        if !self.idle().prepared {
            topology::declare_exchanges(&channel).await?;
            self.idle().prepared = true;
        }
        let confirm = ConfirmSelectOptions::default();
        channel.confirm_select(confirm).await?;
        Ok(channel)
    }

    fn idle(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put_back(&self, live: &Arc<link::Live>, channel: Channel) {
        let mut idle = self.idle();
        if idle.live.as_ref().is_some_and(|it| Arc::ptr_eq(it, live)) {
            idle.channels.push(channel);
        }
    }

    fn tell_blocked(&self, why: &str) {
        if !self.blocked.swap(true, Ordering::Relaxed) {
            warn!(why, "the broker takes nothing");
            let detail = format!("takes nothing: {why}");
            self.journal.record(Kind::Broker, "publishing", detail);
        }
    }

    fn tell_taken(&self) {
        if self.blocked.load(Ordering::Relaxed) && self.blocked.swap(false, Ordering::Relaxed) {
            info!("the broker takes messages again");
            self.journal
                .record(Kind::Broker, "publishing", "takes messages again");
        }
    }
}
