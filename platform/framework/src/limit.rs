//! Bounds on what a server takes on: how many at once, how often, how much.
