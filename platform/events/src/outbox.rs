//! Where events are written down, in the transaction of the change that they tell of.
//!
//! What is committed is published; what is rolled back never was. A [`Relay`](crate::Relay) does the
//! publishing, and is told of each commit.

pub(crate) mod tables;

use std::sync::{Arc, OnceLock};

use gantry::{
    contract::prost::{Message, Name},
    crash, names,
    telemetry::{
        messaging::{self, Creating},
        metric::{self, Counter},
    },
};
use gantry_store::{Database, Error, OpenError, Query, Statement, Timestamp, Transaction};
use tokio::sync::Notify;
use uuid::Uuid;

use self::tables::PENDING;
use crate::{
    envelope::{Envelope, Trace},
    headers::SEQUENCE,
};

/// Longest key of an event, in bytes.
pub const KEY_MAX: usize = 200;
/// Longest body of an event, in bytes.
pub const BODY_MAX: usize = 256 * 1024;

/// How a broker is called that nobody has named yet.
const NO_SYSTEM: &str = "gantry";

const NEXT: Statement = Statement::new(
    "events.next_sequence",
    "INSERT INTO event_aggregates
         (aggregate_key, last_sequence, sent_sequence, due_at, tries, claim)
     VALUES ($1, 1, 0, $2, 0, 0)
     ON CONFLICT (aggregate_key) DO UPDATE SET
         due_at = CASE
             WHEN event_aggregates.sent_sequence = event_aggregates.last_sequence THEN $2
             ELSE event_aggregates.due_at END,
         last_sequence = event_aggregates.last_sequence + 1
     RETURNING last_sequence, 0 AS written",
)
// On a server each statement is a way there and back: the event is written with its number.
.on_server(
    "WITH next AS (
         INSERT INTO event_aggregates
             (aggregate_key, last_sequence, sent_sequence, due_at, tries, claim)
         VALUES ($1, 1, 0, $2, 0, 0)
         ON CONFLICT (aggregate_key) DO UPDATE SET
             due_at = CASE
                 WHEN event_aggregates.sent_sequence = event_aggregates.last_sequence THEN $2
                 ELSE event_aggregates.due_at END,
             last_sequence = event_aggregates.last_sequence + 1
         RETURNING last_sequence),
     written AS (
         INSERT INTO event_outbox
             (aggregate_key, sequence, event_id, topic, headers, body, state, created_at)
         SELECT $1, last_sequence, $3, $4, $5, $6, $7, $2 FROM next)
     SELECT last_sequence, CAST(1 AS BIGINT) AS written FROM next",
);
const ADD: Statement = Statement::new(
    "events.add",
    "INSERT INTO event_outbox
         (aggregate_key, sequence, event_id, topic, headers, body, state, created_at)
     VALUES ($1, $8, $3, $4, $5, $6, $7, $2)",
);

/// Why no event can be written down so. Neither key nor body is shown: they are people's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// It has no key.
    #[error("the key of {topic} is empty; expected what the event is about, as an identifier")]
    NoKey {
        /// The type of the event.
        topic: String,
    },
    /// Its key is longer than [`KEY_MAX`].
    #[error(
        "the key of {topic} has {bytes} bytes; expected {KEY_MAX} at most, as an identifier has"
    )]
    Key {
        /// The type of the event.
        topic: String,
        /// How many.
        bytes: usize,
    },
    /// Its body is longer than [`BODY_MAX`].
    #[error(
        "the body of {topic} has {bytes} bytes; expected {BODY_MAX} at most: tell where the rest can be had"
    )]
    Body {
        /// The type of the event.
        topic: String,
        /// How many.
        bytes: usize,
    },
}

/// Where a service writes down its events; clones share it.
#[derive(Debug, Clone)]
pub struct Outbox {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    database: Database,
    source: String,
    wake: Arc<Notify>,
    added: Counter,
    /// What kind of broker its events go to, once that is known.
    system: OnceLock<&'static str>,
}

impl Outbox {
    /// The outbox of the service `service`, in its database; its tables are made where they are
    /// missing, and a database that is away is waited for.
    ///
    /// # Errors
    ///
    /// If its tables are there in another shape.
    pub async fn open(database: &Database, service: &str) -> Result<Self, OpenError> {
        let migrations = tables::MIGRATIONS;
        database
            .extend_patiently(tables::LIBRARY, migrations)
            .await?;
        Ok(Self::over(database, service))
    }

    /// The outbox in a database that has its tables.
    pub(crate) fn over(database: &Database, service: &str) -> Self {
        Self {
            shared: Arc::new(Shared {
                database: database.clone(),
                source: format!("/{service}"),
                wake: Arc::new(Notify::new()),
                added: metric::series(&names::metric::EVENTS_ADDED, &[]),
                system: OnceLock::new(),
            }),
        }
    }

