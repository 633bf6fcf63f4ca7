//! What clients tell of their endpoints.

use metrics::Unit;

use crate::names::{
    Kind::{Counter, Gauge},
    Metric, label,
};

/// Endpoints of each client, by connectivity.
pub const ENDPOINTS: Metric = Metric::new(
    Gauge,
    "gantry_endpoints",
    Unit::Count,
    "Endpoints known to a client, by the state of their connection.",
)
.by(&[label::SERVER_ADDRESS, label::STATE]);

/// Endpoints of each client that are ejected.
pub const ENDPOINTS_EJECTED: Metric = Metric::new(
    Gauge,
    "gantry_endpoints_ejected",
    Unit::Count,
    "Endpoints that get no calls for a while, as they failed more than others.",
)
.by(&[label::SERVER_ADDRESS]);

/// Ejections of endpoints, by reason.
pub const EJECTIONS: Metric = Metric::new(
    Counter,
    "gantry_endpoint_ejections_total",
    Unit::Count,
    "Endpoints that were ejected for failing more than others.",
)
.by(&[label::SERVER_ADDRESS, label::REASON]);

/// Endpoints of each client, by the state of their breakers.
pub const ENDPOINT_BREAKERS: Metric = Metric::new(
    Gauge,
    "gantry_endpoint_breakers",
    Unit::Count,
    "Endpoints known to a client, by the state of their breaker.",
)
.by(&[label::SERVER_ADDRESS, label::STATE]);

/// Changes of the breakers of endpoints, by what they came to.
pub const ENDPOINT_BREAKER_TRANSITIONS: Metric = Metric::new(
    Counter,
    "gantry_endpoint_breaker_transitions_total",
    Unit::Count,
    "Changes of the breakers of a client's endpoints, by the state they came to.",
)
.by(&[label::SERVER_ADDRESS, label::STATE]);

/// Whether a client passes over what is held against its endpoints.
pub const BALANCER_PANIC: Metric = Metric::new(
    Gauge,
    "gantry_balancer_panic",
    Unit::Count,
    "1 while so few endpoints can take calls that ejections and open breakers are passed over.",
)
.by(&[label::SERVER_ADDRESS]);

/// Calls that found a client in that state.
pub const BALANCER_PANIC_PICKS: Metric = Metric::new(
    Counter,
    "gantry_balancer_panic_picks_total",
    Unit::Count,
    "Picks of an endpoint while ejections and open breakers were passed over.",
)
.by(&[label::SERVER_ADDRESS]);
