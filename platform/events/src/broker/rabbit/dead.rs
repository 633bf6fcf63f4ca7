//! Dead letters: looked at by taking them in hand and giving them back.
//!
//! The queue of them is read by nobody else, so this disturbs no one; but who looks at the same time, in
//! another process, may miss those that are in hand here. A letter has a place by when it became one.

use std::{
    collections::BTreeMap,
    time::{Duration, UNIX_EPOCH},
};

use lapin::{
    Channel,
    message::BasicGetMessage,
    options::{BasicAckOptions, BasicGetOptions, BasicNackOptions},
};
use twox_hash::XxHash64;

use crate::{
    broker::{
        BrokerError, DeadLetter, Headers,
        rabbit::{Shared, failure::Failure, names, topology, wanted, wire},
    },
    headers,
};

/// Most letters that are looked at; what is behind them is seen once some are settled.
const LOOKED_AT_MAX: usize = 10_000;

/// Microseconds in a second.
const MICROS: u64 = 1_000_000;

/// The letters of a group after a place.
pub(super) async fn list(
    shared: &Shared,
    group: &str,
    after: u64,
    count_max: u16,
) -> Result<Vec<DeadLetter>, Failure> {
    let _alone = shared.looking.lock().await;
    let channel = shared.channel().await?;
    let mut letters = BTreeMap::new();
    for _ in 0..LOOKED_AT_MAX {
        let Some(got) = get(&channel, group).await? else {
            break;
        };
        let letter = read(group, got);
        if letter.place > after {
            letters.insert(letter.place, letter);
        }
        if letters.len() > usize::from(count_max) {
            letters.pop_last();
        }
    }
    give_back(&channel, group).await?;
    Ok(letters.into_values().collect())
}

/// Puts a letter back into its queue with these headers, or drops it where there are none.
pub(super) async fn settle(
    shared: &Shared,
    group: &str,
    letter: &DeadLetter,
    headers: Option<Headers>,
) -> Result<(), BrokerError> {
    let _alone = shared.looking.lock().await;
    let about = |failure: Failure| failure.about(group);
    let failed = |error: lapin::Error| Failure::from(error).about(group);
    let channel = shared.channel().await.map_err(about)?;
    let mut found = None;
    for _ in 0..LOOKED_AT_MAX {
        let Some(got) = get(&channel, group).await.map_err(about)? else {
            break;
        };
        let tag = got.delivery.delivery_tag;
        let there = read(group, got);
        if there.place == letter.place {
            found = Some((tag, there));
            break;
        }
    }
    let Some((tag, found)) = found else {
        give_back(&channel, group).await.map_err(about)?;
        return Err(BrokerError::Missing("the dead letter".to_owned()));
    };
    if let Some(headers) = headers {
        let mut message = found.message;
        message.headers = headers;
        let queue = names::partition(group, found.partition);
        let published = shared.publisher.publish(("", &queue), &message, None).await;
        published.map_err(|error| wanted::refused(&queue, error))?;
    }
    let acked = channel.basic_ack(tag, BasicAckOptions::default()).await;
    acked.map_err(failed)?;
    give_back(&channel, group).await.map_err(about)
}

async fn get(channel: &Channel, group: &str) -> Result<Option<BasicGetMessage>, Failure> {
    let queue = names::dead(group);
    let got = channel.basic_get(queue.as_str().into(), BasicGetOptions::default());
    Ok(got.await?)
}

/// Gives all back that is in hand, and waits until it is there.
async fn give_back(channel: &Channel, group: &str) -> Result<(), Failure> {
    let all = BasicNackOptions {
        multiple: true,
        requeue: true,
    };
    channel.basic_nack(0, all).await?;
    topology::ready(channel, &names::dead(group)).await?;
    Ok(())
}

fn read(group: &str, got: BasicGetMessage) -> DeadLetter {
    let delivery = got.delivery;
    let key = delivery.routing_key.as_str();
    let read = wire::read(&delivery.properties, key, delivery.data);
    let mut message = read.message;
    let place = read.place.unwrap_or_else(|| {
        // RabbitMQ made it one, and says when to the second; what comes after keeps it apart.
        let seconds = read.death.as_ref().map_or(0, |death| death.time);
        let id = message.headers.get(headers::ID).map_or("", |id| id);
        seconds * MICROS + XxHash64::oneshot(0, id.as_bytes()) % MICROS
    });
    if let Some(death) = read.death {
        let mut set = |name: &str, value: String| {
            message.headers.entry(name.to_owned()).or_insert(value);
        };
        set(headers::DEAD_REASON, death.reason);
        set(headers::DEAD_GROUP, group.to_owned());
        let time = UNIX_EPOCH + Duration::from_secs(death.time);
        set(
            headers::DEAD_TIME,
            humantime::format_rfc3339_seconds(time).to_string(),
        );
    }
    DeadLetter {
        place,
        partition: names::partition_of(key).unwrap_or_default(),
        message,
    }
}
