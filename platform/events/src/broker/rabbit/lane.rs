//! One channel that publishes, with all that is on its way on it, and the one who reads its confirmations.
//!
//! A message that no queue wants is *confirmed* by RabbitMQ, after it was sent back: whoever looks at
//! confirmations alone takes it for delivered. The client library hands what came back over with a
//! confirmation, and not always with that of the same message: each confirmation takes the first of what
//! waits. What makes it exact all the same:
//!
//! - RabbitMQ sends a message back before it confirms it, and confirms those that it sent back in the
//!   order in which they were published. So, once a message is confirmed, what came back of it was handed
//!   over with this confirmation, with an earlier one, or with another one of the same frame.
//! - The library works off a frame under a lock. Whoever has had that lock after a confirmation was seen,
//!   sees all that are of the same frame.
//! - All confirmations of the channel are read here, by one task, and none is dropped unread. None is
//!   judged before all that are there are read.
//! - Each message has a number of its own on the channel, which comes back with it. Ids of events would
//!   not do: copies of the same event may be on their way at the same time.
//!
//! One task also means that messages are numbered by the library in the order in which they are sent.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _, stream::FuturesUnordered};
use gantry::shutdown::Tasks;
use lapin::{
    BasicProperties, Channel, Confirmation,
    message::BasicReturnMessage,
    options::{BasicPublishOptions, ConfirmSelectOptions},
    types::ShortString,
};
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc, oneshot},
    time::{self, Instant, Sleep},
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::broker::{
    PublishError,
    rabbit::{
        failure::Failure,
        link::{self, Link},
        topology,
    },
};

/// A message to be sent.
pub(super) struct Job {
    pub(super) exchange: ShortString,
    pub(super) key: ShortString,
    pub(super) properties: BasicProperties,
    pub(super) body: Bytes,
    /// When nobody waits for it any more.
    pub(super) until: Instant,
    /// Its place among all that are on their way; kept here, as whoever publishes may give up.
    pub(super) room: OwnedSemaphorePermit,
    pub(super) reply: oneshot::Sender<Outcome>,
}

impl Job {
    /// Leaves it to another channel.
    fn leave(self) {
        drop(self.room);
        drop(self.reply.send(Outcome::NotSent));
    }
}

/// What became of a message.
pub(super) enum Outcome {
    /// It was sent, and this is known of it.
    Sent(Result<(), PublishError>),
    /// It was not sent, as the channel is closed; another one may do it.
    NotSent,
}

/// Hands messages to a channel.
pub(super) struct Lane {
    live: Arc<link::Live>,
    channel: Arc<Channel>,
    jobs: mpsc::Sender<Job>,
}

impl Lane {
    /// Opens a channel on a connection, for `max` messages at once. With `careful` it has one at a time,
    /// until one is confirmed.
    pub(super) async fn open(
        (link, live): (&Arc<Link>, &Arc<link::Live>),
        careful: &Arc<AtomicBool>,
        tasks: &Tasks,
        max: usize,
    ) -> lapin::Result<Self> {
        let channel = live.connection().create_channel().await?;
        topology::declare_exchanges(&channel).await?;
        let confirm = ConfirmSelectOptions::default();
        channel.confirm_select(confirm).await?;
        let channel = Arc::new(channel);
        let (sender, jobs) = mpsc::channel(max);
        let owner = Owner {
            link: Arc::clone(link),
            live: Arc::clone(live),
            channel: Arc::clone(&channel),
            careful: Arc::clone(careful),
            jobs,
            closing: false,
            closed: false,
            sent: FuturesUnordered::new(),
            pending: HashMap::new(),
            returned: HashSet::new(),
            last: 0,
            due: None,
        };
        tasks.spawn("rabbitmq publisher", owner.run(tasks.stopping()));
        Ok(Self {
            live: Arc::clone(live),
            channel,
            jobs: sender,
        })
    }

    /// Whether it takes messages, and is one of this connection.
    pub(super) fn serves(&self, live: &Arc<link::Live>) -> bool {
        let usable = !self.jobs.is_closed() && self.channel.status().connected();
        usable && Arc::ptr_eq(&self.live, live)
    }

