-- position: counts the notifications of an account, in the order in which they become visible.
CREATE TABLE inboxes (
    account_id TEXT PRIMARY KEY,
    position BIGINT NOT NULL
);

-- kind: 1 order confirmed, 2 order cancelled.
CREATE TABLE notifications (
    notification_id TEXT PRIMARY KEY,
    account_id TEXT NOT NULL,
    position BIGINT NOT NULL,
    kind BIGINT NOT NULL,
    order_id TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    UNIQUE (account_id, position)
);

CREATE INDEX notifications_by_age ON notifications (created_at);
