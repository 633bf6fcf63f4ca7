//! The local broker, by its contract over the platform's own client.
//!
//! Messages of one process go through one stream, in the order in which they were published, and are
//! confirmed by it; each subscription is a stream of its own. A stream that breaks takes with it what
//! was not confirmed: who published is told, and what was handed out comes again.

mod convert;
mod publish;
mod subscribe;
mod tail;

use std::collections::BTreeMap;

use gantry::{
    client::{self, Channel, Clients},
    config::Live,
    journal::Journal,
    shutdown::Tasks,
};
use gantry_api::broker::v1::{
    DeclareGroupRequest, Drop as Dropped, ListDeadLettersRequest, ListGroupsRequest, Redrive,
    RemoveGroupRequest, SettleDeadLetterRequest, TailRequest,
    broker_service_client::BrokerServiceClient, settle_dead_letter_request::How,
};
use tokio::time::{Duration, timeout};
use tonic::{Response, Status};

use super::{
    Broker, BrokerError, Config, Connection, ConnectionState, DeadLetter, Fill, Group, Headers,
    PublishError, Subscription, Tail, Work,
};
use crate::Message;
use publish::Publisher;

/// The name of the broker among what this process calls.
const NAME: &str = "broker";

/// Pauses between connections: nothing else is this near.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Streams and calls at once: one for each queue that somebody consumes from.
const CALLS_MAX: usize = 16_384;

type Client = BrokerServiceClient<Channel>;

/// The local broker.
#[derive(Debug)]
pub(super) struct Local {
    channel: Channel,
    client: Client,
    publisher: Publisher,
    config: Live<Config>,
    tasks: Tasks,
}

impl Local {
    /// The broker that `config` names; it is connected in the background.
    pub(super) fn new(config: &Live<Config>, tasks: &Tasks, journal: &Journal) -> Self {
        let clients = BTreeMap::from([(NAME.to_owned(), client_config(&config.load()))]);
        let clients = Clients::new(clients, tasks.clone(), journal.clone());
        let channel = clients.channel(NAME, &[]);
        let client = BrokerServiceClient::new(channel.clone());
        Self {
            channel,
            publisher: Publisher::start(&client, config.clone(), tasks),
            client,
            config: config.clone(),
            tasks: tasks.clone(),
        }
    }

    /// Waits for an answer about `what`.
    async fn answer<T>(
        &self,
        what: &str,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, BrokerError> {
        let wait = self.config.read(|config| config.connect_timeout);
        match timeout(wait, call).await {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) => Err(convert::error(what, status)),
            Err(_) => Err(BrokerError::TimedOut),
        }
    }

    async fn declared(&self, group: &Group, narrow: bool) -> Result<(), BrokerError> {
        let request = DeclareGroupRequest {
            group: group.name.clone(),
            partitions: u32::from(group.partitions),
            topics: group.topics.clone(),
            queue_messages_max: group.queue_messages_max.unwrap_or_default(),
            narrow,
        };
        let mut client = self.client.clone();
        let call = client.declare_group(request);
        self.answer(&group.name, call).await.map(drop)
    }

    async fn list(&self, group: &str) -> Result<Vec<gantry_api::broker::v1::Group>, BrokerError> {
        let request = ListGroupsRequest {
            group: group.to_owned(),
        };
        let mut client = self.client.clone();
        let listed = self.answer(group, client.list_groups(request)).await?;
        Ok(listed.groups)
    }
}

fn client_config(config: &Config) -> client::Config {
    let url = &config.url;
    let mut client = client::Config {
        fail_fast: config.connect_timeout,
        connect_timeout: config.connect_timeout,
        timeout_default: config.connect_timeout,
        backoff_min: PAUSE_MIN,
        backoff_max: PAUSE_MAX,
        keepalive_interval: config.heartbeat,
        keepalive_timeout: config.heartbeat,
        // It has no such contract.
        health: false,
        ..client::Config::to(target(url))
    };
    client.bulkhead.calls_max = CALLS_MAX;
    client
}

/// An address as it is, and a name by DNS.
fn target(url: &super::Url) -> String {
    let at = format!("{}:{}", url.host(), url.port());
    match at.parse::<std::net::SocketAddr>() {
        Ok(_) => at,
        Err(_) => format!("dns:///{at}"),
    }
}

impl Broker for Local {
    fn connections(&self) -> Vec<Connection> {
        let ready = self.channel.is_ready();
        let consuming = Connection {
            purpose: "consuming",
            state: if ready {
                ConnectionState::Connected
            } else {
                ConnectionState::Disconnected
            },
            since: None,
            error: None,
            tries: 0,
        };
        vec![self.publisher.shown(), consuming]
    }

