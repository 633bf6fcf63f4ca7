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
        declare_exchange(channel, exchange, FieldTable::default()).await?;
    }
    Ok(())
}

async fn declare_exchange(
    channel: &Channel,
    name: &str,
    arguments: FieldTable,
) -> lapin::Result<()> {
    let options = ExchangeDeclareOptions {
        durable: true,
        ..ExchangeDeclareOptions::default()
    };
    channel
        .exchange_declare(name.into(), ExchangeKind::Topic, options, arguments)
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

/// Makes the exchanges of a group, and has them hand on to each other; what leads to queues is not bound yet.
async fn declare_exchanges_of(channel: &Channel, group: &str) -> lapin::Result<()> {
    declare_exchanges(channel).await?;
    let (parts, strays) = (names::parts(group), names::strays(group));
    declare_exchange(channel, group, FieldTable::default()).await?;
    declare_exchange(channel, &strays, FieldTable::default()).await?;
    declare_exchange(channel, &parts, names::of_parts(group)).await?;
    bind_exchange(channel, (group, &parts), "#").await?;
    bind_exchange(channel, (group, names::SEEN), "#").await
}

/// Makes the queues of a group, with their bindings; topics are not bound yet. Partitions of one that was
/// whole before, or has strays, are left as they are bound: one that is made again has what is moved into it
/// by who [moves strays](super::strays), and then has what is published.
pub(super) async fn declare(channel: &Channel, group: &Group) -> Result<(), BrokerError> {
    make(channel, &group.name, &names::queues(group)).await?;
    let bound = bind_new(channel, group).await;
    bound.map_err(|error| Failure::from(error).about(&group.name))
}

/// Makes what is missing of what the queues of a group share, and the queue of `partition`, where one is
/// named. Queues of other partitions are left as they are.
pub(super) async fn restore(
    channel: &Channel,
    group: &Group,
    partition: Option<u16>,
) -> Result<(), BrokerError> {
    let mut queues = names::queues(group);
    queues.retain(|queue| queue.partition.is_none() || queue.partition == partition);
    make(channel, &group.name, &queues).await
}

async fn make(channel: &Channel, group: &str, queues: &[names::Queue]) -> Result<(), BrokerError> {
    let made = declare_exchanges_of(channel, group).await;
    made.map_err(|error| Failure::from(error).about(group))?;
    let options = QueueDeclareOptions {
        durable: true,
        ..QueueDeclareOptions::default()
    };
    // All of them first: a group in another shape is left as it is.
    for queue in queues {
        let arguments = queue.arguments.clone();
        let declared = channel.queue_declare(queue.name.as_str().into(), options, arguments);
        let declared = declared.await;
        declared.map_err(|error| Failure::from(error).about(&queue.name))?;
    }
    for queue in queues {
        let bound = bind_all(channel, queue).await;
        bound.map_err(|error| Failure::from(error).about(&queue.name))?;
    }
    Ok(())
}

async fn bind_all(channel: &Channel, queue: &names::Queue) -> lapin::Result<()> {
    for binding in &queue.bindings {
        bind(channel, &queue.name, binding).await?;
    }
    Ok(())
}

/// Binds what a group has to the exchanges that all groups share, as whoever makes such a one again does not
/// for others; where the queue of a partition is gone, not those behind it.
pub(super) async fn bind_shared(channel: &Channel, group: &Group) -> lapin::Result<()> {
    declare_exchanges_of(channel, &group.name).await?;
    for topic in &group.topics {
        want(channel, &group.name, topic, true).await?;
    }
    let mut queues = names::queues(group);
    queues.sort_by_key(|queue| queue.partition);
    for queue in &queues {
        bind_all(channel, queue).await?;
    }
    Ok(())
}

/// Whether an exchange is there. One that is not closes the channel.
pub(super) async fn look(channel: &Channel, exchange: &str) -> lapin::Result<()> {
    let options = ExchangeDeclareOptions {
        passive: true,
        ..ExchangeDeclareOptions::default()
    };
    let arguments = FieldTable::default();
    channel
        .exchange_declare(exchange.into(), ExchangeKind::Topic, options, arguments)
        .await
}

/// Has the partitions of a group that is new have what is published. Another instance that reads what is
/// written down about the group hides it; who moves strays of it is there to be seen.
async fn bind_new(channel: &Channel, group: &Group) -> lapin::Result<()> {
    let name = &group.name;
    let is_new = ready(channel, &names::about(name)).await? == 0
        && seen(channel, &names::strays(name)).await? == (0, 0);
    if is_new {
        bind_partitions(channel, group).await?;
    }
    Ok(())
}

/// Has the partitions of a group have what is published.
pub(super) async fn bind_partitions(channel: &Channel, group: &Group) -> lapin::Result<()> {
    for (queue, binding) in names::spread(group) {
        bind(channel, &queue, &binding).await?;
    }
    Ok(())
}

async fn bind(channel: &Channel, queue: &str, binding: &names::Binding) -> lapin::Result<()> {
    let bound = channel.queue_bind(
        queue.into(),
        binding.exchange.as_str().into(),
        binding.pattern.as_str().into(),
        QueueBindOptions::default(),
        FieldTable::default(),
    );
    bound.await
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
    Ok(seen(channel, queue).await?.0)
}

/// Messages that wait in a queue, and its consumers.
pub(super) async fn seen(channel: &Channel, queue: &str) -> lapin::Result<(u64, u64)> {
    let options = QueueDeclareOptions {
        passive: true,
        ..QueueDeclareOptions::default()
    };
    let declared = channel.queue_declare(queue.into(), options, FieldTable::default());
    let declared = declared.await?;
    Ok((
        u64::from(declared.message_count()),
        u64::from(declared.consumer_count()),
    ))
}

/// Removes a group with all that it has; what is not there is not missed.
pub(super) async fn remove(channel: &Channel, group: &str) -> lapin::Result<()> {
    // First what has messages come, so that publishers are told.
    for exchange in [group, &names::parts(group), &names::strays(group)] {
        let options = ExchangeDeleteOptions::default();
        channel.exchange_delete(exchange.into(), options).await?;
    }
    let waiting = names::PAUSES
        .iter()
        .map(|(_, word)| names::wait(group, word));
    let partitions = (0..BUCKETS).map(|number| names::partition(group, number));
    let others = [
        names::dead(group),
        names::about(group),
        names::strays(group),
    ];
    for queue in waiting.chain(partitions).chain(others) {
        let options = QueueDeleteOptions::default();
        channel.queue_delete(queue.as_str().into(), options).await?;
    }
    Ok(())
}
