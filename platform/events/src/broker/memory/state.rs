//! What a broker in memory knows: groups with their queues, and faults that are to come.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use tokio::time::{Duration, Instant};

use super::{Chances, OnDelivery, OnPublish, OnSettle, queue::Queue};
use crate::{
    BUCKETS, Message,
    broker::{BrokerError, DeadLetter, Fill, Group, PublishError},
    bucket,
};

/// How long a publication waits for a confirmation that is lost, unless said otherwise.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(30);

/// Which queue, as in `notifications.notices` and 3.
pub(super) type At = (String, u16);

/// The whole of it.
#[derive(Debug)]
pub(super) struct State {
    pub(super) groups: BTreeMap<String, Kept>,
    pub(super) publications: VecDeque<OnPublish>,
    pub(super) deliveries: VecDeque<OnDelivery>,
    pub(super) settling: VecDeque<OnSettle>,
    pub(super) chances: Chances,
    random: fastrand::Rng,
    pub(super) latency: Duration,
    pub(super) confirm_timeout: Duration,
    pub(super) connected: bool,
    /// Which connection it is.
    pub(super) epoch: u64,
    pub(super) blocked: bool,
    /// Whether nothing is said of groups.
    pub(super) silent: bool,
    pub(super) subscriptions: u64,
    pub(super) asked: u64,
    pub(super) taken: Vec<Message>,
    /// Keys whose messages are refused.
    pub(super) refused: BTreeSet<String>,
}

/// A group.
#[derive(Debug)]
pub(super) struct Kept {
    group: Group,
    pub(super) queues: Vec<Queue>,
    pub(super) dead: BTreeMap<u64, DeadLetter>,
    dead_count: u64,
}

impl State {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            groups: BTreeMap::new(),
            publications: VecDeque::new(),
            deliveries: VecDeque::new(),
            settling: VecDeque::new(),
            chances: Chances::default(),
            random: fastrand::Rng::with_seed(seed),
            latency: Duration::ZERO,
            confirm_timeout: CONFIRM_TIMEOUT,
            connected: true,
            epoch: 1,
            blocked: false,
            silent: false,
            subscriptions: 0,
            asked: 0,
            taken: Vec::new(),
            refused: BTreeSet::new(),
        }
    }

    /// Makes a group, or has it want what `group` says; beside what it wants already, where it `keeps`
    /// that.
    pub(super) fn declare(&mut self, group: &Group, keeps: bool) -> Result<(), BrokerError> {
        if let Some(kept) = self.groups.get_mut(&group.name) {
            return kept.declare(group, keeps);
        }
        assert!(
            (1..=BUCKETS).contains(&group.partitions),
            "{group:?} has no such number of partitions"
        );
        let kept = Kept {
            group: group.clone(),
            queues: (0..group.partitions).map(|_| Queue::default()).collect(),
            dead: BTreeMap::new(),
            dead_count: 0,
        };
        self.groups.insert(group.name.clone(), kept);
        Ok(())
    }

    /// Puts delayed messages whose time has come back into their queues.
    pub(super) fn wake(&mut self) {
        let now = Instant::now();
        for queue in self.groups.values_mut().flat_map(|it| &mut it.queues) {
            queue.wake(now);
        }
    }

    pub(super) fn break_off(&mut self, connected: bool) {
        self.connected = connected;
        self.epoch += 1;
        for queue in self.groups.values_mut().flat_map(|it| &mut it.queues) {
            queue.unsubscribe_all();
        }
    }

    fn on_publish(&mut self) -> OnPublish {
        self.asked += 1;
        if let Some(scripted) = self.publications.pop_front() {
            return scripted;
        }
        let chances = self.chances;
        let cases = [
            (chances.refuse, OnPublish::Refuse),
            (chances.unroutable, OnPublish::Unroutable),
            (chances.block, OnPublish::Block),
            (chances.lose_message, OnPublish::LoseMessage),
            (chances.lose_confirmation, OnPublish::LoseConfirmation),
            (chances.disconnect, OnPublish::DisconnectBefore),
            (chances.disconnect, OnPublish::DisconnectAfter),
        ];
        self.choose(&cases).unwrap_or(OnPublish::Take)
    }

    pub(super) fn on_delivery(&mut self) -> OnDelivery {
        if let Some(scripted) = self.deliveries.pop_front() {
            return scripted;
        }
        let chances = self.chances;
        let cases = [
            (chances.double, OnDelivery::Double),
            (chances.swap, OnDelivery::Swap),
            (chances.end, OnDelivery::End),
        ];
        self.choose(&cases).unwrap_or(OnDelivery::Give)
    }

    fn choose<T: Copy>(&mut self, cases: &[(f64, T)]) -> Option<T> {
        let mut cases = cases.iter();
        let chosen = cases.find(|(chance, _)| *chance > 0.0 && self.random.f64() < *chance);
        chosen.map(|(_, case)| *case)
    }

    /// Puts a message into every queue that wants it, or into none.
    fn take(&mut self, message: &Message) -> Result<(), PublishError> {
        let wants = |kept: &&mut Kept| kept.group.topics.contains(&message.topic);
        let mut queues = Vec::new();
        for kept in self.groups.values_mut().filter(wants) {
            let partition = bucket(&message.key) % kept.group.partitions;
            let queue = &mut kept.queues[usize::from(partition)];
            let max = kept.group.queue_messages_max.unwrap_or(u64::MAX);
            if u64::try_from(queue.len()).is_ok_and(|length| length >= max) {
                let name = &kept.group.name;
                return Err(PublishError::Refused(format!("{name}.{partition} is full")));
            }
            queues.push(queue);
        }
        if queues.is_empty() {
            return Err(PublishError::Unroutable);
        }
        for queue in queues {
            queue.push(message.clone(), false);
        }
        self.taken.push(message.clone());
        Ok(())
    }

    /// What is answered to a publication, and after how long.
    pub(super) fn publish(
        &mut self,
        epoch: Option<u64>,
        message: &Message,
    ) -> (Duration, Result<(), PublishError>) {
        if !self.connected {
            return (Duration::ZERO, Err(broken_off()));
        }
        if epoch.is_some_and(|epoch| epoch != self.epoch) {
            let another = PublishError::of_another_connection();
            return (Duration::ZERO, Err(another));
        }
        if self.blocked {
            return (Duration::ZERO, Err(blocked()));
        }
        let answer = match self.on_publish() {
            _ if self.refused.contains(&message.key) => {
                Err(PublishError::Refused("as scripted".to_owned()))
            }
            OnPublish::Take => self.take(message),
            OnPublish::Refuse => Err(PublishError::Refused("as scripted".to_owned())),
            OnPublish::Unroutable => Err(PublishError::Unroutable),
            OnPublish::Block => Err(blocked()),
            OnPublish::LoseMessage => Err(PublishError::TimedOut),
            OnPublish::LoseConfirmation => self.take(message).and(Err(PublishError::TimedOut)),
            OnPublish::DisconnectBefore => {
                self.break_off(true);
                Err(broken_off())
            }
            OnPublish::DisconnectAfter => {
                let taken = self.take(message);
                self.break_off(true);
                taken.and(Err(broken_off()))
            }
        };
        let after = match &answer {
            Err(PublishError::TimedOut) => self.confirm_timeout,
            _ => self.latency,
        };
        (after, answer)
    }

    pub(super) fn kept(&mut self, group: &str) -> Result<&mut Kept, BrokerError> {
        let found = self.groups.get_mut(group);
        found.ok_or_else(|| BrokerError::Missing(format!("the group {group}")))
    }

    pub(super) fn queue(&mut self, (group, partition): &At) -> Result<&mut Queue, BrokerError> {
        let queue = self.kept(group)?.queues.get_mut(usize::from(*partition));
        queue.ok_or_else(|| BrokerError::Missing(format!("the queue {group}.{partition}")))
    }
}

