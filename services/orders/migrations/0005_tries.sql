-- tries: how often the step that is due has failed; each time it waits longer.
ALTER TABLE orders ADD COLUMN tries BIGINT NOT NULL DEFAULT 0;
