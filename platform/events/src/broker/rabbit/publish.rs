//! Publishes messages, and believes nothing but the confirmation of each.
//!
//! Each exchange has a [channel](super::lane) of its own, with many messages on it: the broker closes a
//! channel for one message that it refuses, with all that are on it. What it does not let us do with one
//! exchange is none of the others' business.

use std::{
    collections::BTreeMap,
    pin::pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use gantry::{
    config::Live,
    journal::{Journal, Kind},
    shutdown::Tasks,
};
use tokio::{
    sync::{Semaphore, oneshot},
    time::{self, Instant},
};
use tracing::{info, warn};

use crate::{
    Message,
    broker::{
        self, Config, PublishError,
        rabbit::{
            failure::Failure,
            lane::{self, Job, Lane, Outcome},
            link::{self, Link},
            wire,
        },
    },
};

/// Most messages on their way at once, as many as in the widest window of a relay; others wait for one to
/// be confirmed.
const UNDER_WAY_MAX: usize = 4_096;

/// Longest key by which a message is routed, in bytes.
const KEY_MAX: usize = 255;

/// How often somebody who waits looks whether the broker takes nothing any more.
const LOOK: Duration = Duration::from_millis(500);

/// Publishes messages over one connection.
#[derive(Debug)]
pub(super) struct Publisher {
    link: Arc<Link>,
    journal: Journal,
    config: Live<Config>,
    tasks: Tasks,
    room: Arc<Semaphore>,
    /// By exchange, of which there are a few.
    ways: Mutex<BTreeMap<String, Arc<Way>>>,
    /// Whether it was told that the broker takes nothing.
    blocked: AtomicBool,
}

/// How far the publication of a message is.
#[derive(Debug, Default)]
struct Stage {
    /// Whether it may be on its way.
    sent: AtomicBool,
}

/// The way to an exchange.
#[derive(Debug, Default)]
struct Way {
    lane: tokio::sync::Mutex<Option<Lane>>,
    /// Whether the broker closed a channel, and nothing was confirmed since.
    careful: Arc<AtomicBool>,
}

impl Publisher {
    pub(super) fn new(link: Link, config: Live<Config>, tasks: Tasks, journal: Journal) -> Self {
        Self {
            link: Arc::new(link),
            journal,
            config,
            tasks,
            room: Arc::new(Semaphore::new(UNDER_WAY_MAX)),
            ways: Mutex::default(),
            blocked: AtomicBool::new(false),
        }
    }

    /// How the connection is.
    pub(super) fn shown(&self) -> broker::Connection {
        self.link.shown("publishing")
    }

    /// Which connection it is that messages are published over, made where there is none.
    pub(super) async fn epoch(&self) -> Result<u64, Failure> {
        Ok(self.link.live().await?.epoch())
    }

    /// Sends a message to an exchange; ends once it is confirmed by each queue it went to. `place` is
    /// where dead letters are sorted by, for one that is to be. Dropped meanwhile, it may have been sent or
    /// not, and keeps its place among those on their way until it is confirmed or late.
    pub(super) async fn publish(
        &self,
        way: (&str, &str),
        message: &Message,
        place: Option<u64>,
    ) -> Result<(), PublishError> {
        self.publish_by(None, way, message, place).await
    }

    /// The same, by the connection of that epoch and no other, where one is given.
    pub(super) async fn publish_by(
        &self,
        epoch: Option<u64>,
        (exchange, key): (&str, &str),
        message: &Message,
        place: Option<u64>,
    ) -> Result<(), PublishError> {
        if key.len() > KEY_MAX {
            let why = format!("a name in it has more than {KEY_MAX} bytes");
            return Err(PublishError::Refused(why));
        }
        let until = Instant::now() + self.config.read(|config| config.confirm_timeout);
        let stage = Stage::default();
        let confirmed = async {
            loop {
                let sent = self.sent(epoch, (exchange, key), message, place, (until, &stage));
                if let Outcome::Sent(judged) = sent.await? {
                    return judged;
                }
                stage.sent.store(false, Ordering::Relaxed);
            }
        };
        let mut confirmed = pin!(confirmed);
        loop {
            let look_at = until.min(Instant::now() + LOOK);
            let over = match time::timeout_at(look_at, &mut confirmed).await {
                // It is looked at below why.
                Ok(Err(PublishError::TimedOut)) => true,
                Ok(published) => return published,
                Err(_) => Instant::now() >= until,
            };
            match self.link.blocked() {
                // It takes nothing, also not what is on its way; which it takes once it can.
                Some(why) => {
                    self.tell_blocked(&why);
                    let sent = stage.sent.load(Ordering::Relaxed);
                    if over || !sent {
                        return Err(PublishError::Blocked { why, sent });
                    }
                }
                None if over => {
                    let sent = stage.sent.load(Ordering::Relaxed);
                    let unsent = self.link.failure().filter(|_| !sent);
                    return Err(unsent.map_or(PublishError::TimedOut, PublishError::from));
                }
                None => {}
            }
        }
    }

    /// Hands a message to a channel, and waits for what becomes of it.
    async fn sent(
        &self,
        epoch: Option<u64>,
        (exchange, key): (&str, &str),
        message: &Message,
        place: Option<u64>,
        (until, stage): (Instant, &Stage),
    ) -> Result<Outcome, PublishError> {
        let room = Arc::clone(&self.room).acquire_owned().await;
        let room = room.expect("nobody closes it");
        let live = self.link.live().await?;
        if epoch.is_some_and(|epoch| epoch != live.epoch()) {
            return Err(PublishError::of_another_connection());
        }
        if let Some(why) = live.blocked() {
            self.tell_blocked(&why);
            return Err(PublishError::Blocked { why, sent: false });
        }
        let (reply, answer) = oneshot::channel();
        let job = Job {
            exchange: exchange.into(),
            key: key.into(),
            properties: wire::properties(message, place),
            body: message.body.clone(),
            until,
            room,
            reply,
        };
        self.hand_over(&live, &self.way(exchange), job).await?;
        stage.sent.store(true, Ordering::Relaxed);
        // Only a task that was stopped leaves it without one.
        let outcome = answer.await.map_err(|_| Failure::Lost)?;
        if matches!(outcome, Outcome::Sent(Ok(()))) {
            self.tell_taken();
        }
        Ok(outcome)
    }

    fn way(&self, exchange: &str) -> Arc<Way> {
        let mut ways = self.ways.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(way) = ways.get(exchange) {
            return Arc::clone(way);
        }
        Arc::clone(ways.entry(exchange.to_owned()).or_default())
    }

    /// Hands a message to the channel of an exchange, opened where there is none.
    async fn hand_over(
        &self,
        live: &Arc<link::Live>,
        way: &Way,
        job: Job,
    ) -> Result<(), PublishError> {
        let mut lane = way.lane.lock().await;
        if let Some(lane) = lane.as_ref().filter(|lane| lane.serves(live)) {
            lane.hand_over(job);
            return Ok(());
        }
        *lane = None;
        let place = (&self.link, live);
        match Lane::open(place, &way.careful, &self.tasks, UNDER_WAY_MAX).await {
            Ok(opened) => {
                lane.insert(opened).hand_over(job);
                Ok(())
            }
            Err(error) if live.connection().status().connected() => Err(lane::alone(error.into())),
            Err(error) => {
                let failure = Failure::from(error);
                self.link.note(live, failure.clone()).await;
                Err(failure.into())
            }
        }
    }

    fn tell_blocked(&self, why: &str) {
        if !self.blocked.swap(true, Ordering::Relaxed) {
            warn!(why, "the broker takes nothing");
            let detail = format!("takes nothing: {why}");
            self.journal.record(Kind::Broker, "publishing", detail);
        }
    }

    fn tell_taken(&self) {
        if self.blocked.load(Ordering::Relaxed) && self.blocked.swap(false, Ordering::Relaxed) {
            info!("the broker takes messages again");
            self.journal
                .record(Kind::Broker, "publishing", "takes messages again");
        }
    }
}