    /// Hands a message over; the reply says so where it is not taken.
    pub(super) fn hand_over(&self, job: Job) {
        if let Err(closed) = self.jobs.try_send(job) {
            closed.into_inner().leave();
        }
    }
}

impl fmt::Debug for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lane").finish_non_exhaustive()
    }
}

/// What the broker says of a message that is the only one on its channel, where it closes that.
pub(super) fn alone(failure: Failure) -> PublishError {
    match failure {
        Failure::Missing(_) => PublishError::Unroutable,
        Failure::Denied(why) | Failure::Other(why) => PublishError::Refused(why),
        failure => failure.into(),
    }
}

type Confirmed = (u64, lapin::Result<Confirmation>);

/// Sends the messages of a channel, and reads its confirmations.
struct Owner {
    link: Arc<Link>,
    live: Arc<link::Live>,
    channel: Arc<Channel>,
    careful: Arc<AtomicBool>,
    jobs: mpsc::Receiver<Job>,
    /// Whether nothing more is taken.
    closing: bool,
    /// Whether nothing more comes.
    closed: bool,
    sent: FuturesUnordered<Pin<Box<dyn Future<Output = Confirmed> + Send>>>,
    /// What is on its way and not judged, by number.
    pending: HashMap<u64, Pending>,
    /// Numbers of what came back and is not judged: fewer than are pending.
    returned: HashSet<u64>,
    last: u64,
    /// When to look for what is late; none while nothing is on its way.
    due: Option<Pin<Box<Sleep>>>,
}

/// A message on its way.
struct Pending {
    until: Instant,
    /// None once it is late: then nobody waits, and it takes no place.
    waits: Option<(oneshot::Sender<Outcome>, OwnedSemaphorePermit)>,
}

impl Owner {
    async fn run(mut self, stopping: CancellationToken) {
        while !(self.closed && self.pending.is_empty()) {
            let careful = self.careful.load(Ordering::Relaxed);
            let takes = self.closing || !careful || self.pending.is_empty();
            tokio::select! {
                biased;
                () = stopping.cancelled() => return,
                Some(first) = self.sent.next(), if !self.sent.is_empty() => {
                    let confirmed = self.read(first);
                    if let Some(error) = self.judge(confirmed) {
                        return self.fail(error).await;
                    }
                }
                job = self.jobs.recv(), if takes && !self.closed => match job {
                    Some(job) if self.closing => job.leave(),
                    Some(job) => self.send(job),
                    None => self.closed = true,
                },
                () = until(&mut self.due) => if self.give_up_late() {
                    return;
                },
            }
        }
    }

    fn send(&mut self, job: Job) {
        self.last += 1;
        let number = self.last;
        let properties = job
            .properties
            .with_correlation_id(number.to_string().into());
        let channel = Arc::clone(&self.channel);
        let (exchange, key, body) = (job.exchange, job.key, job.body);
        let options = BasicPublishOptions {
            mandatory: true,
            ..BasicPublishOptions::default()
        };
        // Polled for the first time in the order in which they are pushed, and that numbers them.
        self.sent.push(Box::pin(async move {
            let sent = channel.basic_publish(exchange, key, options, &body, properties);
            let confirmed = async { sent.await?.await };
            (number, confirmed.await)
        }));
        let pending = Pending {
            until: job.until,
            waits: Some((job.reply, job.room)),
        };
        self.pending.insert(number, pending);
        self.due
            .get_or_insert_with(|| Box::pin(time::sleep_until(job.until)));
    }

    /// Reads all confirmations that are there, and at least those of the frame that `first` is of.
    fn read(&mut self, first: Confirmed) -> Vec<Confirmed> {
        // Polled once it has had the lock; what it would wait for is of no interest.
        if let Some(Ok(strays)) = self.channel.wait_for_confirms().now_or_never() {
            for message in strays {
                self.came_back(&message);
            }
        }
        let mut read = vec![first];
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        let mut context = Context::from_waker(&waker);
        loop {
            match self.sent.poll_next_unpin(&mut context) {
                Poll::Ready(Some(confirmed)) => read.push(confirmed),
                // It pauses now and then with more to read, and wakes whoever polls.
                Poll::Pending if woken.0.swap(false, Ordering::AcqRel) => {}
                Poll::Ready(None) | Poll::Pending => return read,
            }
        }
    }

