//! How a relay is known to others, and when it does what.

use tokio::time::Instant;
use uuid::Uuid;

/// How a relay is known to others.
pub(super) struct Session {
    pub(super) name: String,
    pub(super) known: bool,
    /// Until when others respect its claims.
    pub(super) until: Instant,
    pub(super) renew_at: Instant,
    /// Whether it claims nothing more, as it may have claims that it does not know.
    pub(super) ending: bool,
}

impl Session {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self {
            name: Uuid::now_v7().to_string(),
            known: false,
            until: now,
            renew_at: now,
            ending: false,
        }
    }
}

/// When what is to be done next.
pub(super) struct Timers {
    pub(super) look_at: Instant,
    pub(super) save_at: Instant,
    pub(super) count_at: Instant,
    pub(super) prune_at: Instant,
    /// When times are looked for that are too far away.
    pub(super) near_at: Instant,
    /// When nobody is waited for any more who keeps a key to themselves.
    pub(super) patience_at: Instant,
    pub(super) show_at: Instant,
    /// Nothing is asked of the database before.
    pub(super) away_until: Instant,
}

impl Timers {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self {
            look_at: now,
            save_at: now,
            count_at: now,
            prune_at: now,
            near_at: now,
            patience_at: now,
            show_at: now,
            away_until: now,
        }
    }
}
