-- state: 1 pending, 2 confirmed, 3 completed, 4 cancelled.
-- stock_held: 1 while the catalog may hold stock that a cancelled order must give back.
CREATE TABLE orders (
    order_id TEXT PRIMARY KEY,
    account_id TEXT NOT NULL,
    request_id TEXT NOT NULL,
    state BIGINT NOT NULL,
    cancel_reason BIGINT,
    stock_held BIGINT NOT NULL,
    version BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    UNIQUE (account_id, request_id)
);

-- An order_id begins with its time, so this is also the order of placing.
CREATE INDEX orders_by_account ON orders (account_id, order_id);
CREATE INDEX orders_by_state ON orders (state, stock_held, updated_at);

CREATE TABLE order_lines (
    order_id TEXT NOT NULL REFERENCES orders (order_id) ON DELETE CASCADE,
    sku TEXT NOT NULL,
    quantity BIGINT NOT NULL,
    price_minor_units BIGINT,
    currency_code TEXT,
    PRIMARY KEY (order_id, sku)
);

-- Every state an order has been in: a watcher misses none, however late it looks.
CREATE TABLE order_changes (
    order_id TEXT NOT NULL REFERENCES orders (order_id) ON DELETE CASCADE,
    version BIGINT NOT NULL,
    state BIGINT NOT NULL,
    cancel_reason BIGINT,
    changed_at BIGINT NOT NULL,
    PRIMARY KEY (order_id, version)
);
