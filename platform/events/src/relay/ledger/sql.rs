//! Events in the database of a service.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use gantry::{crash, status::chain};
use gantry_store::{Database, Error, Row, Statement, Timestamp};

use super::{BEHIND_MAX, Backlog, Claimed, Event, Ledger, Most, Outcome, Settled};
use crate::{
    Message,
    broker::Headers,
    headers::SEQUENCE,
    outbox::tables::{DROPPED, SENT},
};

/// Events that are forgotten in one statement.
const PRUNE_MAX: i64 = 500;
/// Keys whose time is brought nearer in one statement.
const BRING_NEAR_MAX: i64 = 500;

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
// A file has one writer, who waits for nobody.
const CLAIM_PATIENTLY: Statement = CLAIM.named("events.claim_patiently").on_server(
    "UPDATE event_aggregates SET claimed_by = $1, claim = $2
     WHERE aggregate_key = ANY (ARRAY(
         SELECT aggregate_key FROM event_aggregates
         WHERE sent_sequence < last_sequence AND due_at <= $3
             AND (claimed_by IS NULL OR claimed_by NOT IN (SELECT relay FROM event_relays))
         ORDER BY due_at LIMIT $4 FOR UPDATE))
     RETURNING aggregate_key, sent_sequence, tries",
);
// Of each key as many events as of the others, from the first that waits, which is among the next $5: a
// bounded number is looked at, whatever there is. Bodies are read of those that are answered: first the
// first of each key, then the second, until they are long enough together. With the sum the server looks
// for events of a key, and not through the index of all that wait.
const CLAIMED: Statement = Statement::new(
    "events.claimed",
    "SELECT event_outbox.aggregate_key AS aggregate_key, event_outbox.sequence AS sequence,
         topic, headers, body
     FROM (SELECT place, bytes, nth,
               SUM(bytes) OVER (ORDER BY nth ROWS UNBOUNDED PRECEDING) AS total
           FROM (SELECT event_outbox.rowid AS place, LENGTH(body) AS bytes,
                     sequence - first AS nth
                 FROM (SELECT aggregate_key,
                           (SELECT MIN(sequence) FROM event_outbox
                            WHERE event_outbox.aggregate_key = event_aggregates.aggregate_key
                                AND sequence > sent_sequence AND sequence <= sent_sequence + $5
                                AND state + 0 = 0) AS first
                       FROM event_aggregates WHERE claimed_by = $1 AND claim = $2) AS claimed
                 JOIN event_outbox ON event_outbox.aggregate_key = claimed.aggregate_key
                     AND sequence >= first AND sequence < first + $3) AS sized) AS summed
     JOIN event_outbox ON event_outbox.rowid = place
     WHERE total - bytes < $4
     ORDER BY nth",
)
.on_server(
    "SELECT aggregate_key, sequence, topic, headers, body
     FROM (SELECT events.*, LENGTH(body) AS bytes,
               SUM(LENGTH(body)) OVER (ORDER BY nth ROWS UNBOUNDED PRECEDING) AS total
           FROM event_aggregates CROSS JOIN LATERAL (
               SELECT event_outbox.aggregate_key, sequence, topic, headers, body,
                   ROW_NUMBER() OVER (ORDER BY sequence) AS nth
               FROM event_outbox
               WHERE event_outbox.aggregate_key = event_aggregates.aggregate_key
                   AND sequence > sent_sequence AND sequence <= sent_sequence + $3 + $5
                   AND state + 0 = 0
               ORDER BY sequence LIMIT $3) AS events
           WHERE claimed_by = $1 AND claim = $2) AS summed
     WHERE total - bytes < $4
     ORDER BY nth",
);

