-- untold: also 2, refused for good and set aside. Nobody is told, unless somebody sets it to 1 again.
-- Accounts whose oldest news could not be told: none goes before it, until then.
CREATE TABLE news_held (
    account_id TEXT PRIMARY KEY,
    tries BIGINT NOT NULL,
    held_until BIGINT NOT NULL
);
