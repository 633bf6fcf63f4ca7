//! What a consumer keeps in its service's database: which events are done, which come again later, and
//! whose each partition is.

use std::{sync::Arc, time::Duration};

use gantry_store::{Database, Error, Migration, Statement, Timestamp, Transaction};

use super::{facts::Facts, lanes::Lane};

/// The tables of consumers.
pub(crate) const MIGRATIONS: &[Migration] = &[Migration {
    version: 1,
    name: "consumers",
    sql: include_str!("../../migrations/0001_consumers.sql"),
}];

const ENTER: Statement = Statement::new(
    "events.enter_event",
    "INSERT INTO event_inbox (consumer, source, event_id, received_at) VALUES ($1, $2, $3, $4)
     ON CONFLICT (consumer, source, event_id) DO NOTHING",
);
const LOOK: Statement = Statement::new(
    "events.look_up_event",
    "SELECT
         (SELECT COUNT(*) FROM event_inbox
          WHERE consumer = $1 AND source = $6 AND event_id = $2) AS known,
         (SELECT COUNT(*) FROM event_partitions
          WHERE consumer = $1 AND part = $3 AND owner = $4 AND fence = $5) AS owned,
         (SELECT COALESCE(MAX(sequence), 0) FROM event_lanes
          WHERE consumer = $1 AND source = $6 AND event_key = $7) AS last",
);
const FENCE: Statement = Statement::new(
    "events.check_fence",
    "SELECT fence FROM event_partitions
     WHERE consumer = $1 AND part = $2 AND owner = $3 AND fence = $4",
)
.on_server(
    "SELECT fence FROM event_partitions
     WHERE consumer = $1 AND part = $2 AND owner = $3 AND fence = $4 FOR SHARE",
);
const HOLD: Statement = Statement::new(
    "events.hold_event",
    "INSERT INTO event_held (consumer, source, event_key, sequence, part, event_id, due_at)
     VALUES ($1, $2, $3, $4, $5, $6, $7)
     ON CONFLICT (consumer, source, event_key, sequence)
     DO UPDATE SET due_at = excluded.due_at, event_id = excluded.event_id, part = excluded.part",
);
const FREE: Statement = Statement::new(
    "events.free_event",
    "DELETE FROM event_held
     WHERE consumer = $1 AND source = $2 AND event_key = $3 AND sequence = $4",
);
const HELD: Statement = Statement::new(
    "events.list_held",
    "SELECT source, event_key, sequence, due_at FROM event_held
     WHERE consumer = $1 AND part = $2
       AND (source > $3 OR (source = $3 AND (event_key > $4 OR (event_key = $4 AND sequence > $5))))
     ORDER BY source, event_key, sequence LIMIT $6",
);
const ADVANCE: Statement = Statement::new(
    "events.advance_key",
    "INSERT INTO event_lanes (consumer, source, event_key, sequence, updated_at)
     VALUES ($1, $2, $3, $4, $5)
     ON CONFLICT (consumer, source, event_key)
     DO UPDATE SET sequence = excluded.sequence, updated_at = excluded.updated_at
     WHERE event_lanes.sequence < excluded.sequence",
);
const PRUNE_LANES: Statement = Statement::new(
    "events.prune_keys",
    // A row that goes on meanwhile stays.
    "DELETE FROM event_lanes WHERE consumer = $1 AND updated_at < $2 AND (source, event_key) IN
         (SELECT source, event_key FROM event_lanes
          WHERE consumer = $1 AND updated_at < $2 ORDER BY updated_at LIMIT $3)",
);
const PRUNE_HELD: Statement = Statement::new(
    "events.prune_held",
    "DELETE FROM event_held
     WHERE consumer = $1 AND due_at < $2 AND (source, event_key, sequence) IN
         (SELECT source, event_key, sequence FROM event_held
          WHERE consumer = $1 AND due_at < $2 LIMIT $3)",
);
const PRUNE: Statement = Statement::new(
    "events.prune_inbox",
    "DELETE FROM event_inbox WHERE consumer = $1 AND (source, event_id) IN
         (SELECT source, event_id FROM event_inbox
          WHERE consumer = $1 AND received_at < $2 ORDER BY received_at LIMIT $3)",
);

/// Held events read at once.
const HELD_PAGE: i64 = 1_000;
/// Entries of a table pruned at once.
pub(crate) const PRUNE_PAGE: u64 = 1_000;

/// A partition that an instance has to itself for as long as nobody has taken it with a higher fence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) part: u16,
    pub(crate) owner: Arc<str>,
    pub(crate) fence: i64,
}

/// Whether an event is to have its effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entry {
    /// It has not had it.
    New,
    /// It had it before.
    Known,
    /// The partition is somebody else's by now.
    Lost,
}

/// An event that comes again later.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) lane: Arc<Lane>,
    pub(crate) sequence: u64,
    pub(crate) due_at: Timestamp,
}

/// The rows of one consumer.
#[derive(Debug, Clone)]
pub(crate) struct Inbox {
    pub(crate) database: Database,
    consumer: Arc<str>,
}

impl Inbox {
    /// The rows of `consumer` in `database`, which has gone through [`MIGRATIONS`].
    pub(crate) fn new(database: Database, consumer: &str) -> Self {
        Self {
            database,
            consumer: consumer.into(),
        }
    }

