//! The one stream that this process publishes through.

use std::{
    collections::BTreeMap,
    fmt,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use gantry::{
    BoxError,
    backoff::{self, Backoff},
    config::Live,
    shutdown::Tasks,
};
use gantry_api::broker::v1::{PublishRequest, PublishResponse};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Response, Status, Streaming};

use super::{Client, convert};
use crate::{
    Message,
    broker::{BrokerError, Config, Connection, ConnectionState, PublishError},
};

/// Messages that are sent and not confirmed.
const WINDOW: usize = 1_024;

/// Messages that wait for a place among those; more wait with whoever publishes them.
const LINE: usize = 64;

/// What is said of a stream that does not confirm.
const SILENT: &str = "the broker confirms nothing";

/// What is said where the task is gone.
const ENDS: &str = "this process ends";

/// Pauses after a stream that confirmed nothing.
const PAUSES: backoff::Config = backoff::Config {
    min: Duration::from_millis(50),
    max: Duration::from_secs(1),
    multiplier: 1.6,
    jitter: 0.2,
};

/// Publishes through the stream of a task.
#[derive(Debug)]
pub(super) struct Publisher {
    line: mpsc::Sender<Asked>,
    known: Arc<Mutex<Known>>,
}

/// The stream as operators see it.
#[derive(Debug, Default)]
struct Known {
    tries: u64,
    open: bool,
    since: Option<Instant>,
    error: Option<String>,
}

impl Known {
    fn change(&mut self, open: bool, error: Option<String>) {
        if self.open != open || self.since.is_none() {
            self.since = Some(Instant::now());
        }
        self.open = open;
        self.error = error;
    }
}

/// What is asked of the task.
#[derive(Debug)]
enum Asked {
    /// To publish a message.
    Publish(Waiting),
    /// Which stream it is that it would go by; why there is none, where it cannot be opened.
    Epoch(oneshot::Sender<Result<u64, String>>),
}

/// A message that is not sent yet.
#[derive(Debug)]
struct Waiting {
    /// The stream by which it is to go, where it is to be none else.
    epoch: Option<u64>,
    message: Message,
    told: Told,
}

/// A stream that is being opened.
type Opening =
    Pin<Box<dyn Future<Output = Result<Response<Streaming<PublishResponse>>, Status>> + Send>>;

/// Opens one for what is sent on it.
type Opener = Box<dyn Fn(ReceiverStream<PublishRequest>) -> Opening + Send>;

type Told = oneshot::Sender<Result<(), PublishError>>;

impl Publisher {
    /// Begins; the stream is opened when there is something to publish.
    pub(super) fn start(client: &Client, config: Live<Config>, tasks: &Tasks) -> Self {
        let client = client.clone();
        let open = move |requests| -> Opening {
            let mut client = client.clone();
            Box::pin(async move { client.publish(requests).await })
        };
        Self::opening(Box::new(open), config, tasks)
    }

    /// As [`Publisher::start`], with streams that `open` opens.
    fn opening(open: Opener, config: Live<Config>, tasks: &Tasks) -> Self {
        let (sender, line) = mpsc::channel(LINE);
        let known = Arc::<Mutex<Known>>::default();
        let task = Task {
            known: Arc::clone(&known),
            open,
            config,
            line,
            pauses: Backoff::new(PAUSES).expect("the pauses are above zero and grow"),
        };
        let stopping = tasks.stopping();
        tasks.spawn("broker publisher", async move {
            stopping.run_until_cancelled(task.run()).await;
        });
        Self {
            line: sender,
            known,
        }
    }

    /// How the stream is.
    pub(super) fn shown(&self) -> Connection {
        let known = lock(&self.known);
        let state = match (known.open, known.tries) {
            (true, _) => ConnectionState::Connected,
            (false, 0) => ConnectionState::Unused,
            (false, _) => ConnectionState::Disconnected,
        };
        Connection {
            purpose: "publishing",
            state,
            since: known.since,
            error: known.error.clone(),
            tries: known.tries,
        }
    }

