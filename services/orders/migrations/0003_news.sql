-- untold: 1 while the account has not been told that its order came to this.
ALTER TABLE order_changes ADD COLUMN untold BIGINT NOT NULL DEFAULT 0;
CREATE INDEX order_changes_untold ON order_changes (changed_at) WHERE untold = 1;
