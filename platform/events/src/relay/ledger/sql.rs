//! Events in the database of a service.

use std::collections::{HashMap, HashSet};

use gantry::{crash, status::chain};
use gantry_store::{Database, Error, Row, Statement, Timestamp, Transaction};

use super::{Backlog, Claimed, Event, Ledger, Outcome, Settled};
use crate::{
    Message,
    outbox::tables::{DROPPED, SENT},
};

/// Events that are forgotten in one statement.
const PRUNE_MAX: i64 = 500;

const ENTER: Statement = Statement::new(
    "events.enter_relay",
    "INSERT INTO event_relays (relay, lease_until) VALUES ($1, $2)",
);
const RENEW: Statement = Statement::new(
    "events.renew_relay",
    "UPDATE event_relays SET lease_until = $2 WHERE relay = $1",
);
const EXPIRE: Statement = Statement::new(
    "events.expire_relays",
    "DELETE FROM event_relays WHERE lease_until <= $2 AND relay <> $1",
);
const EXPIRED: Statement = Statement::new(
    "events.expired_relays",
    "SELECT relay FROM event_relays WHERE lease_until <= $2 AND relay <> $1 LIMIT 1",
);
const LEAVE: Statement = Statement::new(
    "events.leave_relay",
    "DELETE FROM event_relays WHERE relay = $1",
);

const DUE: Statement = Statement::new(
    "events.due",
    "SELECT due_at FROM event_aggregates
     WHERE sent_sequence < last_sequence
         AND (claimed_by IS NULL OR claimed_by NOT IN (SELECT relay FROM event_relays))
     ORDER BY due_at LIMIT 1",
);
const CLAIM: Statement = Statement::new(
    "events.claim",
    "UPDATE event_aggregates SET claimed_by = $1, claim = $2
     WHERE aggregate_key IN (
         SELECT aggregate_key FROM event_aggregates
         WHERE sent_sequence < last_sequence AND due_at <= $3
             AND (claimed_by IS NULL OR claimed_by NOT IN (SELECT relay FROM event_relays))
         ORDER BY due_at LIMIT $4)
     RETURNING aggregate_key, sent_sequence, tries",
)
// As an array it is looked for once, whatever else the server finds best.
.on_server(
    "UPDATE event_aggregates SET claimed_by = $1, claim = $2
     WHERE aggregate_key = ANY (ARRAY(
         SELECT aggregate_key FROM event_aggregates
         WHERE sent_sequence < last_sequence AND due_at <= $3
             AND (claimed_by IS NULL OR claimed_by NOT IN (SELECT relay FROM event_relays))
         ORDER BY due_at LIMIT $4 FOR UPDATE SKIP LOCKED))
     RETURNING aggregate_key, sent_sequence, tries",
);
const CLAIMED: Statement = Statement::new(
    "events.claimed",
    "SELECT event_outbox.aggregate_key AS aggregate_key, sequence, topic, headers, body
     FROM event_aggregates
     JOIN event_outbox ON event_outbox.aggregate_key = event_aggregates.aggregate_key
     WHERE claimed_by = $1 AND claim = $2
         AND sequence > sent_sequence AND sequence <= sent_sequence + $3
     ORDER BY sequence - sent_sequence, event_outbox.aggregate_key LIMIT $3",
);

const ADVANCE: Statement = Statement::new(
    "events.advance",
    "UPDATE event_aggregates
     SET sent_sequence = $2, tries = $3, due_at = COALESCE($4, due_at), claimed_by = $5
     WHERE aggregate_key = $1 AND claimed_by = $6",
)
// Whoever adds an event has the row until the end of a transaction that may take long, and others
// do not wait for that.
.on_server(
    "UPDATE event_aggregates
     SET sent_sequence = $2, tries = $3, due_at = COALESCE($4, due_at), claimed_by = $5
     WHERE aggregate_key = (
         SELECT aggregate_key FROM event_aggregates
         WHERE aggregate_key = $1 AND claimed_by = $6 FOR UPDATE SKIP LOCKED)",
);
const HELD: Statement = Statement::new(
    "events.held",
    "SELECT tries FROM event_aggregates WHERE aggregate_key = $1 AND claimed_by = $2",
);
const MARK: Statement = Statement::new(
    "events.mark",
    "UPDATE event_outbox SET state = $5, ended_at = $4
     WHERE aggregate_key = $1 AND sequence > $2 AND sequence <= $3 AND state = 0",
);

const BACKLOG: Statement = Statement::new(
    "events.backlog",
    "SELECT CAST(COALESCE(SUM(last_sequence - sent_sequence), 0) AS BIGINT) AS events
     FROM event_aggregates WHERE sent_sequence < last_sequence",
);
const OLDEST: Statement = Statement::new(
    "events.oldest",
    "SELECT MIN(created_at) AS oldest FROM event_outbox WHERE state = 0",
);
const PRUNE: Statement = Statement::new(
    "events.prune",
    "DELETE FROM event_outbox WHERE (aggregate_key, sequence) IN (
         SELECT aggregate_key, sequence FROM event_outbox
         WHERE state <> 0 AND ended_at < $1 ORDER BY ended_at LIMIT $2)",
);

/// The tables of an outbox.
#[derive(Debug)]
pub(in crate::relay) struct Sql {
    database: Database,
}

impl Sql {
    pub(in crate::relay) fn new(database: Database) -> Self {
        Self { database }
    }

