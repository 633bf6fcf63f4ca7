//! Those who read along.
//!
//! Nobody waits for them: one that is slow misses messages, and is told how many.

use std::{collections::BTreeSet, sync::Arc};

use tokio::sync::mpsc;

use super::engine::Message;

/// Messages that wait for one reader.
const WAITING: usize = 1_024;

/// A message, and how many the reader missed before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shown {
    pub(super) message: Arc<Message>,
    pub(super) missed: u64,
}

/// Somebody who reads along, as the owner knows them.
#[derive(Debug)]
pub(super) struct Reader {
    /// None for all.
    topics: BTreeSet<String>,
    sender: mpsc::Sender<Shown>,
    missed: u64,
}

impl Reader {
    /// Somebody who wants messages of these topics, or all of them where there are none.
    pub(super) fn new(topics: BTreeSet<String>) -> (Self, mpsc::Receiver<Shown>) {
        let (sender, receiver) = mpsc::channel(WAITING);
        let reader = Self {
            topics,
            sender,
            missed: 0,
        };
        (reader, receiver)
    }

    fn show(&mut self, message: &Arc<Message>) {
        if !self.topics.is_empty() && !self.topics.contains(&message.topic) {
            return;
        }
        let shown = Shown {
            message: Arc::clone(message),
            missed: self.missed,
        };
        match self.sender.try_send(shown) {
            Ok(()) => self.missed = 0,
            Err(_) => self.missed += 1,
        }
    }
}

/// All of them.
#[derive(Debug)]
pub(super) struct Tails {
    readers: Vec<Reader>,
    max: usize,
}

impl Tails {
    pub(super) fn new(max: usize) -> Self {
        Self {
            readers: Vec::new(),
            max,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.readers.is_empty()
    }

    /// One more; false where there are too many.
    pub(super) fn add(&mut self, reader: Reader) -> bool {
        self.forget_gone();
        let fits = self.readers.len() < self.max;
        if fits {
            self.readers.push(reader);
        }
        fits
    }

    pub(super) fn show(&mut self, message: &Arc<Message>) {
        self.forget_gone();
        for reader in &mut self.readers {
            reader.show(message);
        }
    }

    fn forget_gone(&mut self) {
        self.readers.retain(|reader| !reader.sender.is_closed());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(topic: &str) -> Arc<Message> {
        Arc::new(Message {
            topic: topic.to_owned(),
            ..Message::default()
        })
    }

    /// Goal: nobody waits for a slow reader, which is told how much it missed of what it wants.
    /// Method: three more messages than may wait, and one of another topic, before the reader reads.
    #[test]
    fn a_slow_reader_is_told_what_it_missed() {
        let mut tails = Tails::new(1);
        let (reader, mut shown) = Reader::new(BTreeSet::from(["x".to_owned()]));
        assert!(tails.add(reader));
        for _ in 0..WAITING + 3 {
            tails.show(&message("x"));
        }
        tails.show(&message("y"));
        for _ in 0..WAITING {
            assert_eq!(0, shown.try_recv().unwrap().missed);
        }
        tails.show(&message("x"));
        assert_eq!(3, shown.try_recv().unwrap().missed);
    }

    /// Goal: no more read along than may, and who is gone makes room.
    /// Method: two readers where one may.
    #[test]
    fn readers_are_bounded() {
        let mut tails = Tails::new(1);
        let (first, shown) = Reader::new(BTreeSet::new());
        assert!(tails.add(first));
        assert!(!tails.add(Reader::new(BTreeSet::new()).0));
        drop(shown);
        assert!(tails.add(Reader::new(BTreeSet::new()).0));
    }
}
