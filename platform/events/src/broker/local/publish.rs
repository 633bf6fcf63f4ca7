//! The one stream that this process publishes through.

use std::{collections::BTreeMap, time::Duration};

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
use tonic::{Status, Streaming};

use super::{Client, convert};
use crate::{
    Message,
    broker::{Config, PublishError},
};

/// Messages that are sent and not confirmed.
const WINDOW: usize = 1_024;

/// Messages that wait for a place among those; more wait with whoever publishes them.
const LINE: usize = 64;

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
    line: mpsc::Sender<Waiting>,
}

/// A message that is not sent yet.
#[derive(Debug)]
struct Waiting {
    message: Message,
    told: Told,
}

type Told = oneshot::Sender<Result<(), PublishError>>;

impl Publisher {
    /// Begins; the stream is opened when there is something to publish.
    pub(super) fn start(client: Client, config: Live<Config>, tasks: &Tasks) -> Self {
        let (sender, line) = mpsc::channel(LINE);
        let task = Task {
            client,
            config,
            line,
            pauses: Backoff::new(PAUSES).expect("the pauses are above zero and grow"),
        };
        let stopping = tasks.stopping();
        tasks.spawn("broker publisher", async move {
            stopping.run_until_cancelled(task.run()).await;
        });
        Self { line: sender }
    }

    /// Ends once the message is confirmed, or not within `wait`.
    pub(super) async fn publish(
        &self,
        message: Message,
        wait: Duration,
    ) -> Result<(), PublishError> {
        let (told, outcome) = oneshot::channel();
        let waiting = Waiting { message, told };
        let confirmed = async {
            let sent = self.line.send(waiting).await;
            sent.map_err(|_| PublishError::Disconnected("this process ends".into()))?;
            let gone = |_| PublishError::Disconnected("this process ends".into());
            outcome.await.map_err(gone)?
        };
        let confirmed = timeout(wait, confirmed).await;
        confirmed.unwrap_or(Err(PublishError::TimedOut))
    }
}

/// The task's part.
struct Task {
    client: Client,
    config: Live<Config>,
    line: mpsc::Receiver<Waiting>,
    pauses: Backoff,
}

/// One stream, and what is sent on it.
struct Open {
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
    async fn stream(&mut self, first: Waiting) -> bool {
        let mut open = match self.open().await {
            Ok(open) => open,
            Err(error) => {
                // Whoever waits for this stream need not wait for the next.
                let waiting = std::iter::from_fn(|| self.line.try_recv().ok());
                for Waiting { told, .. } in std::iter::once(first).chain(waiting) {
                    let _ = told.send(Err(broken(&error)));
                }
                return false;
            }
        };
        open.send(first);
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
                waiting = self.line.recv(), if room => match waiting {
                    Some(waiting) => open.send(waiting),
                    None => return confirmed,
                },
                () = at(silent_at) => break Ended::Silent,
            }
        };
        open.end(&ended, self.confirm_timeout());
        confirmed
    }

    fn confirm_timeout(&self) -> Duration {
        self.config.read(|config| config.confirm_timeout)
    }

    async fn open(&mut self) -> Result<Open, String> {
        let wait = self.config.read(|config| config.connect_timeout);
        // Room for all that may be pending, so that nothing waits here.
        let (requests, sent) = mpsc::channel(WINDOW);
        let opening = self.client.publish(ReceiverStream::new(sent));
        let opened = timeout(wait, opening).await;
        let opened = opened.map_err(|_| format!("no answer within {wait:?}"))?;
        Ok(Open {
            requests,
            answers: opened.map_err(|status| told(&status))?.into_inner(),
            last_tag: 0,
            pending: BTreeMap::new(),
        })
    }
}

impl Open {
    fn send(&mut self, Waiting { message, told }: Waiting) {
        if told.is_closed() {
            // Nobody waits for it any more, and nothing was sent.
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
                Ended::Silent => broken("the broker confirms nothing"),
                Ended::Broken(why) => broken(why),
            };
            let _ = told.send(Err(error));
        }
    }
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