    /// Writes an event down; answers its identifier.
    ///
    /// It is published once `transaction` is committed, and never if it is not. Events of one `key`, as
    /// the identifier of what it happened to, are published in the order in which they were committed;
    /// until its end the transaction has the key for itself, so transactions with events of several keys
    /// write them down in one order of their keys, or wait for each other in vain. The topic is the full name of the
    /// message's type. It carries where in its trace it was written down.
    ///
    /// # Errors
    ///
    /// If the database fails; or the event is [`Unfit`], which is the source of the error then. Either
    /// way, and where this is dropped before it ends, the transaction is to be rolled back.
    pub async fn add<M: Message + Name>(
        &self,
        transaction: &mut Transaction,
        key: &str,
        message: &M,
    ) -> Result<Uuid, Error> {
        crash::point("events.p1");
        let topic = M::full_name();
        let body = message.encode_to_vec();
        checked(&topic, key, &body).map_err(|unfit| Error::broken(ADD.name(), unfit))?;
        let id = Uuid::now_v7();
        let system = self.shared.system.get().copied().unwrap_or(NO_SYSTEM);
        let creating = messaging::create(system, &topic, &id.to_string(), body.len());
        let event = Event {
            id,
            key,
            topic,
            body: &body,
        };
        let added = creating.within(self.write(transaction, event, &creating));
        let added = added.await;
        creating.end(added.is_ok());
        added?;
        let shared = Arc::clone(&self.shared);
        transaction.after_commit(move || {
            crash::point("events.p2");
            shared.added.increment();
            shared.wake.notify_one();
        });
        Ok(id)
    }

    async fn write(
        &self,
        transaction: &mut Transaction,
        event: Event<'_>,
        creating: &Creating,
    ) -> Result<(), Error> {
        let Event {
            id,
            key,
            topic,
            body,
        } = event;
        let now = Timestamp::now();
        let trace = Trace::of(creating.trace());
        let envelope = Envelope {
            id,
            source: self.shared.source.clone(),
            // Not known yet: it has a column, from where it goes into the headers on the way.
            sequence: 0,
            time: now,
            traceparent: trace.parent,
            tracestate: trace.state,
        };
        let mut headers = envelope.headers(&topic, key);
        headers.remove(SEQUENCE);
        let headers = serde_json::to_string(&headers).expect("a map of texts is JSON");
        let row = Written {
            key,
            now,
            id,
            topic: &topic,
            headers: &headers,
            body,
        };
        let next = row.by(transaction, &NEXT).fetch_one().await?;
        if next.integer("written")? == 0 {
            let sequence = next.integer("last_sequence")?;
            row.by(transaction, &ADD).bind(sequence).execute().await?;
        }
        Ok(())
    }

    /// Its events go to a broker of this kind.
    pub(crate) fn goes_to(&self, system: &'static str) {
        // A second relay changes nothing for what the first one sends.
        let _ = self.shared.system.set(system);
    }

    pub(crate) fn database(&self) -> &Database {
        &self.shared.database
    }

    /// Told whenever events were committed.
    pub(crate) fn wake(&self) -> Arc<Notify> {
        Arc::clone(&self.shared.wake)
    }
}

/// What is written down of an event, all but its number.
struct Written<'a> {
    key: &'a str,
    now: Timestamp,
    id: Uuid,
    topic: &'a str,
    headers: &'a str,
    body: &'a [u8],
}

impl Written<'_> {
    fn by<'t>(&self, transaction: &'t mut Transaction, statement: &Statement) -> Query<'t> {
        let query = transaction.statement(statement).bind(self.key);
        let query = query.bind(self.now).bind(self.id.to_string());
        let query = query.bind(self.topic).bind(self.headers);
        query.bind(self.body).bind(PENDING)
    }
}

/// An event that is written down.
struct Event<'a> {
    id: Uuid,
    key: &'a str,
    topic: String,
    body: &'a [u8],
}

/// Whether an event can be written down.
fn checked(topic: &str, key: &str, body: &[u8]) -> Result<(), Unfit> {
    let topic = topic.to_owned();
    match (key.len(), body.len()) {
        (0, _) => Err(Unfit::NoKey { topic }),
        (bytes, _) if bytes > KEY_MAX => Err(Unfit::Key { topic, bytes }),
        (_, bytes) if bytes > BODY_MAX => Err(Unfit::Body { topic, bytes }),
        _ => Ok(()),
    }
}
