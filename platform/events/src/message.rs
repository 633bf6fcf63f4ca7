//! An event on its way, as every broker carries it.

use std::collections::BTreeMap;

use bytes::Bytes;

/// An event on its way.
///
/// The body is never logged, and neither are keys: they name people's things.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// What it is about: the full name of the type of its body, as in `shop.orders.v1.OrderPlaced`.
    pub topic: String,
    /// Messages of one key keep their order.
    pub key: String,
    /// Everything else that is known of it; names are lower case, and bounded in number and length.
    pub headers: BTreeMap<String, String>,
    /// The event itself.
    pub body: Bytes,
}
