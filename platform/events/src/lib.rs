//! Events between services: published with the change they tell of, with one effect where they arrive.
//!
//! ```text
//! handler ─▶ transaction { rows, outbox } ─▶ relay ─▶ broker ─▶ consumer ─▶ transaction { inbox, effect }
//!                                                       │            └─ again later, or a dead letter
//!                                                       └─ RabbitMQ, or the local one
//! ```
//!
//! On the wire an event may come more than once, and after a crash it does; in the store of whoever
//! consumes it has its effect once. Events of one key keep their order all the way.

mod attach;
pub mod broker;
pub mod consumer;
pub mod dead;
pub mod envelope;
pub mod headers;
mod message;
mod outbox;
pub mod relay;
mod state;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use attach::{Config, Events, Settings};
pub use consumer::{Attempt, Consumer, Event, Failure, Handle, HandleFn, Received};
pub use envelope::Envelope;
pub use gantry_api::broker::{BUCKETS, bucket};
pub use message::Message;
pub use outbox::{BODY_MAX, KEY_MAX, Outbox, Unfit};
pub use relay::Relay;
