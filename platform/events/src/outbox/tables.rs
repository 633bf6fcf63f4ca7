//! The tables of the outbox.

use gantry_store::Migration;

/// The name of their history in a database.
pub(crate) const LIBRARY: &str = "events_outbox";

/// What becomes of an event: it waits.
pub(crate) const PENDING: i64 = 0;
/// What becomes of an event: a broker has confirmed it.
pub(crate) const SENT: i64 = 1;
/// What becomes of an event: nobody wanted it, and it was not to be kept.
pub(crate) const DROPPED: i64 = 2;

/// `event_aggregates` has a row per key, which stays for good: the next event of the key has the next
/// number. `add` and whoever publishes the events of the key take turns at it. `event_outbox` has the
/// events. `event_relays` says who may have claimed keys, and until when.
pub(crate) const MIGRATIONS: &[Migration] = &[Migration {
    version: 1,
    name: "outbox",
    sql: "
        CREATE TABLE event_aggregates (
            aggregate_key TEXT PRIMARY KEY,
            last_sequence BIGINT NOT NULL,
            sent_sequence BIGINT NOT NULL,
            due_at BIGINT NOT NULL,
            tries BIGINT NOT NULL,
            claimed_by TEXT,
            claim BIGINT NOT NULL
        );
        CREATE INDEX event_aggregates_due ON event_aggregates (due_at)
            WHERE sent_sequence < last_sequence;
        CREATE INDEX event_aggregates_claimed ON event_aggregates (claimed_by, claim)
            WHERE claimed_by IS NOT NULL;
        CREATE TABLE event_outbox (
            aggregate_key TEXT NOT NULL,
            sequence BIGINT NOT NULL,
            event_id TEXT NOT NULL,
            topic TEXT NOT NULL,
            headers TEXT NOT NULL,
            body BYTEA NOT NULL,
            state BIGINT NOT NULL,
            created_at BIGINT NOT NULL,
            ended_at BIGINT,
            PRIMARY KEY (aggregate_key, sequence)
        );
        CREATE INDEX event_outbox_pending ON event_outbox (created_at) WHERE state = 0;
        CREATE INDEX event_outbox_ended ON event_outbox (ended_at) WHERE state <> 0;
        CREATE TABLE event_relays (
            relay TEXT PRIMARY KEY,
            lease_until BIGINT NOT NULL
        );",
}];
