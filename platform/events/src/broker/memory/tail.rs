//! Looking at what is taken.

use std::sync::Arc;

use super::{Shared, state::State};
use crate::broker::{Sighting, Tail, Work};

/// How far behind who looks may be.
const BEHIND_MAX: usize = 1_000;

/// Goes through all that is taken from some time on.
#[derive(Debug)]
pub(super) struct Looking {
    shared: Arc<Shared>,
    topics: Vec<String>,
    /// How much of all is seen or passed over.
    at: usize,
    /// What of it was missed since the last one that was seen.
    missed: u64,
}

impl Looking {
    pub(super) fn new(shared: &Arc<Shared>, topics: &[String], state: &State) -> Self {
        Self {
            shared: Arc::clone(shared),
            topics: topics.to_vec(),
            at: state.taken.len(),
            missed: 0,
        }
    }

    fn look(&mut self) -> Found {
        let state = self.shared.lock();
        if !state.connected {
            return Found::Ended;
        }
        let wanted = |topic: &String| self.topics.is_empty() || self.topics.contains(topic);
        while let Some(message) = state.taken.get(self.at) {
            let behind = state.taken.len() - self.at > BEHIND_MAX;
            self.at += 1;
            if !wanted(&message.topic) {
                continue;
            }
            if behind {
                self.missed += 1;
                continue;
            }
            return Found::One(Sighting::of(message, std::mem::take(&mut self.missed)));
        }
        Found::Nothing
    }
}

/// What a look found.
enum Found {
    One(Sighting),
    Nothing,
    Ended,
}

impl Tail for Looking {
    fn next(&mut self) -> Work<'_, Option<Sighting>> {
        Box::pin(async move {
            loop {
                let shared = Arc::clone(&self.shared);
                // Before the look: what changes after it is not missed.
                let changed = shared.changed.notified();
                match self.look() {
                    Found::One(sighting) => return Some(sighting),
                    Found::Ended => return None,
                    Found::Nothing => changed.await,
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        Message,
        broker::{Broker as _, Group, memory::Memory},
    };

    /// Goal: what is too much for a slow reader is missed and counted, and of its topics alone.
    /// Method: twice as many events as it may be behind by, of which half are of another topic, and ten
    /// more; then it goes on.
    #[tokio::test(start_paused = true)]
    async fn what_a_slow_reader_misses_is_counted() {
        let broker = Memory::new(1);
        let group = Group {
            name: "a.b".to_owned(),
            partitions: 1,
            topics: vec!["one".to_owned(), "other".to_owned()],
            queue_messages_max: None,
        };
        broker.declare(&group).await.unwrap();
        let mut tail = broker.tail(&["one".to_owned()]).await.unwrap();
        let publish = async |topic: &str| {
            let message = Message {
                topic: topic.to_owned(),
                key: "k".to_owned(),
                headers: std::collections::BTreeMap::default(),
                body: bytes::Bytes::new(),
            };
            broker.publish(message).await.unwrap();
        };
        for _ in 0..super::BEHIND_MAX + 10 {
            publish("other").await;
            publish("one").await;
        }
        // Half of those that it may be behind by are of its topic.
        let expected = super::BEHIND_MAX / 2 + 10;
        let seen = tail.next().await.unwrap();
        assert_eq!(u64::try_from(expected).unwrap(), seen.missed);
        for _ in 1..super::BEHIND_MAX / 2 {
            assert_eq!(0, tail.next().await.unwrap().missed);
        }
        publish("one").await;
        assert_eq!(0, tail.next().await.unwrap().missed);
        broker.disconnect();
        assert_eq!(None, tail.next().await);
    }
}
