//! Which keys keep each other company.

use twox_hash::XxHash64;

/// Over how many buckets keys are spread. Fixed for good: publishers and consumers of all versions
/// agree on which bucket a key is in, and queues are bound to buckets.
pub const BUCKETS: u16 = 64;

/// Which of [`BUCKETS`] a key is in.
#[must_use]
pub fn bucket(key: &str) -> u16 {
    let bucket = XxHash64::oneshot(0, key.as_bytes()) % u64::from(BUCKETS);
    // It is below the number of buckets, and always fits.
    u16::try_from(bucket).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a key stays in its bucket in every version, as queues that are kept are bound to it.
    /// Method: known keys; all buckets are used.
    #[test]
    fn a_key_stays_in_its_bucket() {
        let known = ["", "a", "order-1", "0192f0c1-7b1e-7c3a"].map(bucket);
        assert_eq!([25, 27, 45, 28], known);
        let used: std::collections::BTreeSet<_> =
            (0..1_000).map(|n| bucket(&n.to_string())).collect();
        assert_eq!(usize::from(BUCKETS), used.len());
    }
}
