CREATE TABLE products (
    sku TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    description TEXT NOT NULL,
    price_minor_units BIGINT NOT NULL,
    currency_code TEXT NOT NULL,
    on_hand BIGINT NOT NULL,
    reserved BIGINT NOT NULL,
    CHECK (reserved >= 0 AND reserved <= on_hand)
);

-- state: 1 held, 2 confirmed, 3 released.
CREATE TABLE reservations (
    reservation_id TEXT PRIMARY KEY,
    state BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);

CREATE INDEX reservations_by_state ON reservations (state, expires_at);

CREATE TABLE reservation_lines (
    reservation_id TEXT NOT NULL REFERENCES reservations (reservation_id) ON DELETE CASCADE,
    sku TEXT NOT NULL,
    quantity BIGINT NOT NULL,
    price_minor_units BIGINT NOT NULL,
    currency_code TEXT NOT NULL,
    PRIMARY KEY (reservation_id, sku)
);
