//! Dead letters: looked at by taking them in hand and giving them back.
//!
//! The queue of them is read by nobody else, so this disturbs no one; but who looks at the same time, in
//! another process, may miss those that are in hand here.
//!
//! A letter has a place by when it became one. Of two processes, or of RabbitMQ itself, two may have the
//! same, so a letter is told from others by what it is, too. One of which a copy was confirmed too late is
//! there twice: then the copy is dropped.

use std::collections::BTreeMap;

use gantry_store::Timestamp;
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
    dead::Reason,
    envelope::rfc3339,
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
    let mut page = Page::new(after, usize::from(count_max));
    for _ in 0..LOOKED_AT_MAX {
        let Some(got) = get(&channel, group).await? else {
            break;
        };
        let tag = got.delivery.delivery_tag;
        if !page.take(read(group, got)) {
            channel.basic_ack(tag, BasicAckOptions::default()).await?;
        }
    }
    give_back(&channel, group).await?;
    Ok(page.finish())
}

/// The first letters after a place.
struct Page {
    after: u64,
    count_max: usize,
    /// By place, and among equals by arrival; one more than there may be.
    letters: BTreeMap<(u64, usize), DeadLetter>,
    arrivals: usize,
}

impl Page {
    fn new(after: u64, count_max: usize) -> Self {
        Self {
            after,
            count_max,
            letters: BTreeMap::new(),
            arrivals: 0,
        }
    }

    /// Looks at a letter; false where it is a copy of one that is there.
    fn take(&mut self, letter: DeadLetter) -> bool {
        let place = letter.place;
        let mut equals = self.letters.range((place, 0)..=(place, usize::MAX));
        if equals.any(|(_, there)| is_same(there, &letter)) {
            return false;
        }
        if place > self.after {
            self.arrivals += 1;
            self.letters.insert((place, self.arrivals), letter);
        }
        if self.letters.len() > self.count_max + 1 {
            self.letters.pop_last();
        }
        true
    }

    /// All of it. It ends between two places, as the next one begins after its last, but where all have
    /// the same.
    fn finish(mut self) -> Vec<DeadLetter> {
        let first = self.letters.keys().next().copied();
        let last = self.letters.keys().next_back().copied();
        if let (Some((first, _)), Some((last, _))) = (first, last)
            && self.letters.len() > self.count_max
            && first < last
        {
            self.letters.split_off(&(last, 0));
        }
        self.letters.into_values().take(self.count_max).collect()
    }
}

/// Whether two are the same letter.
fn is_same(one: &DeadLetter, other: &DeadLetter) -> bool {
    let id = |letter: &DeadLetter| letter.message.headers.get(headers::ID).cloned();
    (one.place, one.partition) == (other.place, other.partition)
        && id(one) == id(other)
        && one.message.key == other.message.key
        && one.message.body == other.message.body
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
        if is_same(&there, letter) {
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
        let reason = Reason::of_rabbit(&death.reason).as_str();
        set(headers::DEAD_REASON, reason.to_owned());
        set(headers::DEAD_GROUP, group.to_owned());
        let micros = i64::try_from(death.time.saturating_mul(MICROS));
        let time = Timestamp::from_micros(micros.unwrap_or(i64::MAX));
        set(headers::DEAD_TIME, rfc3339(time));
    }
    DeadLetter {
        place,
        partition: names::partition_of(key).unwrap_or_default(),
        message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Message;

    fn letter(place: u64, id: &str) -> DeadLetter {
        DeadLetter {
            place,
            partition: 0,
            message: Message {
                topic: "Told".to_owned(),
                key: "a".to_owned(),
                headers: [(headers::ID.to_owned(), id.to_owned())].into(),
                body: "1".into(),
            },
        }
    }

    fn ids(letters: &[DeadLetter]) -> Vec<&str> {
        let ids = letters.iter().map(|it| &*it.message.headers[headers::ID]);
        ids.collect()
    }

    /// Goal: letters with one place are all seen, on one page; a copy of one is told.
    /// Method: pages over some that have the same place, whichever way they come, and a copy.
    #[test]
    fn a_page_ends_between_places() {
        let mut all = vec![
            letter(1, "a"),
            letter(2, "b"),
            letter(3, "c"),
            letter(3, "d"),
            letter(4, "e"),
        ];
        for turn in 0..all.len() {
            all.rotate_left(turn);
            let mut seen = Vec::new();
            let mut after = 0;
            loop {
                let mut page = Page::new(after, 3);
                for letter in &all {
                    assert!(page.take(letter.clone()));
                }
                let page = page.finish();
                let Some(last) = page.last() else { break };
                after = last.place;
                seen.extend(page);
            }
            let mut seen = ids(&seen);
            seen.sort_unstable();
            assert_eq!(vec!["a", "b", "c", "d", "e"], seen, "{all:?}");
        }
        let mut page = Page::new(0, 3);
        assert!(page.take(letter(1, "a")));
        assert!(!page.take(letter(1, "a")));
        assert!(page.take(letter(1, "b")));
        assert_eq!(vec!["a", "b"], ids(&page.finish()));
    }
}
