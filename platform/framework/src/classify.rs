//! One verdict per call, from its head, its trailers, its reset or its drop.
