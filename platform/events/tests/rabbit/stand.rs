//! A RabbitMQ of a test's own, with a proxy before it.

use std::{fmt, sync::Arc};

use gantry::journal::Journal;
use gantry_events::broker::{
    Broker,
    contract::{Running, Stand},
    rabbit::Rabbit,
};
use gantry_harness::{rabbitmq::RabbitMq, slow::Slow};
use tokio::sync::Mutex;

/// A server, and the way to it.
pub(crate) struct Server {
    pub(crate) rabbitmq: Mutex<RabbitMq>,
    pub(crate) way: Slow,
    url: String,
    pub(crate) journal: Journal,
}

impl Server {
    /// One of its own; none where RabbitMQ cannot be had on this machine.
    pub(crate) async fn start() -> Option<Self> {
        Some(Self::with(RabbitMq::start().await?).await)
    }

    pub(crate) async fn with(rabbitmq: RabbitMq) -> Self {
        let way = Slow::to(rabbitmq.address()).await;
        Self {
            url: rabbitmq.url_at(way.address),
            rabbitmq: Mutex::new(rabbitmq),
            way,
            journal: Journal::new(),
        }
    }

    pub(crate) fn rabbit(&self) -> Rabbit {
        Rabbit::new(&self.url, "a test", &self.journal).unwrap()
    }
}

impl Stand for Server {
    fn client(&self) -> Arc<dyn Broker> {
        Arc::new(self.rabbit())
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