fn broken_off() -> PublishError {
    PublishError::Disconnected("as scripted".into())
}

fn blocked() -> PublishError {
    PublishError::Blocked {
        why: "as scripted".to_owned(),
        sent: false,
    }
}

impl Kept {
    pub(super) fn topics(&self) -> &[String] {
        &self.group.topics
    }

    fn declare(&mut self, group: &Group, keeps: bool) -> Result<(), BrokerError> {
        if self.group.partitions != group.partitions {
            return Err(BrokerError::OtherShape {
                what: format!("the group {}", group.name),
                difference: format!(
                    "it has {} partitions, not {}; remove it first",
                    self.group.partitions, group.partitions
                ),
            });
        }
        let before = std::mem::replace(&mut self.group, group.clone());
        for topic in before.topics.into_iter().filter(|_| keeps) {
            if !self.group.topics.contains(&topic) {
                self.group.topics.push(topic);
            }
        }
        self.group.topics.sort();
        Ok(())
    }

    pub(super) fn bury(&mut self, partition: u16, message: Message) {
        self.dead_count += 1;
        let letter = DeadLetter {
            place: self.dead_count,
            partition,
            message,
        };
        self.dead.insert(letter.place, letter);
    }

    pub(super) fn fill(&self) -> Fill {
        let mut fill = Fill {
            dead_letters: u64::try_from(self.dead.len()).unwrap_or(u64::MAX),
            ..Fill::default()
        };
        for queue in &self.queues {
            let (ready, unsettled, delayed) = queue.fill();
            fill.ready.push(ready);
            fill.unsettled += unsettled;
            fill.delayed += delayed;
            fill.consumers += queue.subscribers();
        }
        fill
    }
}
