//! What a consumer keeps in its service's database: which events are done, which come again later, and
//! whose each partition is.

use std::{sync::Arc, time::Duration};

use gantry_store::{Database, Error, Migration, Statement, Timestamp, Transaction};

use super::lanes::Lane;

/// The tables of consumers.
pub(crate) const MIGRATIONS: &[Migration] = &[Migration {
    version: 1,
    name: "consumers",
    sql: include_str!("../../migrations/0001_consumers.sql"),
}];

const ENTER: Statement = Statement::new(
    "events.enter_event",
    "INSERT INTO event_inbox (consumer, event_id, received_at)
     SELECT $1, $2, $3 FROM event_partitions
     WHERE consumer = $1 AND part = $4 AND owner = $5 AND fence = $6
     ON CONFLICT (consumer, event_id) DO NOTHING",
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
const LAST: Statement = Statement::new(
    "events.last_of_key",
    "SELECT sequence FROM event_lanes WHERE consumer = $1 AND source = $2 AND event_key = $3",
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
    "DELETE FROM event_lanes WHERE consumer = $1 AND updated_at < $2",
);
const PRUNE: Statement = Statement::new(
    "events.prune_inbox",
    "DELETE FROM event_inbox WHERE consumer = $1 AND event_id IN
         (SELECT event_id FROM event_inbox
          WHERE consumer = $1 AND received_at < $2 ORDER BY received_at LIMIT $3)",
);

/// Held events read at once.
const HELD_PAGE: i64 = 1_000;
/// Entries pruned at once.
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

    /// Notes in `transaction` that an event is done, unless it is noted already.
    pub(crate) async fn enter(
        &self,
        transaction: &mut Transaction,
        claim: &Claim,
        event_id: &str,
    ) -> Result<Entry, Error> {
        let enter = transaction.statement(&ENTER).bind(&*self.consumer);
        let enter = enter.bind(event_id).bind(Timestamp::now());
        let enter = enter.bind(i32::from(claim.part)).bind(&*claim.owner);
        if enter.bind(claim.fence).execute().await? == 1 {
            return Ok(Entry::New);
        }
        if self.is_owned(transaction, claim).await? {
            Ok(Entry::Known)
        } else {
            Ok(Entry::Lost)
        }
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

    /// The sequence of the last event of a lane that is done; 0 where none is.
    pub(crate) async fn last(
        &self,
        transaction: &mut Transaction,
        lane: &Lane,
    ) -> Result<u64, Error> {
        let last = transaction.statement(&LAST).bind(&*self.consumer);
        let last = last.bind(&lane.source).bind(&lane.key);
        let row = last.fetch_optional().await?;
        row.map_or(Ok(0), |row| row.narrow("sequence"))
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

    /// Forgets which events were done longer than `retention` ago, a bounded number of them; answers
    /// how many.
    pub(crate) async fn prune(&self, retention: Duration) -> Result<u64, Error> {
        let until = Timestamp::now().before(retention);
        let keys = self.database.statement(&PRUNE_LANES).bind(&*self.consumer);
        keys.bind(until).execute().await?;
        let prune = self.database.statement(&PRUNE).bind(&*self.consumer);
        prune.bind(until).bind(number(PRUNE_PAGE)).execute().await
    }
}

/// Sequences are read as what fits.
fn number(sequence: u64) -> i64 {
    i64::try_from(sequence).unwrap_or(i64::MAX)
}
