//! What this service counts.

use gantry::telemetry::metrics;

metrics! {
    /// How telling of orders goes; clones share the counters.
    pub struct Metrics {
        /// News of orders that nobody is told, because the service of notifications refused them.
        set_aside: counter "news_set_aside_total";
    }
}
