//! One subscription: a stream, and the task that tells apart what comes on it.

use std::{collections::BTreeMap, time::Duration};

use gantry::{config::Live, shutdown::Tasks};
use gantry_api::broker::v1::{
    ConsumeRequest, ConsumeResponse, Subscribe, consume_request::Request, consume_response::Event,
};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::convert;
use crate::broker::{BrokerError, Config, Delivery, Settle, Settler, Subscription, Tag, Work};

type Told = oneshot::Sender<Result<(), BrokerError>>;

/// What is asked of the broker, and how it goes on once it has answered.
pub(super) struct Opened {
    pub(super) requests: ReceiverStream<ConsumeRequest>,
    pub(super) begin: Begin,
}

/// A subscription that the broker has not granted yet.
pub(super) struct Begin {
    requests: mpsc::Sender<ConsumeRequest>,
    prefetch: usize,
}

/// Asks for the messages of a queue.
pub(super) fn open(group: &str, partition: u16, prefetch: u16) -> Opened {
    let subscribe = Request::Subscribe(Subscribe {
        group: group.to_owned(),
        partition: u32::from(partition),
        prefetch: u32::from(prefetch),
    });
    let prefetch = usize::from(prefetch);
    // Room for the first request, and for what becomes of all that is handed out.
    let (requests, sent) = mpsc::channel(prefetch + 1);
    let first = ConsumeRequest {
        request: Some(subscribe),
    };
    requests.try_send(first).expect("there is room for one");
    Opened {
        requests: ReceiverStream::new(sent),
        begin: Begin { requests, prefetch },
    }
}

impl Begin {
    /// The subscription whose stream is `answers`.
    pub(super) fn begin(
        self,
        answers: Streaming<ConsumeResponse>,
        config: Live<Config>,
        tasks: &Tasks,
    ) -> Subscribed {
        let (handed_out, deliveries) = mpsc::channel(self.prefetch.max(1));
        let (settles, asked) = mpsc::channel(self.prefetch.max(1));
        let task = Task {
            answers,
            requests: self.requests,
            handed_out,
            asked,
            pending: BTreeMap::new(),
        };
        let stopping = tasks.stopping();
        tasks.spawn("broker subscription", async move {
            stopping.run_until_cancelled(task.run()).await;
        });
        Subscribed {
            deliveries,
            settler: Settling { settles, config },
        }
    }
}

/// A subscription; its task ends with it.
#[derive(Debug)]
pub(super) struct Subscribed {
    deliveries: mpsc::Receiver<Delivery>,
    settler: Settling,
}

impl Subscription for Subscribed {
    fn next(&mut self) -> Work<'_, Option<Delivery>> {
        Box::pin(self.deliveries.recv())
    }

    fn settler(&self) -> Box<dyn Settler> {
        Box::new(self.settler.clone())
    }
}

#[derive(Debug, Clone)]
struct Settling {
    settles: mpsc::Sender<Asked>,
    config: Live<Config>,
}

/// What becomes of a message, and whom to tell.
#[derive(Debug)]
struct Asked {
    tag: Tag,
    how: Settle,
    told: Told,
}

impl Settler for Settling {
    fn settle(&self, tag: Tag, how: Settle) -> Work<'_, Result<(), BrokerError>> {
        let wait: Duration = self.config.read(|config| config.confirm_timeout);
        Box::pin(async move {
            let (told, settled) = oneshot::channel();
            let asked = Asked { tag, how, told };
            let settled = async {
                self.settles.send(asked).await.map_err(|_| ended())?;
                settled.await.map_err(|_| ended())?
            };
            let settled = timeout(wait, settled).await;
            settled.unwrap_or(Err(BrokerError::TimedOut))
        })
    }
}

fn ended() -> BrokerError {
    BrokerError::Disconnected("the subscription has ended".into())
}

/// The task's part.
struct Task {
    answers: Streaming<ConsumeResponse>,
    requests: mpsc::Sender<ConsumeRequest>,
    handed_out: mpsc::Sender<Delivery>,
    asked: mpsc::Receiver<Asked>,
    /// Whom to tell that a message is settled.
    pending: BTreeMap<Tag, Told>,
}

impl Task {
    /// Hands on what comes until the stream ends, or the subscription is dropped.
    async fn run(mut self) {
        loop {
            // Each arm is cancel-safe: what was not received stays where it is.
            tokio::select! {
                answer = self.answers.message() => match answer {
                    Ok(Some(answer)) => if !self.answered(answer) {
                        return;
                    },
                    Ok(None) => return,
                    Err(status) => return self.broken(&status),
                },
                asked = self.asked.recv() => match asked {
                    Some(asked) => self.settle(asked),
                    None => return,
                },
                () = self.handed_out.closed() => return,
            }
        }
    }

    /// Hands on an answer; false where nothing good can come after it.
    fn answered(&mut self, answer: ConsumeResponse) -> bool {
        match answer.event {
            Some(Event::Delivered(delivered)) => convert::delivery(delivered)
                // There is room for all that may be handed out.
                .is_some_and(|delivery| self.handed_out.try_send(delivery).is_ok()),
            Some(Event::Settled(settled)) => {
                if let Some(told) = self.pending.remove(&Tag(settled.tag)) {
                    // Whoever settled it may be gone.
                    let _ = told.send(Ok(()));
                }
                true
            }
            Some(Event::Active(_)) | None => true,
        }
    }

    fn settle(&mut self, Asked { tag, how, told }: Asked) {
        if self.pending.contains_key(&tag) {
            let twice = BrokerError::Missing("a message that is not settled yet".to_owned());
            let _ = told.send(Err(twice));
            return;
        }
        let request = ConsumeRequest {
            request: Some(Request::Settle(convert::settle(tag, how))),
        };
        // Without room the stream stands still, and more was settled than was handed out.
        match self.requests.try_send(request) {
            Ok(()) => {
                self.pending.insert(tag, told);
            }
            Err(_) => {
                let _ = told.send(Err(ended()));
            }
        }
    }

    fn broken(self, status: &Status) {
        let why = status.message();
        for told in self.pending.into_values() {
            let error = BrokerError::Disconnected(why.to_owned().into());
            let _ = told.send(Err(error));
        }
        tracing::debug!(error = why, "subscription ended");
    }
}
