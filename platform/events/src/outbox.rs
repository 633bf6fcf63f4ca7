//! Where events are written down, in the transaction of the change that they tell of.
//!
//! What is committed is published; what is rolled back never was. A [`Relay`](crate::Relay) does the
//! publishing, and is told of each commit.

pub(crate) mod tables;

use std::sync::Arc;

use gantry::{
    contract::prost::{Message, Name},
    crash, names,
    telemetry::metric::{self, Counter},
};
use gantry_store::{Database, Error, OpenError, Statement, Timestamp, Transaction};
use tokio::sync::Notify;
use uuid::Uuid;

use self::tables::PENDING;
use crate::envelope::{Envelope, Trace};

/// Longest key of an event, in bytes.
pub const KEY_MAX: usize = 200;
/// Longest body of an event, in bytes.
pub const BODY_MAX: usize = 256 * 1024;

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
     RETURNING last_sequence",
);
const ADD: Statement = Statement::new(
    "events.add",
    "INSERT INTO event_outbox
         (aggregate_key, sequence, event_id, topic, headers, body, state, created_at)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
);

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
        Ok(Self {
            shared: Arc::new(Shared {
                database: database.clone(),
                source: format!("/{service}"),
                wake: Arc::new(Notify::new()),
                added: metric::series(&names::metric::EVENTS_ADDED, &[]),
            }),
        })
    }

    /// Writes an event down; answers its identifier.
    ///
    /// It is published once `transaction` is committed, and never if it is not. Events of one `key`, as
    /// the identifier of what it happened to, are published in the order in which they were committed;
    /// until its end the transaction has the key for itself, so transactions with events of several keys
    /// write them down in one order of their keys, or wait for each other in vain. The topic is the full name of the
    /// message's type. It carries the trace of the call being served.
    ///
    /// # Errors
    ///
    /// If the database fails, or the key is empty or longer than [`KEY_MAX`], or the message longer
    /// than [`BODY_MAX`]; then the transaction is to be rolled back.
    #[expect(clippy::missing_panics_doc, reason = "a map of texts is JSON")]
    pub async fn add<M: Message + Name>(
        &self,
        transaction: &mut Transaction,
        key: &str,
        message: &M,
    ) -> Result<Uuid, Error> {
        crash::point("events.p1");
        let topic = M::full_name();
        let body = message.encode_to_vec();
        if let Some(fault) = fault(key, &body) {
            tracing::error!(topic, fault, "an event cannot be written down");
            return Err(Error::broken(ADD.name()));
        }
        let now = Timestamp::now();
        let next = transaction.statement(&NEXT).bind(key).bind(now);
        let sequence = next.fetch_one().await?.narrow("last_sequence")?;
        let trace = Trace::current();
        let envelope = Envelope {
            id: Uuid::now_v7(),
            source: self.shared.source.clone(),
            sequence,
            time: now,
            traceparent: trace.parent,
            tracestate: trace.state,
        };
        let headers =
            serde_json::to_string(&envelope.headers(&topic, key)).expect("a map of texts is JSON");
        let add = transaction.statement(&ADD).bind(key);
        let add = add.bind(i64::try_from(sequence).unwrap_or(i64::MAX));
        let add = add.bind(envelope.id.to_string()).bind(topic).bind(headers);
        let add = add.bind(&*body).bind(PENDING).bind(now);
        add.execute().await?;
        let shared = Arc::clone(&self.shared);
        transaction.after_commit(move || {
            crash::point("events.p2");
            shared.added.increment();
            shared.wake.notify_one();
        });
        Ok(envelope.id)
    }

    pub(crate) fn database(&self) -> &Database {
        &self.shared.database
    }

    /// Told whenever events were committed.
    pub(crate) fn wake(&self) -> Arc<Notify> {
        Arc::clone(&self.shared.wake)
    }
}

/// What is wrong with an event, where something is.
fn fault(key: &str, body: &[u8]) -> Option<&'static str> {
    if key.is_empty() {
        return Some("its key is empty");
    }
    if key.len() > KEY_MAX {
        return Some("its key is too long");
    }
    (body.len() > BODY_MAX).then_some("its body is too long")
}
