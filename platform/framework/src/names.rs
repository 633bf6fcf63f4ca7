//! Every name of a span, field, metric and label, with description and unit.
//!
//! Calls follow the OpenTelemetry conventions for RPC; what those do not cover and gRPC's own
//! metrics do (gRFC A66, A96) follows gRPC; the rest begins with `gantry_`.

/// A metric: its name, what it counts, in what unit.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// Name in the exposition, unit included where there is one.
    pub name: &'static str,
    /// What it says, as one sentence.
    pub description: &'static str,
    /// Unit.
    pub unit: metrics::Unit,
}
