//! Looking at what is published: copies of what groups have, in a queue of one's own.
//!
//! The exchange of each group hands on to `gantry.seen`, and that to the queues of those who look. So what
//! no group wants does not come here, and stays unroutable; what several want comes once; and what a group
//! has no queue for is among its [strays](super::strays), whoever looks. The queue
//! drops its oldest where it is full, and does not tell of it: nobody waits for who looks.

use std::{fmt, time::Duration};

use futures_util::StreamExt as _;
use lapin::{
    Channel, Consumer,
    options::{
        BasicAckOptions, BasicConsumeOptions, BasicQosOptions, QueueBindOptions,
        QueueDeclareOptions,
    },
    types::FieldTable,
};
use tokio::time::Instant;

use crate::broker::{
    Sighting, Tail, Work,
    rabbit::{failure::Failure, link::Live, names, topology, wire},
};

/// Copies at hand at most.
const PREFETCH: u16 = 500;

/// How often it is looked whether the queue is full.
const LOOK: Duration = Duration::from_secs(1);

/// Reads the queue; it goes with the channel.
pub(super) struct Looking {
    channel: Channel,
    consumer: Consumer,
    queue: String,
    /// The last that was shown: it and those before it are done with.
    shown: Option<u64>,
    /// When the queue is looked at next.
    look_at: Instant,
    /// Whether it was full, so that some are missing.
    full: bool,
}

impl Looking {
    pub(super) async fn begin(live: &Live, topics: &[String]) -> Result<Self, Failure> {
        let channel = live.connection().create_channel().await?;
        topology::declare_exchanges(&channel).await?;
        channel
            .basic_qos(PREFETCH, BasicQosOptions::default())
            .await?;
        let options = QueueDeclareOptions {
            exclusive: true,
            auto_delete: true,
            ..QueueDeclareOptions::default()
        };
        let declared = channel.queue_declare("".into(), options, names::of_looking());
        let queue = declared.await?.name().to_string();
        let patterns = match topics {
            [] => vec!["#".to_owned()],
            topics => topics.iter().map(|it| names::topic_pattern(it)).collect(),
        };
        for pattern in patterns {
            let bound = channel.queue_bind(
                queue.as_str().into(),
                names::SEEN.into(),
                pattern.as_str().into(),
                QueueBindOptions::default(),
                FieldTable::default(),
            );
            bound.await?;
        }
        let options = BasicConsumeOptions::default();
        let consumed = channel.basic_consume(
            queue.as_str().into(),
            "".into(),
            options,
            FieldTable::default(),
        );
        Ok(Self {
            consumer: consumed.await?,
            channel,
            queue,
            shown: None,
            look_at: Instant::now() + LOOK,
            full: false,
        })
    }

    /// Cut short anywhere before the next one is there, it has lost nothing: what is not acked now is
    /// by a later one.
    async fn take(&mut self) -> Option<Sighting> {
        if let Some(tag) = self.shown.take() {
            let options = BasicAckOptions { multiple: true };
            self.channel.basic_ack(tag, options).await.ok()?;
        }
        if Instant::now() >= self.look_at {
            self.look_at = Instant::now() + LOOK;
            let ready = topology::ready(&self.channel, &self.queue).await.ok()?;
            self.full |= ready >= names::LOOKING_MAX;
        }
        let delivery = self.consumer.next().await?.ok()?;
        self.shown = Some(delivery.delivery_tag);
        let key = delivery.routing_key.as_str();
        let read = wire::read(&delivery.properties, key, delivery.data);
        let missed = u64::from(std::mem::take(&mut self.full));
        Some(Sighting::of(&read.message, missed))
    }
}

impl Tail for Looking {
    fn next(&mut self) -> Work<'_, Option<Sighting>> {
        Box::pin(self.take())
    }
}

impl fmt::Debug for Looking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Looking").finish_non_exhaustive()
    }
}
