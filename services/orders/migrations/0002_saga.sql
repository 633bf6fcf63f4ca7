-- unsettled: 1 while an order needs a further step at another service: on its way, or cancelled
-- with something to give back.
-- money_held: 1 once a charge may have been asked for.
-- fence counts who has worked at the order; a step of anyone but the last is refused.
-- leased_until: nobody else takes the order up before.
-- state: also 5 reserved, 6 paid.
ALTER TABLE orders RENAME COLUMN stock_held TO unsettled;
ALTER TABLE orders ADD COLUMN money_held BIGINT NOT NULL DEFAULT 0;
ALTER TABLE orders ADD COLUMN fence BIGINT NOT NULL DEFAULT 0;
ALTER TABLE orders ADD COLUMN leased_until BIGINT NOT NULL DEFAULT 0;
UPDATE orders SET unsettled = 0 WHERE state = 2;
DROP INDEX orders_by_state;
CREATE INDEX orders_by_state ON orders (state, updated_at);
CREATE INDEX orders_unsettled ON orders (unsettled, leased_until);