// Lists are JSON, which all engines read. Of a key: its name, the last event that is done with, and how
// often the next one has failed, when that is due, and who has it. What others have written down as done
// in the meantime stays. With the plus SQLite looks for each key of the list, and not through the list
// for each that is claimed.
const ADVANCE: Statement = Statement::new(
    "events.advance",
    "UPDATE event_aggregates
     SET sent_sequence = MAX(sent_sequence, told.sent), tries = told.tries,
         due_at = COALESCE(told.due_at, event_aggregates.due_at), claimed_by = told.claimed_by
     FROM (SELECT value ->> 0 AS name, value ->> 1 AS sent, value ->> 2 AS tries,
                  value ->> 3 AS due_at, value ->> 4 AS claimed_by
           FROM json_each($1)) AS told
     WHERE event_aggregates.aggregate_key = told.name AND +event_aggregates.claimed_by = $2
     RETURNING aggregate_key",
)
// Whoever adds an event has the row until the end of a transaction that may take long, and others
// do not wait for that.
.on_server(
    "WITH told AS MATERIALIZED (
         SELECT it ->> 0 AS name, CAST(it ->> 1 AS BIGINT) AS sent, CAST(it ->> 2 AS BIGINT) AS tries,
                CAST(it ->> 3 AS BIGINT) AS due_at, it ->> 4 AS claimed_by
         FROM json_array_elements(CAST($1 AS JSON)) AS it),
     free AS MATERIALIZED (
         SELECT aggregate_key FROM event_aggregates
         WHERE aggregate_key = ANY (ARRAY(SELECT name FROM told)) AND claimed_by = $2
         FOR UPDATE SKIP LOCKED)
     UPDATE event_aggregates
     SET sent_sequence = GREATEST(sent_sequence, told.sent), tries = told.tries,
         due_at = COALESCE(told.due_at, event_aggregates.due_at), claimed_by = told.claimed_by
     FROM free JOIN told ON told.name = free.aggregate_key
     WHERE event_aggregates.aggregate_key = free.aggregate_key
     RETURNING event_aggregates.aggregate_key",
);
const ADVANCE_PATIENTLY: Statement = ADVANCE.named("events.advance_patiently").on_server(
    "UPDATE event_aggregates
     SET sent_sequence = GREATEST(sent_sequence, told.sent), tries = told.tries,
         due_at = COALESCE(told.due_at, event_aggregates.due_at), claimed_by = told.claimed_by
     FROM (SELECT it ->> 0 AS name, CAST(it ->> 1 AS BIGINT) AS sent,
                  CAST(it ->> 2 AS BIGINT) AS tries, CAST(it ->> 3 AS BIGINT) AS due_at,
                  it ->> 4 AS claimed_by
           FROM json_array_elements(CAST($1 AS JSON)) AS it) AS told
     WHERE event_aggregates.aggregate_key = told.name AND event_aggregates.claimed_by = $2
     RETURNING event_aggregates.aggregate_key",
);
const HELD: Statement = Statement::new(
    "events.held",
    "SELECT tries FROM event_aggregates WHERE aggregate_key = $1 AND claimed_by = $2",
);
// Of an event: its key and number, and what became of it. With the sum the server looks for each of them,
// and not through all that wait. Several of a key in one would be shorter, and have a server that has not
// counted its rows yet read all of them.
const MARK: Statement = Statement::new(
    "events.mark",
    "UPDATE event_outbox SET state = told.state, ended_at = $2
     FROM (SELECT value ->> 0 AS name, value ->> 1 AS number, value ->> 2 AS state
           FROM json_each($1)) AS told
     WHERE event_outbox.aggregate_key = told.name AND event_outbox.sequence = told.number
         AND event_outbox.state + 0 = 0",
)
.on_server(
    "UPDATE event_outbox SET state = told.state, ended_at = $2
     FROM (SELECT it ->> 0 AS name, CAST(it ->> 1 AS BIGINT) AS number,
                  CAST(it ->> 2 AS BIGINT) AS state
           FROM json_array_elements(CAST($1 AS JSON)) AS it) AS told
     WHERE event_outbox.aggregate_key = told.name AND event_outbox.sequence = told.number
         AND event_outbox.state + 0 = 0",
);

