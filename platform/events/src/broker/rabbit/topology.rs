//! Makes what is named in [`names`](super::names) where it is missing, and takes it away.

use lapin::{
    Channel, ExchangeKind,
    options::{
        ExchangeBindOptions, ExchangeDeclareOptions, ExchangeDeleteOptions, ExchangeUnbindOptions,
        QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions,
    },
    types::FieldTable,
};

use crate::{
    BUCKETS,
    broker::{
        BrokerError, Group,
        rabbit::{failure::Failure, names},
    },
};

/// Makes the exchanges that all groups share.
pub(super) async fn declare_exchanges(channel: &Channel) -> lapin::Result<()> {
    for exchange in names::EXCHANGES {
        declare_exchange(channel, exchange).await?;
    }
    Ok(())
}

async fn declare_exchange(channel: &Channel, name: &str) -> lapin::Result<()> {
    let options = ExchangeDeclareOptions {
        durable: true,
        ..ExchangeDeclareOptions::default()
    };
    channel
        .exchange_declare(
            name.into(),
            ExchangeKind::Topic,
            options,
            FieldTable::default(),
        )
        .await
}

async fn bind_exchange(
    channel: &Channel,
    (from, to): (&str, &str),
    pattern: &str,
) -> lapin::Result<()> {
    let (options, arguments) = (ExchangeBindOptions::default(), FieldTable::default());
    channel
        .exchange_bind(to.into(), from.into(), pattern.into(), options, arguments)
        .await
}

/// Makes the queues of a group, with their bindings; topics are not bound yet.
pub(super) async fn declare(channel: &Channel, group: &Group) -> Result<(), BrokerError> {
    let all = async {
        declare_exchanges(channel).await?;
        declare_exchange(channel, &group.name).await?;
        bind_exchange(channel, (&group.name, names::SEEN), "#").await
    };
    let made: lapin::Result<()> = all.await;
    made.map_err(|error| Failure::from(error).about(&group.name))?;
    let options = QueueDeclareOptions {
        durable: true,
        ..QueueDeclareOptions::default()
    };
    let queues = names::queues(group);
    // All of them first: a group in another shape is left as it is.
    for queue in &queues {
        let arguments = queue.arguments.clone();
        let declared = channel.queue_declare(queue.name.as_str().into(), options, arguments);
        let declared = declared.await;
        declared.map_err(|error| Failure::from(error).about(&queue.name))?;
    }
    for queue in &queues {
        for binding in &queue.bindings {
            let bound = channel.queue_bind(
                queue.name.as_str().into(),
                binding.exchange.as_str().into(),
                binding.pattern.as_str().into(),
                QueueBindOptions::default(),
                FieldTable::default(),
            );
            let bound = bound.await;
            bound.map_err(|error| Failure::from(error).about(&queue.name))?;
        }
    }
    Ok(())
}

/// Has a group want a topic, or not any more.
pub(super) async fn want(
    channel: &Channel,
    group: &str,
    topic: &str,
    wanted: bool,
) -> lapin::Result<()> {
    let pattern = names::topic_pattern(topic);
    if wanted {
        bind_exchange(channel, (names::EVENTS, group), &pattern).await
    } else {
        let (to, from, pattern) = (group.into(), names::EVENTS.into(), pattern.as_str().into());
        let arguments = FieldTable::default();
        let options = ExchangeUnbindOptions::default();
        channel
            .exchange_unbind(to, from, pattern, options, arguments)
            .await
    }
}

/// Messages that wait in a queue.
pub(super) async fn ready(channel: &Channel, queue: &str) -> lapin::Result<u64> {
    let options = QueueDeclareOptions {
        passive: true,
        ..QueueDeclareOptions::default()
    };
    let declared = channel.queue_declare(queue.into(), options, FieldTable::default());
    Ok(u64::from(declared.await?.message_count()))
}

/// Removes a group with all that it has; what is not there is not missed.
pub(super) async fn remove(channel: &Channel, group: &str) -> lapin::Result<()> {
    // First what has messages come, so that publishers are told.
    let options = ExchangeDeleteOptions::default();
    channel.exchange_delete(group.into(), options).await?;
    let waiting = names::PAUSES
        .iter()
        .map(|(_, word)| names::wait(group, word));
    let partitions = (0..BUCKETS).map(|number| names::partition(group, number));
    let others = [names::dead(group), names::about(group)];
    for queue in waiting.chain(partitions).chain(others) {
        let options = QueueDeleteOptions::default();
        channel.queue_delete(queue.as_str().into(), options).await?;
    }
    Ok(())
}
