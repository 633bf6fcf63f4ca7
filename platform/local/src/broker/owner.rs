//! The one task that owns the queues; everything else [asks](crate::ask) it.
//!
//! What consumers and readers are told is on disk.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, mpsc},
    time::{Instant, sleep_until},
};

use super::{
    engine::{ConsumerId, Engine, Message, Outcome, Refusal, Told},
    store::Store,
    tail::{Reader, Tails},
    telemetry::Metrics,
    time::Clock,
};
use crate::{
    StoreError,
    ask::{self, Questions},
};

/// How often the queues are looked at while nothing is due.
const TICK: Duration = Duration::from_hours(1);

/// What a consumer is told beside messages, at most.
const BESIDE: usize = 2;

/// Asks the owner; clones ask the same one.
pub(super) type Asker = ask::Asker<State>;

/// What the owner owns.
#[derive(Debug)]
pub(super) struct State {
    pub(super) engine: Engine,
    /// None while nothing is kept.
    pub(super) store: Option<Store>,
    pub(super) clock: Clock,
    consumers: HashMap<ConsumerId, mpsc::Sender<Told>>,
    tails: Tails,
    metrics: Metrics,
    /// What was taken, for those who read along, until it is on disk.
    taken: Vec<Arc<Message>>,
}

/// Consumers whose streams have ended, for the owner to find.
#[derive(Debug, Clone, Default)]
pub(super) struct Departures {
    shared: Arc<Gone>,
}

#[derive(Debug, Default)]
struct Gone {
    /// No longer than there are consumers.
    ids: Mutex<Vec<ConsumerId>>,
    news: Notify,
}

impl Departures {
    /// A consumer is gone; what it was told by is dropped already.
    fn add(&self, id: ConsumerId) {
        self.lock().push(id);
        self.shared.news.notify_one();
    }