    /// Which stream it is that messages go by, opened where there is none. It is for the caller to bound how
    /// long that takes.
    pub(super) async fn epoch(&self) -> Result<u64, BrokerError> {
        let (told, epoch) = oneshot::channel();
        let ends = || BrokerError::Disconnected(ENDS.into());
        let sent = self.line.send(Asked::Epoch(told)).await;
        sent.map_err(|_| ends())?;
        let epoch = epoch.await.map_err(|_| ends())?;
        epoch.map_err(|why| BrokerError::Disconnected(why.into()))
    }

    /// Ends once the message is confirmed, or not within `wait`; it goes by the stream `epoch` and no other,
    /// where one is given.
    pub(super) async fn publish(
        &self,
        epoch: Option<u64>,
        message: Message,
        wait: Duration,
    ) -> Result<(), PublishError> {
        let (told, outcome) = oneshot::channel();
        let waiting = Asked::Publish(Waiting {
            epoch,
            message,
            told,
        });
        let confirmed = async {
            let sent = self.line.send(waiting).await;
            sent.map_err(|_| PublishError::Disconnected(ENDS.into()))?;
            let gone = |_| PublishError::Disconnected(ENDS.into());
            outcome.await.map_err(gone)?
        };
        let confirmed = timeout(wait, confirmed).await;
        confirmed.unwrap_or(Err(PublishError::TimedOut))
    }
}

/// The task's part.
struct Task {
    known: Arc<Mutex<Known>>,
    open: Opener,
    config: Live<Config>,
    line: mpsc::Receiver<Asked>,
    pauses: Backoff,
}

/// One stream, and what is sent on it.
struct Open {
    /// Which of those of this process, from 1 on.
    epoch: u64,
    requests: mpsc::Sender<PublishRequest>,
    answers: Streaming<PublishResponse>,
    last_tag: u64,
    /// What is not confirmed, by tag: whom to tell, and when it was sent.
    pending: BTreeMap<u64, (Told, Instant)>,
}

/// Why a stream is no more.
enum Ended {
    /// It broke off, or could not be opened.
    Broken(String),
    /// It does not confirm.
    Silent,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broken(why) => f.write_str(why),
            Self::Silent => f.write_str(SILENT),
        }
    }
}

impl Task {
    /// Publishes until nobody does any more.
    async fn run(mut self) {
        while let Some(first) = self.line.recv().await {
            let confirmed = self.stream(first).await;
            if confirmed {
                self.pauses.reset();
            }
            sleep(self.pauses.next_pause()).await;
        }
    }

    /// Opens a stream and publishes through it until it ends; says whether it confirmed anything.
    async fn stream(&mut self, first: Asked) -> bool {
        let epoch = {
            let mut known = lock(&self.known);
            known.tries += 1;
            known.tries
        };
        let mut open = match self.open(epoch).await {
            Ok(open) => open,
            Err(error) => {
                lock(&self.known).change(false, Some(error.clone()));
                // Whoever waits for this stream need not wait for the next.
                let waiting = std::iter::from_fn(|| self.line.try_recv().ok());
                for asked in std::iter::once(first).chain(waiting) {
                    asked.fail(&error);
                }
                return false;
            }
        };
        lock(&self.known).change(true, None);
        open.take(first);
        let mut confirmed = false;
        let ended = loop {
            let silent_at = open.oldest().map(|sent| sent + self.confirm_timeout());
            let room = open.pending.len() < WINDOW;
            // Each arm is cancel-safe: what was not received stays where it is.
            tokio::select! {
                answer = open.answers.message() => match answer {
                    Ok(Some(answer)) => confirmed |= open.answered(answer),
                    Ok(None) => break Ended::Broken("the broker ended the stream".to_owned()),
                    Err(status) => break Ended::Broken(told(&status)),
                },
                asked = self.line.recv(), if room => match asked {
                    Some(asked) => open.take(asked),
                    None => return confirmed,
                },
                () = at(silent_at) => break Ended::Silent,
            }
        };
        lock(&self.known).change(false, Some(ended.to_string()));
        open.end(&ended, self.confirm_timeout());
        confirmed
    }