// Reading first spares a turn at writing, for what happens once in a long while.
const FAR: Statement = Statement::new(
    "events.far",
    "SELECT 1 AS one WHERE
         EXISTS (SELECT 1 FROM event_aggregates WHERE sent_sequence < last_sequence AND due_at > $1)
         OR EXISTS (SELECT 1 FROM event_relays WHERE lease_until > $2)",
);
const BRING_NEAR: Statement = Statement::new(
    "events.bring_near",
    "UPDATE event_aggregates SET due_at = $1
     WHERE aggregate_key IN (
         SELECT aggregate_key FROM event_aggregates
         WHERE sent_sequence < last_sequence AND due_at > $1 LIMIT $2)",
)
.on_server(
    "UPDATE event_aggregates SET due_at = $1
     WHERE aggregate_key = ANY (ARRAY(
         SELECT aggregate_key FROM event_aggregates
         WHERE sent_sequence < last_sequence AND due_at > $1 LIMIT $2 FOR UPDATE SKIP LOCKED))",
);
const BRING_NEAR_RELAYS: Statement = Statement::new(
    "events.bring_near_relays",
    "UPDATE event_relays SET lease_until = $1 WHERE lease_until > $1",
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

    async fn claim_by(
        &self,
        statement: &Statement,
        relay: &str,
        claim: i64,
        most: Most,
    ) -> Result<Vec<Claimed>, Error> {
        let claimed = self.database.statement(statement).bind(relay).bind(claim);
        let claimed = claimed.bind(self.now()).bind(bound(most.keys));
        let rows = claimed.fetch_all().await?;
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let each = most.events.div_ceil(rows.len());
        let claimed = self.database.statement(&CLAIMED).bind(relay).bind(claim);
        let claimed = claimed.bind(bound(each)).bind(bound(most.bytes.max(1)));
        let claimed = claimed.bind(BEHIND_MAX);
        let mut events = events(claimed.fetch_all().await?)?;
        let bytes: usize = events.values().flatten().map(Event::bytes).sum();
        let claimed = |row: &Row| {
            let key = row.text("aggregate_key")?;
            let events = events.remove(&key).unwrap_or_default();
            Ok(Claimed {
                sent: row.integer("sent_sequence")?,
                tries: row.narrow("tries").unwrap_or(u32::MAX),
                unread: events.is_empty() && bytes >= most.bytes,
                events,
                key,
            })
        };
        rows.iter().map(claimed).collect()
    }

    /// Writes down what became of events, with the keys that are given back by `advance`.
    async fn settle_by(
        &self,
        advance: &Statement,
        relay: &str,
        outcomes: &[Outcome],
    ) -> Result<Vec<Settled>, Error> {
        let mut transaction = self.database.begin("events.settle").await?;
        let mut advanced = HashSet::new();
        if let Some(keys) = keys(relay, outcomes) {
            let advance = transaction.statement(advance).bind(keys).bind(relay);
            for row in advance.fetch_all().await? {
                advanced.insert(row.text("aggregate_key")?);
            }
        }
        // Of a key that does not advance there is an event that is not done with: so whoever comes next
        // finds one, or the number of the last.
        let is_written = |it: &Outcome| !it.advances || advanced.contains(&it.key);
        if let Some(marks) = marks(outcomes.iter().filter(|it| is_written(it))) {
            let mark = transaction.statement(&MARK).bind(marks);
            mark.bind(self.now()).execute().await?;
        }
        let mut written = Vec::with_capacity(outcomes.len());
        for outcome in outcomes {
            written.push(if is_written(outcome) {
                Settled::Written
            } else {
                let held = transaction.statement(&HELD).bind(&outcome.key).bind(relay);
                let held = held.fetch_optional().await?;
                held.map_or(Settled::Lost, |_| Settled::Busy)
            });
        }
        crash::point("events.p6");
        transaction.commit().await?;
        Ok(written)
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

    async fn claim(&self, relay: &str, claim: i64, most: Most) -> Result<Vec<Claimed>, Error> {
        self.claim_by(&CLAIM, relay, claim, most).await
    }

    async fn claim_patiently(
        &self,
        relay: &str,
        claim: i64,
        most: Most,
    ) -> Result<Vec<Claimed>, Error> {
        let most = Most { keys: 1, ..most };
        self.claim_by(&CLAIM_PATIENTLY, relay, claim, most).await
    }

    async fn settle(&self, relay: &str, outcomes: &[Outcome]) -> Result<Vec<Settled>, Error> {
        self.settle_by(&ADVANCE, relay, outcomes).await
    }

    async fn settle_patiently(&self, relay: &str, outcome: &Outcome) -> Result<Settled, Error> {
        let outcomes = std::slice::from_ref(outcome);
        let settled = self.settle_by(&ADVANCE_PATIENTLY, relay, outcomes).await?;
        Ok(settled.first().copied().unwrap_or(Settled::Busy))
    }

    async fn bring_near(&self, due_max: Timestamp, known_max: Timestamp) -> Result<u64, Error> {
        let far = self.database.statement(&FAR).bind(due_max).bind(known_max);
        if far.fetch_optional().await?.is_none() {
            return Ok(0);
        }
        let relays = self.database.statement(&BRING_NEAR_RELAYS).bind(known_max);
        relays.execute().await?;
        let keys = self.database.statement(&BRING_NEAR).bind(due_max);
        keys.bind(BRING_NEAR_MAX).execute().await
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
    let mut headers: Headers = serde_json::from_str(&headers).map_err(|_| row.unreadable())?;
    let sequence = row.integer("sequence")?;
    headers.insert(SEQUENCE.to_owned(), sequence.to_string());
    Ok(Event {
        sequence,
        message: Arc::new(Message {
            topic: row.text("topic")?,
            key: row.text("aggregate_key")?,
            headers,
            body: row.bytes("body")?.into(),
        }),
    })
}

/// The events of rows, by key.
fn events(rows: Vec<Row>) -> Result<HashMap<String, Vec<Event>>, Error> {
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

fn bound(most: usize) -> i64 {
    i64::try_from(most).unwrap_or(i64::MAX)
}

/// What becomes of the keys that advance, for [`ADVANCE`]; none where none does.
fn keys(relay: &str, outcomes: &[Outcome]) -> Option<String> {
    let mut keys = Vec::new();
    for outcome in outcomes.iter().filter(|it| it.advances) {
        let release = outcome.release;
        let tries = release.map_or(0, |it| it.tries);
        let due_at = release.map(|it| it.due_at.micros());
        let claimed_by = release.is_none().then_some(relay);
        keys.push((&*outcome.key, outcome.sent, tries, due_at, claimed_by));
    }
    (!keys.is_empty()).then(|| serde_json::to_string(&keys).expect("texts and numbers are JSON"))
}

/// What became of their events, for [`MARK`]: some dropped, all others sent; none where there are none.
fn marks<'a>(outcomes: impl Iterator<Item = &'a Outcome>) -> Option<String> {
    let mut marks = Vec::new();
    for outcome in outcomes {
        for number in outcome.before + 1..=outcome.sent {
            let dropped = outcome.dropped.contains(&number);
            let state = if dropped { DROPPED } else { SENT };
            marks.push((&*outcome.key, number, state));
        }
    }
    (!marks.is_empty()).then(|| serde_json::to_string(&marks).expect("texts and numbers are JSON"))
}

#[cfg(test)]
mod tests;
