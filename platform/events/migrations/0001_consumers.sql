-- Events that a consumer is done with: each has its effect once. Ids are unique for their source alone.
CREATE TABLE event_inbox (
    consumer TEXT NOT NULL,
    source TEXT NOT NULL,
    event_id TEXT NOT NULL,
    received_at BIGINT NOT NULL,
    PRIMARY KEY (consumer, source, event_id)
);
CREATE INDEX event_inbox_by_age ON event_inbox (consumer, received_at);

-- Events that come again later: those of the same key behind them wait.
CREATE TABLE event_held (
    consumer TEXT NOT NULL,
    source TEXT NOT NULL,
    event_key TEXT NOT NULL,
    sequence BIGINT NOT NULL,
    part BIGINT NOT NULL,
    event_id TEXT NOT NULL,
    due_at BIGINT NOT NULL,
    PRIMARY KEY (consumer, source, event_key, sequence)
);
CREATE INDEX event_held_by_part ON event_held (consumer, part, source, event_key, sequence);

-- The last event of each key that is done, for consumers that take every type of event.
CREATE TABLE event_lanes (
    consumer TEXT NOT NULL,
    source TEXT NOT NULL,
    event_key TEXT NOT NULL,
    sequence BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (consumer, source, event_key)
);
CREATE INDEX event_lanes_by_age ON event_lanes (consumer, updated_at);

-- Instances of a consumer; each counts on for as long as it lives. One takes a share of the partitions
-- where `shares` is 1, and handles the types of events in `topics`, each in a line.
CREATE TABLE event_members (
    consumer TEXT NOT NULL,
    instance TEXT NOT NULL,
    beat BIGINT NOT NULL,
    shares BIGINT NOT NULL,
    topics TEXT NOT NULL,
    PRIMARY KEY (consumer, instance)
);

-- Whose the partitions of a consumer are; nobody's where there is no owner. The fence grows with each
-- taking, so that whoever had it before can write no more.
CREATE TABLE event_partitions (
    consumer TEXT NOT NULL,
    part BIGINT NOT NULL,
    owner TEXT NOT NULL,
    fence BIGINT NOT NULL,
    PRIMARY KEY (consumer, part)
);
