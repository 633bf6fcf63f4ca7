//! How many files and sockets this process may open, and what of them is for whom.
//!
//! Connections are what others decide on. Were they to take the last descriptor, nobody could ask
//! whether the process is alive any more, and it could open neither its database nor a connection
//! to whom it calls.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::{admin, transport::server::Limits};

/// What is kept for everything but the connections of callers, where there is enough; half of all
/// elsewhere.
const RESERVE: usize = 256;

/// The descriptors of this process.
#[derive(Debug, Clone, Copy)]
pub(super) struct Descriptors {
    most: usize,
}

impl Descriptors {
    /// Asks the system for as many as this process may have.
    pub(super) fn raise() -> Self {
        let limit = getrlimit(Resource::Nofile);
        let raised = Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        };
        // Where that is refused, those it began with have to do.
        let current = match setrlimit(Resource::Nofile, raised) {
            Ok(()) => limit.maximum,
            Err(_) => limit.current,
        };
        let most = current.map_or(usize::MAX, |most| most.try_into().unwrap_or(usize::MAX));
        Self { most }
    }

    /// `limits` as far as they fit; says so where they do not.
    pub(super) fn fit(self, limits: &Limits) -> Limits {
        let wanted = limits.connections_max;
        let connections_max = wanted.min(self.connections());
        if connections_max < wanted {
            tracing::warn!(
                connections_max,
                wanted,
                descriptors = self.most,
                "too few file descriptors for limits.connections_max"
            );
        }
        Limits {
            connections_max,
            ..limits.clone()
        }
    }

    fn connections(self) -> usize {
        (self.most - RESERVE.min(self.most / 2)).max(1)
    }

    /// Connections of the side port at once; a part of the reserve.
    pub(super) fn side_port(self) -> usize {
        (self.most / 8).clamp(2, admin::CONNECTIONS_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: connections get what the reserve leaves, and never more than was asked for.
    /// Method: limits of the system from hardly any to without end.
    #[test]
    fn connections_get_what_the_reserve_leaves() {
        let cases = [
            (16, 8, 2),
            (64, 32, 8),
            (512, 256, 64),
            (1_024, 768, 64),
            (4_352, 4_096, 64),
            (usize::MAX, 4_096, 64),
        ];
        for (most, connections, side_port) in cases {
            let descriptors = Descriptors { most };
            let fitted = descriptors.fit(&Limits::default());
            assert_eq!(connections, fitted.connections_max, "{most}");
            assert_eq!(side_port, descriptors.side_port(), "{most}");
            let few = Limits {
                connections_max: 3,
                ..Limits::default()
            };
            assert_eq!(few, descriptors.fit(&few), "{most}");
        }
    }
}
