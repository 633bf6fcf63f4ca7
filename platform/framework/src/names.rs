//! Every name of a span, field, metric and label, with description and unit.
//!
//! Calls follow the OpenTelemetry conventions for RPC, events those for messaging; what those do not cover and gRPC's own
//! metrics do (gRFC A66, A96) follows gRPC; the rest begins with `gantry_`. Metric names are in
//! Prometheus' spelling: unit last, `_total` on what only grows.

pub use metrics::Unit;

pub mod field;
pub mod label;
pub mod metric;
pub mod span;

/// What stands for a method nobody declared: paths come from the outside and are not bounded.
pub const OTHER: &str = "_OTHER";

/// A metric: its name, what it says, in what unit, by which labels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Metric {
    /// Name in the exposition, unit included where there is one.
    pub name: &'static str,
    /// What it says, as one sentence.
    pub description: &'static str,
    /// How its value moves.
    pub kind: Kind,
    /// Unit of the value.
    pub unit: Unit,
    /// Names of its labels, in the order their values are given.
    pub labels: &'static [&'static str],
}

/// How a metric's value moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// It only grows.
    Counter,
    /// It is what it is now.
    Gauge,
    /// Observations, counted by size.
    Histogram,
}

impl Metric {
    /// Declares a metric without labels.
    ///
    /// # Panics
    ///
    /// At compile time, where it is a constant: if the name is not what Prometheus expects of its
    /// kind and unit.
    #[must_use]
    pub const fn new(
        kind: Kind,
        name: &'static str,
        unit: Unit,
        description: &'static str,
    ) -> Self {
        assert!(
            is_identifier(name),
            "a metric's name is lower-case words joined by underscores"
        );
        match kind {
            Kind::Counter => assert!(ends_with(name, "_total"), "a counter's name ends in _total"),
            Kind::Gauge | Kind::Histogram => assert!(
                !ends_with(name, "_total"),
                "only a counter's name ends in _total"
            ),
        }
        match unit {
            Unit::Seconds => assert!(
                ends_with(name, "_seconds") || ends_with(name, "_seconds_total"),
                "a time's name says _seconds"
            ),
            Unit::Bytes => assert!(
                ends_with(name, "_bytes") || ends_with(name, "_bytes_total"),
                "a size's name says _bytes"
            ),
            Unit::Count => {}
            _ => panic!("the unit is one of seconds, bytes and count"),
        }
        Self {
            name,
            description,
            kind,
            unit,
            labels: &[],
        }
    }

    /// The same metric with labels.
    #[must_use]
    pub const fn by(self, labels: &'static [&'static str]) -> Self {
        Self { labels, ..self }
    }
}

const fn is_identifier(name: &str) -> bool {
    let bytes = name.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'a'..=b'z' | b'_' => {}
            b'0'..=b'9' if at > 0 => {}
            _ => return false,
        }
        at += 1;
    }
    !bytes.is_empty()
}

const fn ends_with(text: &str, end: &str) -> bool {
    let (text, end) = (text.as_bytes(), end.as_bytes());
    if text.len() < end.len() {
        return false;
    }
    let mut at = 0;
    while at < end.len() {
        if text[text.len() - end.len() + at] != end[at] {
            return false;
        }
        at += 1;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: names are unique, and each platform metric is of a known family of names.
    /// Method: every declared metric.
    #[test]
    fn platform_metrics_have_distinct_names_of_a_known_family() {
        let families = [
            "rpc_",
            "grpc_",
            "http_",
            "messaging_",
            "gantry_",
            "process_",
        ];
        let mut seen = std::collections::HashSet::new();
        for metric in metric::ALL {
            assert!(seen.insert(metric.name), "{} twice", metric.name);
            assert!(
                families
                    .iter()
                    .any(|family| metric.name.starts_with(family)),
                "{}",
                metric.name
            );
            assert!(metric.description.ends_with('.'), "{}", metric.name);
            for label in metric.labels {
                assert!(is_identifier(label), "{label}");
            }
        }
    }

    /// Goal: a name that misleads about kind or unit does not compile.
    /// Method: the check that constants run at compile time, run here.
    #[test]
    fn misleading_names_are_refused() {
        let bad = [
            (Kind::Counter, "auth_requests", Unit::Count),
            (Kind::Gauge, "auth_open_total", Unit::Count),
            (Kind::Histogram, "auth_duration", Unit::Seconds),
            (Kind::Histogram, "auth_duration_ms", Unit::Milliseconds),
            (Kind::Histogram, "auth_size", Unit::Bytes),
            (Kind::Counter, "Auth_total", Unit::Count),
            (Kind::Counter, "", Unit::Count),
        ];
        for (kind, name, unit) in bad {
            let built = std::panic::catch_unwind(|| Metric::new(kind, name, unit, "Bad."));
            assert!(built.is_err(), "{name}");
        }
        let good = Metric::new(Kind::Counter, "cpu_seconds_total", Unit::Seconds, "Good.");
        assert_eq!("cpu_seconds_total", good.name);
    }
}