    fn take(&self) -> Vec<ConsumerId> {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<ConsumerId>> {
        let ids = self.shared.ids.lock();
        ids.unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a consumer is told; dropped, it leaves.
#[derive(Debug)]
pub(super) struct Seat {
    pub(super) id: ConsumerId,
    // Dropped before the owner is told, so that a consumer that is gone before it has joined never
    // does.
    told: Option<mpsc::Receiver<Told>>,
    departures: Departures,
}

impl Seat {
    /// What it is told next; none where it was left behind, or the owner is gone. Cancel-safe.
    pub(super) async fn next(&mut self) -> Option<Told> {
        self.told.as_mut()?.recv().await
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        drop(self.told.take());
        self.departures.add(self.id);
    }
}

/// Which queue a consumer wants, and how much of it.
#[derive(Debug, Clone)]
pub(super) struct Wish {
    pub(super) group: String,
    pub(super) partition: u16,
    pub(super) prefetch: u16,
}

/// Has a new consumer join.
///
/// # Errors
///
/// [`Refusal`] within, if it cannot.
pub(super) async fn join(
    asker: &Asker,
    departures: &Departures,
    id: ConsumerId,
    wish: Wish,
) -> Result<Result<Seat, Refusal>, ask::Stopped> {
    let (sender, receiver) = mpsc::channel(usize::from(wish.prefetch) + BESIDE);
    let seat = Seat {
        id,
        told: Some(receiver),
        departures: departures.clone(),
    };
    let joined = asker
        .ask(move |state| state.join(id, &wish, sender))
        .await?;
    Ok(joined.map(|()| seat))
}

impl State {
    pub(super) fn new(
        engine: Engine,
        store: Option<Store>,
        clock: Clock,
        tails_max: usize,
    ) -> Self {
        Self {
            engine,
            store,
            clock,
            consumers: HashMap::new(),
            tails: Tails::new(tails_max),
            metrics: Metrics::new(),
            taken: Vec::new(),
        }
    }

    fn join(
        &mut self,
        id: ConsumerId,
        wish: &Wish,
        sender: mpsc::Sender<Told>,
    ) -> Result<(), Refusal> {
        if sender.is_closed() {
            // It is gone already, and the owner may have been told.
            return Ok(());
        }
        let Wish {
            group,
            partition,
            prefetch,
        } = wish;
        self.engine.subscribe(id, group, *partition, *prefetch)?;
        self.consumers.insert(id, sender);
        Ok(())
    }

    /// Takes a message, and remembers it for those who read along.
    pub(super) fn publish(&mut self, message: Message) -> Outcome {
        let message = Arc::new(message);
        let outcome = self.engine.publish(&message);
        self.metrics.published(&outcome);
        if outcome == Outcome::Confirmed && !self.tails.is_empty() {
            self.taken.push(message);
        }
        outcome
    }

    /// Somebody reads along from now on; false where too many do.
    pub(super) fn read_along(&mut self, reader: Reader) -> bool {
        self.tails.add(reader)
    }

    /// Tells consumers and readers what is on disk.
    fn tell(&mut self) {
        for message in std::mem::take(&mut self.taken) {
            self.tails.show(&message);
        }
        loop {
            let told = self.engine.take_told();
            if told.is_empty() {
                return;
            }
            for (id, told) in told {
                let removed = told == Told::Removed;
                if matches!(told, Told::Delivered { .. }) {
                    self.metrics.delivered();
                }
                let heard = self.consumers.get(&id).map(|it| it.try_send(told));
                // One that settles what it has not seen yet may have no room; it is left behind,
                // as one is whose stream has just ended.
                if heard.is_some_and(|heard| heard.is_err()) {
                    self.engine.leave(id);
                    self.consumers.remove(&id);
                }
                if removed {
                    self.consumers.remove(&id);
                }
            }
        }
    }
}

/// The task's part.
#[derive(Debug)]
pub(super) struct Owner {
    state: State,
    questions: Questions<State>,
    departures: Departures,
}

impl Owner {
    /// An owner of `state`, and how to ask it.
    pub(super) fn new(state: State) -> (Self, Asker, Departures) {
        let (asker, questions) = ask::channel();
        let departures = Departures::default();
        let owner = Self {
            state,
            questions,
            departures: departures.clone(),
        };
        (owner, asker, departures)
    }

    /// Carries out what is asked until nobody can ask any more.
    ///
    /// # Errors
    ///
    /// If the disk fails. What was not written then was not answered either.
    pub(super) async fn run(mut self) -> Result<(), StoreError> {
        let departures = self.departures.clone();
        loop {
            let next_look = self.next_look();
            // Each arm is cancel-safe: what was not received stays where it is.
            tokio::select! {
                asked = self.questions.wait() => if !asked {
                    return Ok(());
                },
                () = departures.shared.news.notified() => {}
                () = sleep_until(next_look) => {}
            }
            let now = self.state.clock.now();
            self.state.engine.wake(now);
            let answers = self.questions.carry_out(&mut self.state);
            for id in departures.take() {
                self.state.engine.leave(id);
                self.state.consumers.remove(&id);
            }
            self.write().await?;
            for answer in answers {
                answer();
            }
            self.state.tell();
            self.state.metrics.changed(&self.state.engine);
        }
    }

    fn next_look(&self) -> Instant {
        let State {
            engine,
            clock,
            metrics,
            ..
        } = &self.state;
        let next = match engine.next_due() {
            Some(due) => clock.instant(due),
            None => Instant::now() + TICK,
        };
        metrics.count_at().map_or(next, |at| next.min(at))
    }

    async fn write(&mut self) -> Result<(), StoreError> {
        let State {
            engine,
            store,
            metrics,
            ..
        } = &mut self.state;
        let journal = engine.take_journal();
        match store {
            Some(store) if !journal.is_empty() => {
                metrics.writes(&journal);
                let began = Instant::now();
                let written = store.write(journal, engine.last()).await;
                metrics.written(began.elapsed());
                written
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use gantry::testing::telemetry::capture;
    use tokio::time::sleep;

    use super::{
        super::{
            engine::{Bounds, Declaration},
            telemetry::COUNT_INTERVAL,
        },
        *,
    };

    const GROUP: &str = "shop.news";

    /// A state with one group of one queue.
    fn state() -> State {
        let mut engine = Engine::new(Bounds {
            groups: 1,
            messages: 100,
            bytes: usize::MAX,
            consumers: 10,
        });
        let declared = Declaration {
            partitions: 1,
            topics: BTreeSet::from(["x".to_owned()]),
            queue_messages_max: 0,
        };
        engine.declare(GROUP, declared).unwrap();
        State::new(engine, None, Clock::new(), 1)
    }

    fn wish() -> Wish {
        Wish {
            group: GROUP.to_owned(),
            partition: 0,
            prefetch: 1,
        }
    }

    fn publish(state: &mut State) {
        let message = Message {
            topic: "x".to_owned(),
            ..Message::default()
        };
        assert_eq!(Outcome::Confirmed, state.publish(message));
    }

    fn consumers(state: &State) -> usize {
        state.engine.groups(None)[0].queues[0].consumers
    }

    /// Goal: a consumer that is gone before it has joined holds no queue for ever.
    /// Method: join one whose end is dropped, as when its call ends while it waits for the owner.
    #[test]
    fn who_is_gone_before_it_joins_never_does() {
        let mut state = state();
        let (sender, receiver) = mpsc::channel(1);
        drop(receiver);
        state.join(1, &wish(), sender).unwrap();
        assert_eq!(0, consumers(&state));
    }

    /// Goal: a consumer that is told more than it has room for is left behind, and the next one has
    /// what it had.
    /// Method: one with room for nothing but that the queue is its own, and one behind it.
    #[test]
    fn who_has_no_room_is_left_behind() {
        let mut state = state();
        let (full, _receiver) = mpsc::channel(1);
        state.join(1, &wish(), full).unwrap();
        let (sender, mut told) = mpsc::channel(2);
        state.join(2, &wish(), sender).unwrap();
        publish(&mut state);
        state.tell();
        assert_eq!(1, consumers(&state));
        assert_eq!(Some(Told::Active), told.try_recv().ok());
        let delivered = told.try_recv().ok();
        assert!(
            matches!(
                delivered,
                Some(Told::Delivered {
                    redelivered: true,
                    ..
                })
            ),
            "{delivered:?}"
        );
    }

    /// Goal: what goes through and what is kept is measured; the queues are counted after it went quiet, and
    /// not at every change.
    /// Method: messages over the task, to a consumer that settles none, on a paused clock.
    #[tokio::test(start_paused = true)]
    async fn what_is_kept_is_measured() {
        let capture = capture();
        let (owner, asker, departures) = Owner::new(state());
        let mut running = std::pin::pin!(owner.run());
        let value = |name: &str, labels: &[(&str, &str)]| capture.value(name, labels);
        let asking = async {
            let mut seat = join(&asker, &departures, 1, wish()).await.unwrap().unwrap();
            for topic in ["x", "x", "x", "y"] {
                let message = Message {
                    topic: topic.to_owned(),
                    ..Message::default()
                };
                asker
                    .ask(move |state| state.publish(message))
                    .await
                    .unwrap();
            }
            for _ in 0..2 {
                seat.next().await.unwrap();
            }
            sleep(2 * COUNT_INTERVAL).await;
            for (state, count) in [("ready", 2.0), ("unsettled", 1.0), ("dead", 0.0)] {
                let counted = value("gantry_broker_messages", &[("state", state)]);
                assert_eq!(Some(count), counted, "{state}");
            }
            assert_eq!(Some(1.0), value("gantry_broker_queues", &[]));
            assert_eq!(Some(1.0), value("gantry_broker_delivered_total", &[]));
            for (outcome, count) in [("confirmed", 3.0), ("unroutable", 1.0)] {
                let name = "gantry_broker_published_total";
                let published = value(name, &[("outcome", outcome)]);
                assert_eq!(Some(count), published, "{outcome}");
            }
        };
        tokio::select! {
            ended = running.as_mut() => panic!("it ended: {ended:?}"),
            () = asking => {}
        }
    }

    /// Goal: the end of a stream reaches the owner, which gives the queue to the next consumer.
    /// Method: two consumers over the task; the first one's seat is dropped.
    #[tokio::test(start_paused = true)]
    async fn the_next_has_the_queue_of_whoever_leaves() {
        let (owner, asker, departures) = Owner::new(state());
        let mut running = std::pin::pin!(owner.run());
        let asking = async {
            let first = join(&asker, &departures, 1, wish()).await;
            let mut second = join(&asker, &departures, 2, wish()).await.unwrap().unwrap();
            drop(first);
            assert_eq!(Some(Told::Active), second.next().await);
        };
        tokio::select! {
            ended = running.as_mut() => panic!("it ended: {ended:?}"),
            () = asking => {}
        }
    }
}