    fn declare<'a>(&'a self, group: &'a Group) -> Work<'a, Result<(), BrokerError>> {
        Box::pin(self.declared(group, false))
    }

    fn narrow<'a>(&'a self, group: &'a Group) -> Work<'a, Result<(), BrokerError>> {
        Box::pin(self.declared(group, true))
    }

    fn publish_by(
        &self,
        epoch: Option<u64>,
        message: Message,
    ) -> Work<'_, Result<(), PublishError>> {
        let wait = self.config.read(|config| config.confirm_timeout);
        Box::pin(self.publisher.publish(epoch, message, wait))
    }

    fn epoch(&self) -> Work<'_, Result<u64, BrokerError>> {
        Box::pin(async {
            let wait = self.config.read(|config| config.connect_timeout);
            let epoch = timeout(wait, self.publisher.epoch()).await;
            epoch.unwrap_or(Err(BrokerError::TimedOut))
        })
    }

    fn subscribe<'a>(
        &'a self,
        group: &'a str,
        partition: u16,
        prefetch: u16,
    ) -> Work<'a, Result<Box<dyn Subscription>, BrokerError>> {
        Box::pin(async move {
            let opened = subscribe::open(group, partition, prefetch);
            let mut client = self.client.clone();
            let answers = self.answer(group, client.consume(opened.requests)).await?;
            let confirm_timeout = self.config.clone();
            let subscription = opened.begin.begin(answers, confirm_timeout, &self.tasks);
            Ok(Box::new(subscription) as _)
        })
    }

    fn fill<'a>(&'a self, group: &'a str) -> Work<'a, Result<Fill, BrokerError>> {
        Box::pin(async move {
            let listed = self.list(group).await?.pop();
            let listed = listed.ok_or_else(|| convert::missing(group))?;
            Ok(convert::fill(&listed))
        })
    }

    fn dead_letters<'a>(
        &'a self,
        group: &'a str,
        after: u64,
        count_max: u16,
    ) -> Work<'a, Result<Vec<DeadLetter>, BrokerError>> {
        let request = ListDeadLettersRequest {
            group: group.to_owned(),
            after,
            count_max: u32::from(count_max),
        };
        let mut client = self.client.clone();
        Box::pin(async move {
            let call = client.list_dead_letters(request);
            let listed = self.answer(group, call).await?;
            let letters = listed.dead_letters.into_iter();
            Ok(letters.filter_map(convert::dead_letter).collect())
        })
    }

    fn settle_dead_letter<'a>(
        &'a self,
        group: &'a str,
        letter: &'a DeadLetter,
        headers: Option<Headers>,
    ) -> Work<'a, Result<(), BrokerError>> {
        let how = match headers {
            Some(headers) => How::Redrive(Redrive {
                headers: headers.into_iter().collect(),
            }),
            None => How::Drop(Dropped {}),
        };
        let request = SettleDeadLetterRequest {
            group: group.to_owned(),
            place: letter.place,
            how: Some(how),
        };
        let mut client = self.client.clone();
        Box::pin(async move {
            let what = format!("dead letter {} of {group}", letter.place);
            let call = client.settle_dead_letter(request);
            self.answer(&what, call).await.map(drop)
        })
    }

    fn remove<'a>(&'a self, group: &'a str) -> Work<'a, Result<(), BrokerError>> {
        let request = RemoveGroupRequest {
            group: group.to_owned(),
        };
        let mut client = self.client.clone();
        Box::pin(async move {
            let call = client.remove_group(request);
            self.answer(group, call).await.map(drop)
        })
    }

    fn groups(&self) -> Work<'_, Result<Option<Vec<String>>, BrokerError>> {
        Box::pin(async {
            let listed = self.list("").await?.into_iter();
            Ok(Some(listed.map(|group| group.group).collect()))
        })
    }

    fn tail<'a>(&'a self, topics: &'a [String]) -> Work<'a, Result<Box<dyn Tail>, BrokerError>> {
        let request = TailRequest {
            topics: topics.to_vec(),
        };
        let mut client = self.client.clone();
        Box::pin(async move {
            let answers = self.answer("tail", client.tail(request)).await?;
            Ok(Box::new(tail::Reading::new(answers)) as _)
        })
    }

    fn ping(&self) -> Work<'_, Result<(), BrokerError>> {
        // One group that nobody has: no more than a word is answered.
        Box::pin(async { self.list(".").await.map(drop) })
    }
}