    fn came_back(&mut self, message: &BasicReturnMessage) {
        let number = message.delivery.properties.correlation_id().as_ref();
        let number = number.and_then(|number| number.as_str().parse().ok());
        match number {
            Some(number) if self.pending.contains_key(&number) => {
                self.returned.insert(number);
            }
            _ => warn!("a message came back that nobody waits for"),
        }
    }

    /// Tells what became of messages; why the channel is closed, where it is.
    fn judge(&mut self, confirmed: Vec<Confirmed>) -> Option<lapin::Error> {
        for (_, result) in &confirmed {
            if let Ok(Confirmation::Ack(Some(message)) | Confirmation::Nack(Some(message))) = result
            {
                self.came_back(message);
            }
        }
        let mut closed = None;
        for (number, result) in confirmed {
            let confirmation = match result {
                Ok(confirmation) => confirmation,
                Err(error) => {
                    closed = Some(error);
                    continue;
                }
            };
            let judged = match confirmation {
                _ if self.returned.remove(&number) => Err(PublishError::Unroutable),
                Confirmation::Ack(_) => Ok(()),
                Confirmation::Nack(_) => {
                    let why = "a queue is full, or cannot write it down".to_owned();
                    Err(PublishError::Refused(why))
                }
                // Only a channel that was never asked to confirm says so: a mistake of ours.
                Confirmation::NotRequested => Err(Failure::Lost.into()),
            };
            self.careful.store(false, Ordering::Relaxed);
            if let Some(pending) = self.pending.remove(&number) {
                pending.tell(judged);
            }
        }
        closed
    }

    /// Ends with a channel that is closed. Of one message alone on it the broker said why; of many, none
    /// is known to be the one, and those before it may have been taken.
    async fn fail(mut self, error: lapin::Error) {
        let failure = Failure::from(error);
        let connected = self.live.connection().status().connected();
        if connected {
            // Whichever it was is found by having them one by one.
            self.careful.store(true, Ordering::Relaxed);
        } else {
            self.link.note(&self.live, failure.clone()).await;
        }
        self.close();
        let one = connected && self.pending.len() == 1;
        for pending in self.pending.into_values() {
            let failure = failure.clone();
            pending.tell(Err(if one {
                alone(failure)
            } else {
                PublishError::Disconnected(Box::new(failure))
            }));
        }
    }

    /// Takes no more messages; those that are not sent go elsewhere.
    fn close(&mut self) {
        self.closing = true;
        self.jobs.close();
        while let Ok(job) = self.jobs.try_recv() {
            job.leave();
        }
    }

    /// Gives up what is late, and the channel with it once all others are done with: what comes back of it
    /// later has to be told apart for as long as anything is on its way here. True if nothing is left.
    fn give_up_late(&mut self) -> bool {
        let now = Instant::now();
        let mut late = false;
        let mut next: Option<Instant> = None;
        for pending in self.pending.values_mut() {
            if pending.until > now {
                next = Some(next.map_or(pending.until, |next| next.min(pending.until)));
            } else {
                late = true;
                pending.give_up();
            }
        }
        self.due = next.map(|next| Box::pin(time::sleep_until(next)));
        if late {
            self.close();
        }
        late && next.is_none()
    }
}

impl Pending {
    fn tell(mut self, judged: Result<(), PublishError>) {
        if let Some((reply, room)) = self.waits.take() {
            drop(room);
            drop(reply.send(Outcome::Sent(judged)));
        }
    }

    fn give_up(&mut self) {
        if let Some((reply, _room)) = self.waits.take() {
            drop(reply.send(Outcome::Sent(Err(PublishError::TimedOut))));
        }
    }
}

/// Ends when it is due; never where nothing is.
async fn until(due: &mut Option<Pin<Box<Sleep>>>) {
    match due {
        Some(due) => due.as_mut().await,
        None => std::future::pending().await,
    }
}

/// Whether somebody was woken.
#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Release);
    }
}
