//! What operators see of the events of a process, as the admin service tells it.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use gantry::contract::prost_types;
use gantry_api::admin::v1;
use gantry_store::Timestamp;
use tokio::time::Instant;

use crate::{
    broker::{Broker, Connection, ConnectionState},
    consumer, relay,
};

/// What operators see of the events of a process.
pub(crate) struct State {
    broker: Arc<dyn Broker>,
    /// Where that is; empty where nobody has said.
    url: String,
    relay: Arc<relay::Shown>,
    consumers: Mutex<Vec<Arc<consumer::Shown>>>,
}

impl State {
    pub(crate) fn new(broker: Arc<dyn Broker>, url: String, relay: Arc<relay::Shown>) -> Self {
        Self {
            broker,
            url,
            relay,
            consumers: Mutex::default(),
        }
    }

    fn consumers(&self) -> MutexGuard<'_, Vec<Arc<consumer::Shown>>> {
        self.consumers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// One more consumer.
    pub(crate) fn add(&self, consumer: Arc<consumer::Shown>) {
        self.consumers().push(consumer);
    }

    /// All of it.
    pub(crate) fn on_wire(&self) -> v1::GetEventsResponse {
        let connections = self.broker.connections().into_iter();
        let broker = v1::EventBroker {
            system: self.broker.system().to_owned(),
            url: self.url.clone(),
            connections: connections.map(connection).collect(),
        };
        let consumers = self.consumers().clone();
        v1::GetEventsResponse {
            broker: Some(broker),
            outbox: Some(self.relay.on_wire()),
            consumers: consumers.iter().map(|it| it.on_wire()).collect(),
        }
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State")
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

fn connection(connection: Connection) -> v1::BrokerConnection {
    use v1::broker_connection::State;
    let state = match connection.state {
        ConnectionState::Unused => State::Unused,
        ConnectionState::Connected => State::Connected,
        ConnectionState::Blocked => State::Blocked,
        ConnectionState::Denied => State::Denied,
        ConnectionState::Disconnected => State::Disconnected,
    };
    v1::BrokerConnection {
        purpose: connection.purpose.to_owned(),
        state: state.into(),
        state_time: connection.since.map(time_of),
        error: connection.error.unwrap_or_default(),
        attempts: connection.tries,
    }
}

/// Wall-clock time of an instant that is past, for people.
pub(crate) fn time_of(instant: Instant) -> prost_types::Timestamp {
    Timestamp::now().before(instant.elapsed()).into()
}

/// A count on the wire.
pub(crate) fn count(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