    fn confirm_timeout(&self) -> Duration {
        self.config.read(|config| config.confirm_timeout)
    }

    async fn open(&mut self, epoch: u64) -> Result<Open, String> {
        let wait = self.config.read(|config| config.connect_timeout);
        // Room for all that may be pending, so that nothing waits here.
        let (requests, sent) = mpsc::channel(WINDOW);
        let opening = (self.open)(ReceiverStream::new(sent));
        let opened = timeout(wait, opening).await;
        let opened = opened.map_err(|_| format!("no answer within {wait:?}"))?;
        Ok(Open {
            epoch,
            requests,
            answers: opened.map_err(|status| told(&status))?.into_inner(),
            last_tag: 0,
            pending: BTreeMap::new(),
        })
    }
}

impl Asked {
    /// There is no stream.
    fn fail(self, why: &str) {
        // Whoever asked may be gone.
        match self {
            Self::Publish(Waiting { told, .. }) => {
                let _ = told.send(Err(broken(why)));
            }
            Self::Epoch(told) => {
                let _ = told.send(Err(why.to_owned()));
            }
        }
    }
}

impl Open {
    fn take(&mut self, asked: Asked) {
        match asked {
            Asked::Publish(waiting) => self.send(waiting),
            Asked::Epoch(told) => {
                // Whoever asked may be gone.
                let _ = told.send(Ok(self.epoch));
            }
        }
    }

    fn send(&mut self, waiting: Waiting) {
        let Waiting {
            epoch,
            message,
            told,
        } = waiting;
        if told.is_closed() {
            // Nobody waits for it any more, and nothing was sent.
            return;
        }
        if epoch.is_some_and(|epoch| epoch != self.epoch) {
            let _ = told.send(Err(PublishError::of_another_connection()));
            return;
        }
        self.last_tag += 1;
        let request = PublishRequest {
            tag: self.last_tag,
            message: Some(convert::message(message)),
        };
        self.pending.insert(self.last_tag, (told, Instant::now()));
        // Where the stream has ended, its answers have too.
        let _ = self.requests.try_send(request);
    }

    /// Tells whoever published; says whether the message was confirmed.
    fn answered(&mut self, answer: PublishResponse) -> bool {
        let Some((told, _)) = self.pending.remove(&answer.tag) else {
            return false;
        };
        let outcome = convert::outcome(answer);
        let confirmed = outcome.is_ok();
        // Whoever published may be gone.
        let _ = told.send(outcome);
        confirmed
    }

    fn oldest(&self) -> Option<Instant> {
        self.pending.first_key_value().map(|(_, (_, sent))| *sent)
    }

    /// Tells everybody who waits.
    fn end(self, ended: &Ended, confirm_timeout: Duration) {
        for (told, sent) in self.pending.into_values() {
            let error = match ended {
                Ended::Silent if sent.elapsed() >= confirm_timeout => PublishError::TimedOut,
                Ended::Silent => broken(SILENT),
                Ended::Broken(why) => broken(why),
            };
            let _ = told.send(Err(error));
        }
    }
}

fn lock(known: &Mutex<Known>) -> MutexGuard<'_, Known> {
    known.lock().unwrap_or_else(PoisonError::into_inner)
}

fn broken(why: &str) -> PublishError {
    PublishError::Disconnected(BoxError::from(why.to_owned()))
}

/// What the broker, or whoever speaks for it, says.
fn told(status: &Status) -> String {
    status.message().to_owned()
}

/// Waits until then, or for ever.
async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
