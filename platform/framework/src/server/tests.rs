//! The whole stack over the in-memory network, called by a client that sees every frame.

mod drain;
mod ending;
mod fault;
mod http;
mod messages;
mod overload;
mod policies;
mod probe;
mod protect;
mod protocol;
mod rate;
mod rescue;
mod verify;
