-- Others are told of an order's steps by events, which are kept in the outbox.
DROP INDEX order_changes_untold;
ALTER TABLE order_changes DROP COLUMN untold;
DROP TABLE news_held;
