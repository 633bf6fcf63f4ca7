//! An event on its way, as every broker carries it.

use std::collections::BTreeMap;

use bytes::Bytes;
use twox_hash::XxHash64;

/// Over how many buckets keys are spread. Fixed for good: publishers and consumers of all versions
/// agree on which bucket a key is in, and queues are bound to buckets.
pub const BUCKETS: u16 = 64;

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

/// Which of [`BUCKETS`] a key is in.
#[expect(clippy::missing_panics_doc, reason = "the number is below 64")]
#[must_use]
pub fn bucket(key: &str) -> u16 {
    let bucket = XxHash64::oneshot(0, key.as_bytes()) % u64::from(BUCKETS);
    u16::try_from(bucket).expect("it is below the number of buckets")
}
