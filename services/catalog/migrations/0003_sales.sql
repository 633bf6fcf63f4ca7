-- What orders tell, summed up when somebody asks.
-- Units of confirmed orders; cancelled: 1 once they are back.
CREATE TABLE sold_lines (
    order_id TEXT NOT NULL,
    sku TEXT NOT NULL,
    quantity BIGINT NOT NULL,
    cancelled BIGINT NOT NULL,
    PRIMARY KEY (order_id, sku)
);
CREATE INDEX sold_lines_by_sku ON sold_lines (sku, cancelled, quantity);

-- Orders, by the day (since 1970, in UTC) they were placed; amount and currency once they are paid.
CREATE TABLE sales (
    order_id TEXT PRIMARY KEY,
    day BIGINT NOT NULL,
    minor_units BIGINT,
    currency_code TEXT,
    cancelled BIGINT NOT NULL
);
CREATE INDEX sales_by_day ON sales (day);
