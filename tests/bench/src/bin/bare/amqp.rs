//! RabbitMQ by lapin: one channel publishes, with confirmations.

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use gantry_bench::events::{Failed, GROUP, PREFETCH, TOPIC};
use gantry_events::{Message, bucket};
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, Consumer,
    PublisherConfirm,
    options::{
        BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions,
        ConfirmSelectOptions,
    },
    types::{AMQPValue, FieldTable, LongString},
};

use crate::{Client, Queue, not_taken};

/// Where the platform has events published.
const EXCHANGE: &str = "gantry.events";

pub(crate) struct Amqp {
    publishing: Channel,
    // Both live as long as their channels.
    _connection: Connection,
    consuming: Connection,
    pending: FuturesUnordered<PublisherConfirm>,
}

/// A message as it is sent.
pub(crate) struct Ready {
    key: String,
    properties: BasicProperties,
    body: Vec<u8>,
}

pub(crate) struct Handed {
    channel: Channel,
    consumer: Consumer,
}

impl Client for Amqp {
    type Ready = Ready;
    type Queue = Handed;

    async fn connect(place: &str) -> Result<Self, Failed> {
        let connection = Connection::connect(place, ConnectionProperties::default()).await?;
        let consuming = Connection::connect(place, ConnectionProperties::default()).await?;
        let publishing = connection.create_channel().await?;
        publishing
            .confirm_select(ConfirmSelectOptions::default())
            .await?;
        Ok(Self {
            publishing,
            _connection: connection,
            consuming,
            pending: FuturesUnordered::new(),
        })
    }

    fn ready(message: Message) -> Ready {
        let mut table = FieldTable::default();
        let text = |text: &str| AMQPValue::LongString(LongString::from(text.as_bytes()));
        for (name, value) in &message.headers {
            table.insert(format!("cloudEvents:{name}").into(), text(value));
        }
        table.insert("gantry-key".into(), text(&message.key));
        let header = |name: &str| message.headers[name].as_str().into();
        let properties = BasicProperties::default()
            .with_delivery_mode(2)
            .with_type(message.topic.as_str().into())
            .with_headers(table)
            .with_message_id(header("id"))
            .with_content_type(header("datacontenttype"))
            .with_timestamp(1_700_000_000);
        Ready {
            key: format!("{TOPIC}.{}", bucket(&message.key)),
            properties,
            body: message.body.into(),
        }
    }

    async fn publish(&mut self, ready: Ready, window: usize) -> Result<(), Failed> {
        let options = BasicPublishOptions {
            mandatory: true,
            ..BasicPublishOptions::default()
        };
        let Ready {
            key,
            properties,
            body,
        } = ready;
        let exchange = EXCHANGE.into();
        let sent = self
            .publishing
            .basic_publish(exchange, key.into(), options, &body, properties);
        self.pending.push(sent.await?);
        while self.pending.len() >= window {
            self.one().await?;
        }
        Ok(())
    }

    async fn confirmed(&mut self) -> Result<(), Failed> {
        while !self.pending.is_empty() {
            self.one().await?;
        }
        Ok(())
    }

    async fn queue(&mut self, partition: u16) -> Result<Handed, Failed> {
        let channel = self.consuming.create_channel().await?;
        channel
            .basic_qos(PREFETCH, BasicQosOptions::default())
            .await?;
        let queue = format!("{GROUP}.{partition}");
        let options = BasicConsumeOptions::default();
        let consumer = channel
            .basic_consume(queue.into(), "".into(), options, FieldTable::default())
            .await?;
        Ok(Handed { channel, consumer })
    }
}

impl Amqp {
    async fn one(&mut self) -> Result<(), Failed> {
        match self.pending.next().await.transpose()? {
            Some(Confirmation::Ack(None)) | None => Ok(()),
            Some(other) => Err(not_taken(other)),
        }
    }
}

impl Queue for Handed {
    async fn next(&mut self) -> Result<(u64, Vec<u8>), Failed> {
        let delivery = self.consumer.next().await.ok_or("the queue has ended")??;
        Ok((delivery.delivery_tag, delivery.data))
    }

    async fn ack(&mut self, tag: u64) -> Result<(), Failed> {
        let ack = self.channel.basic_ack(tag, BasicAckOptions::default());
        Ok(ack.await?)
    }
}
