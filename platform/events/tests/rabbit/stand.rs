//! A RabbitMQ of a test's own, with a proxy before it.

use std::{fmt, sync::Arc};

use gantry::{
    config::{Live, Secret},
    journal::Journal,
    shutdown::Tasks,
};
use gantry_events::broker::{
    self, Broker, Config,
    contract::{Running, Stand},
};
use gantry_harness::{
    rabbitmq::{PASSWORD, RabbitMq, USER},
    slow::Slow,
};
use tokio::sync::Mutex;

/// A server, and the way to it.
pub(crate) struct Server {
    pub(crate) rabbitmq: Mutex<RabbitMq>,
    pub(crate) way: Slow,
    pub(crate) journal: Journal,
}

/// What reaches a server at `url`, as whoever may do all.
pub(crate) fn config(url: &str) -> Config {
    let mut config = Config::to(url.parse().unwrap());
    config.user = Some(USER.to_owned());
    config.password = Secret::new(PASSWORD);
    config
}

/// The broker of a configuration.
pub(crate) fn connect(config: Config, journal: &Journal) -> Arc<dyn Broker> {
    let tasks = Tasks::new(Journal::new());
    broker::connect(&Live::fixed(config), &tasks, journal)
}

impl Server {
    /// One of its own; none where RabbitMQ cannot be had on this machine.
    pub(crate) async fn start() -> Option<Self> {
        Some(Self::with(RabbitMq::start().await?).await)
    }

    pub(crate) async fn with(rabbitmq: RabbitMq) -> Self {
        Self {
            way: Slow::to(rabbitmq.address()).await,
            rabbitmq: Mutex::new(rabbitmq),
            journal: Journal::new(),
        }
    }

    pub(crate) fn rabbit(&self) -> Arc<dyn Broker> {
        let url = format!("amqp://{}", self.way.address);
        connect(config(&url), &self.journal)
    }
}

impl Stand for Server {
    fn client(&self) -> Arc<dyn Broker> {
        self.rabbit()
    }

    fn cut(&self) -> Running<'_, bool> {
        self.way.cut();
        Box::pin(async { true })
    }

    fn restart(&self) -> Running<'_, bool> {
        Box::pin(async {
            let mut rabbitmq = self.rabbitmq.lock().await;
            rabbitmq.kill().await;
            rabbitmq.restart().await;
            true
        })
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.rabbitmq.fmt(f)
    }
}
