-- Released reservations are forgotten by age; by expiry they are found through the index before.
CREATE INDEX reservations_by_age ON reservations (state, updated_at);