    async fn events(
        &self,
        relay: &str,
        claim: i64,
        events_max: i64,
    ) -> Result<HashMap<String, Vec<Event>>, Error> {
        let claimed = self.database.statement(&CLAIMED).bind(relay).bind(claim);
        let rows = claimed.bind(events_max).fetch_all().await?;
        let mut events: HashMap<String, Vec<Event>> = HashMap::new();
        let mut unreadable = HashSet::new();
        for row in rows {
            let key = row.text("aggregate_key")?;
            match event(&row) {
                // Those behind it are not read either: they would come before it.
                _ if unreadable.contains(&key) => {}
                Ok(event) => events.entry(key).or_default().push(event),
                Err(error) => {
                    let error = chain(&error);
                    tracing::error!(
                        error,
                        "an event in the outbox cannot be read; its key waits"
                    );
                    unreadable.insert(key);
                }
            }
        }
        Ok(events)
    }
}

impl Ledger for Sql {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    async fn enter(&self, relay: &str, until: Timestamp) -> Result<(), Error> {
        let enter = self.database.statement(&ENTER).bind(relay).bind(until);
        enter.execute().await.map(drop)
    }

    async fn renew(&self, relay: &str, now: Timestamp, until: Timestamp) -> Result<bool, Error> {
        let renew = self.database.statement(&RENEW).bind(relay).bind(until);
        let known = renew.execute().await? == 1;
        // Reading first spares a turn at writing, for what happens once in a long while.
        let expired = self.database.statement(&EXPIRED).bind(relay).bind(now);
        if expired.fetch_optional().await?.is_some() {
            let expire = self.database.statement(&EXPIRE).bind(relay).bind(now);
            expire.execute().await?;
        }
        Ok(known)
    }

    async fn leave(&self, relay: &str) -> Result<(), Error> {
        let leave = self.database.statement(&LEAVE).bind(relay);
        leave.execute().await.map(drop)
    }

    async fn due(&self) -> Result<Option<Timestamp>, Error> {
        let first = self.database.statement(&DUE).fetch_optional().await?;
        first.map(|row| row.time("due_at")).transpose()
    }

    async fn claim(
        &self,
        relay: &str,
        claim: i64,
        keys_max: usize,
        events_max: usize,
    ) -> Result<Vec<Claimed>, Error> {
        let bound = |max: usize| i64::try_from(max).unwrap_or(i64::MAX);
        let claimed = self.database.statement(&CLAIM).bind(relay).bind(claim);
        let claimed = claimed.bind(self.now()).bind(bound(keys_max));
        let rows = claimed.fetch_all().await?;
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let mut events = self.events(relay, claim, bound(events_max)).await?;
        let claimed = |row: &Row| {
            let key = row.text("aggregate_key")?;
            Ok(Claimed {
                sent: row.integer("sent_sequence")?,
                tries: row.narrow("tries").unwrap_or(u32::MAX),
                events: events.remove(&key).unwrap_or_default(),
                key,
            })
        };
        rows.iter().map(claimed).collect()
    }

    async fn settle(&self, relay: &str, outcomes: &[Outcome]) -> Result<Vec<Settled>, Error> {
        let mut transaction = self.database.begin("events.settle").await?;
        let now = self.now();
        let mut written = Vec::with_capacity(outcomes.len());
        for outcome in outcomes {
            written.push(write(&mut transaction, relay, outcome, now).await?);
        }
        crash::point("events.p6");
        transaction.commit().await?;
        Ok(written)
    }

    async fn backlog(&self) -> Result<Backlog, Error> {
        let sum = self.database.statement(&BACKLOG).fetch_one().await?;
        let oldest = self.database.statement(&OLDEST).fetch_one().await?;
        Ok(Backlog {
            events: sum.narrow("events")?,
            oldest: oldest
                .optional_integer("oldest")?
                .map(Timestamp::from_micros),
        })
    }

    async fn prune(&self, before: Timestamp) -> Result<u64, Error> {
        let prune = self.database.statement(&PRUNE).bind(before);
        prune.bind(PRUNE_MAX).execute().await
    }
}

fn event(row: &Row) -> Result<Event, Error> {
    let headers = row.text("headers")?;
    Ok(Event {
        sequence: row.integer("sequence")?,
        message: Message {
            topic: row.text("topic")?,
            key: row.text("aggregate_key")?,
            headers: serde_json::from_str(&headers).map_err(|_| row.unreadable())?,
            body: row.bytes("body")?.into(),
        },
    })
}

/// Writes down what became of events of one key, where nobody else is at it.
async fn write(
    transaction: &mut Transaction,
    relay: &str,
    outcome: &Outcome,
    now: Timestamp,
) -> Result<Settled, Error> {
    let Outcome {
        key,
        before,
        sent,
        dropped,
        release,
    } = outcome;
    let advance = transaction.statement(&ADVANCE).bind(key).bind(*sent);
    let advance = advance.bind(release.map_or(0, |it| it.tries));
    let advance = advance.bind(release.map(|it| it.due_at.micros()));
    let claimed_by = release.is_none().then_some(relay);
    let rows = advance.bind(claimed_by).bind(relay).execute().await?;
    if rows == 0 {
        let held = transaction.statement(&HELD).bind(key).bind(relay);
        let held = held.fetch_optional().await?;
        return Ok(held.map_or(Settled::Lost, |_| Settled::Busy));
    }
    let mut mark = async |after: i64, last: i64, state: i64| {
        let mark = transaction.statement(&MARK).bind(key).bind(after);
        mark.bind(last).bind(now).bind(state).execute().await
    };
    for sequence in dropped {
        mark(*sequence - 1, *sequence, DROPPED).await?;
    }
    if before < sent {
        mark(*before, *sent, SENT).await?;
    }
    Ok(Settled::Written)
}
