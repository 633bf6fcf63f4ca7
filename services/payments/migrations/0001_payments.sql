-- state: 1 pending, 2 charged, 3 declined, 4 refunding, 5 refunded.
-- Amount and currency are those of the first charge; without one, nothing.
CREATE TABLE payments (
    payment_id TEXT PRIMARY KEY,
    minor_units BIGINT,
    currency_code TEXT,
    state BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
