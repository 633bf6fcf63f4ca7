//! Which endpoints of a long list a process connects to: rendezvous hashing (gRFC A68).
//!
//! Each process ranks all addresses by a hash with a seed of its own, and takes the first few. So
//! every endpoint has about as many callers, and a change of one address changes at most one of
//! those that are taken.

use std::{net::SocketAddr, sync::OnceLock};

use twox_hash::XxHash64;

/// This process's seed: another one for each, so that not all take the same endpoints.
pub(super) fn seed() -> u64 {
    static SEED: OnceLock<u64> = OnceLock::new();
    *SEED.get_or_init(|| fastrand::Rng::new().u64(..))
}

/// Puts the `size` first of `addrs` to the front, in their order of rank, and cuts off the rest;
/// leaves a list that is no longer than that as it is.
pub(super) fn take(addrs: &mut Vec<SocketAddr>, seed: u64, size: usize) {
    take_by(addrs, size, |addr| rank(&addr.to_string(), seed));
}

fn take_by<T: Ord>(all: &mut Vec<T>, size: usize, rank: impl Fn(&T) -> u64) {
    if all.len() > size {
        all.sort_by_cached_key(&rank);
        all.truncate(size);
    }
}

fn rank(addr: &str, seed: u64) -> u64 {
    XxHash64::oneshot(seed, addr.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn taken(addrs: impl IntoIterator<Item = String>, size: usize) -> Vec<String> {
        let mut addrs: Vec<_> = addrs.into_iter().collect();
        take_by(&mut addrs, size, |addr| rank(addr, 0));
        addrs
    }

    fn numbered(count: usize) -> impl Iterator<Item = String> {
        (0..count).map(|number| format!("endpoint-{number}"))
    }

    /// Goal: the same endpoints are taken as grpc-go takes with the same seed.
    /// Method: its own vector, in which an address is hashed as it is printed there: seed 0, five of
    /// ten. Ours hashes the address alone. Then more than there are.
    #[test]
    fn the_same_are_taken_as_by_grpc_go() {
        let printed = |number| format!("{{Addr: \"endpoint-{number}\", ServerName: \"\", }}");
        let expected = [6, 0, 1, 7, 3].map(printed);
        assert_eq!(expected.to_vec(), taken((0..10).map(printed), 5));
        assert_eq!(numbered(10).collect::<Vec<_>>(), taken(numbered(10), 11));
    }

    /// Goal: a change of one address changes at most one that is taken.
    /// Method: remove each of a hundred in turn, and add it again.
    #[test]
    fn one_change_changes_at_most_one() {
        let before: HashSet<_> = taken(numbered(100), 20).into_iter().collect();
        for gone in numbered(100) {
            let left = numbered(100).filter(|addr| *addr != gone);
            let after: HashSet<_> = taken(left, 20).into_iter().collect();
            let changed = before.difference(&after).count();
            assert_eq!(usize::from(before.contains(&gone)), changed, "{gone}");
        }
    }

    /// Goal: each endpoint has about as many callers.
    /// Method: a thousand processes take 20 of 100; 200 each would be even, σ is about 13.
    #[test]
    fn endpoints_are_taken_evenly() {
        let mut callers = [0; 100];
        for seed in 0..1_000 {
            let mut numbers: Vec<usize> = (0..100).collect();
            take_by(&mut numbers, 20, |number| {
                rank(&format!("10.0.0.{number}:80"), seed)
            });
            for number in numbers {
                callers[number] += 1;
            }
        }
        assert!(
            callers.iter().all(|it| (140..260).contains(it)),
            "{callers:?}"
        );
    }
}
