-- state: 1 charged, 2 refunded, 3 declined, 4 void (refunded before it was ever charged).
CREATE TABLE charges (
    charge_key TEXT PRIMARY KEY,
    reference TEXT NOT NULL,
    minor_units BIGINT NOT NULL,
    currency_code TEXT NOT NULL,
    state BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