    /// How an event stands before it is handled, as of now, and the sequence of the last event of its
    /// lane that is done, 0 where none is. It is [entered](Inbox::enter) after that.
    pub(crate) async fn look(&self, claim: &Claim, facts: &Facts) -> Result<(Entry, u64), Error> {
        let look = self.database.statement(&LOOK).bind(&*self.consumer);
        let look = look.bind(&facts.id).bind(i32::from(claim.part));
        let look = look.bind(&*claim.owner).bind(claim.fence);
        let look = look.bind(&facts.lane.source).bind(&facts.lane.key);
        let row = look.fetch_one().await?;
        let entry = match (row.integer("owned")?, row.integer("known")?) {
            (0, _) => Entry::Lost,
            (_, 0) => Entry::New,
            _ => Entry::Known,
        };
        Ok((entry, row.narrow("last")?))
    }

    /// Notes in `transaction` that an event is done, unless that is noted, or its partition is somebody
    /// else's: then nothing of the transaction must be kept.
    pub(crate) async fn enter(
        &self,
        transaction: &mut Transaction,
        claim: &Claim,
        facts: &Facts,
    ) -> Result<Entry, Error> {
        if !self.is_owned(transaction, claim).await? {
            return Ok(Entry::Lost);
        }
        let enter = transaction.statement(&ENTER).bind(&*self.consumer);
        let enter = enter.bind(&facts.lane.source).bind(&facts.id);
        let enter = enter.bind(Timestamp::now());
        Ok(match enter.execute().await? {
            0 => Entry::Known,
            _ => Entry::New,
        })
    }

    /// Whether a partition is still its owner's, and stays so until the end of `transaction`.
    pub(crate) async fn is_owned(
        &self,
        transaction: &mut Transaction,
        claim: &Claim,
    ) -> Result<bool, Error> {
        let fence = transaction.statement(&FENCE);
        let fence = fence.bind(&*self.consumer).bind(i32::from(claim.part));
        let fence = fence.bind(&*claim.owner).bind(claim.fence);
        Ok(fence.fetch_optional().await?.is_some())
    }

    /// Notes in `transaction` that an event comes again at `until`.
    pub(crate) async fn hold(
        &self,
        transaction: &mut Transaction,
        part: u16,
        event_id: &str,
        held: &Held,
    ) -> Result<(), Error> {
        let note = transaction.statement(&HOLD).bind(&*self.consumer);
        let note = note.bind(&held.lane.source).bind(&held.lane.key);
        let note = note.bind(number(held.sequence)).bind(i32::from(part));
        note.bind(event_id).bind(held.due_at).execute().await?;
        Ok(())
    }

    /// Notes in `transaction` that an event is not held any more.
    pub(crate) async fn free(
        &self,
        transaction: &mut Transaction,
        lane: &Lane,
        sequence: u64,
    ) -> Result<(), Error> {
        let free = transaction.statement(&FREE).bind(&*self.consumer);
        let free = free.bind(&lane.source).bind(&lane.key);
        free.bind(number(sequence)).execute().await?;
        Ok(())
    }

    /// Notes in `transaction` that an event of a lane is done, and with it all before it.
    pub(crate) async fn advance(
        &self,
        transaction: &mut Transaction,
        lane: &Lane,
        sequence: u64,
    ) -> Result<(), Error> {
        let advance = transaction.statement(&ADVANCE).bind(&*self.consumer);
        let advance = advance.bind(&lane.source).bind(&lane.key);
        let advance = advance.bind(number(sequence)).bind(Timestamp::now());
        advance.execute().await?;
        Ok(())
    }

    /// Every event of a partition that is held.
    pub(crate) async fn held(&self, part: u16) -> Result<Vec<Held>, Error> {
        let mut all: Vec<Held> = Vec::new();
        loop {
            let (source, key, sequence) = match all.last() {
                Some(last) => (
                    last.lane.source.clone(),
                    last.lane.key.clone(),
                    number(last.sequence),
                ),
                None => (String::new(), String::new(), -1),
            };
            let page = self.database.statement(&HELD).bind(&*self.consumer);
            let page = page.bind(i32::from(part)).bind(source).bind(key);
            let rows = page.bind(sequence).bind(HELD_PAGE).fetch_all().await?;
            for row in &rows {
                all.push(Held {
                    lane: Arc::new(Lane {
                        source: row.text("source")?,
                        key: row.text("event_key")?,
                    }),
                    sequence: row.narrow("sequence")?,
                    due_at: row.time("due_at")?,
                });
            }
            if i64::try_from(rows.len()).unwrap_or(i64::MAX) < HELD_PAGE {
                return Ok(all);
            }
        }
    }

    /// Forgets which events were done longer than `retention` ago, and what else is that old: a bounded
    /// number of each; answers of what there was most, how many.
    pub(crate) async fn prune(&self, retention: Duration) -> Result<u64, Error> {
        let until = Timestamp::now().before(retention);
        let mut most = 0;
        for prune in [&PRUNE_LANES, &PRUNE_HELD, &PRUNE] {
            let prune = self.database.statement(prune).bind(&*self.consumer);
            let pruned = prune.bind(until).bind(number(PRUNE_PAGE)).execute().await?;
            most = most.max(pruned);
        }
        Ok(most)
    }
}

/// Sequences are read as what fits.
fn number(sequence: u64) -> i64 {
    i64::try_from(sequence).unwrap_or(i64::MAX)
}
