//! Which traces of strangers are recorded.
//!
//! Who may say so of each of its calls decides what a whole system records, and a choice by the id
//! of a trace would be the stranger's as well: it makes up the id. So the id is kept, that one trace
//! goes over everything, and chosen by with a key that nobody else has.

use std::hash::{BuildHasher as _, RandomState};

use http::HeaderMap;

use crate::call::TraceContext;

/// Chooses a share of the traces that strangers begin.
#[derive(Debug, Clone)]
pub struct Sampling {
    ratio: f64,
    key: RandomState,
}

impl Sampling {
    /// Chooses this share, from 0 to 1; all calls of one trace alike.
    #[must_use]
    pub fn new(ratio: f64) -> Self {
        Self {
            ratio,
            key: RandomState::new(),
        }
    }

    /// Writes our own choice over the caller's, where the headers carry a trace.
    pub fn decide(&self, headers: &mut HeaderMap) {
        let Some(mut trace) = TraceContext::extract(headers) else {
            return;
        };
        let sampled = self.chooses(trace.trace_id);
        if sampled != trace.sampled {
            trace.sampled = sampled;
            trace.inject(headers);
        }
    }

    #[allow(clippy::cast_precision_loss, reason = "53 bits are exact")]
    fn chooses(&self, trace_id: u128) -> bool {
        let place = (self.key.hash_one(trace_id) >> 11) as f64;
        place < self.ratio * (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decided(sampling: &Sampling, trace: &TraceContext) -> TraceContext {
        let mut headers = HeaderMap::new();
        trace.inject(&mut headers);
        sampling.decide(&mut headers);
        TraceContext::extract(&headers).unwrap()
    }

    /// Goal: whatever the caller says, the share is ours, and everything else of its trace stays.
    /// Method: none, all and a tenth of many traces, sampled and not; state of a vendor.
    #[test]
    fn a_caller_decides_nothing_but_its_trace() {
        for said in [true, false] {
            for (ratio, expected) in [(0.0, 0..=0), (1.0, 5_000..=5_000), (0.1, 350..=650)] {
                let sampling = Sampling::new(ratio);
                let mut chosen = 0;
                for _ in 0..5_000 {
                    let mut trace = TraceContext::root(said);
                    trace.state = Some("vendor=1".parse().unwrap());
                    let decided = decided(&sampling, &trace);
                    chosen += i32::from(decided.sampled);
                    trace.sampled = decided.sampled;
                    assert_eq!(trace, decided);
                }
                assert!(expected.contains(&chosen), "{said} {ratio}: {chosen}");
            }
        }
    }

    /// Goal: an id that is made up to be chosen is not, and calls of one trace are chosen alike.
    /// Method: ids that OpenTelemetry's ratio would always choose, twice each.
    #[test]
    fn the_id_does_not_decide() {
        let sampling = Sampling::new(0.5);
        let choice = |high: u64| {
            let trace = TraceContext {
                trace_id: u128::from(high) << 64,
                ..TraceContext::root(true)
            };
            decided(&sampling, &trace).sampled
        };
        let chosen: Vec<_> = (1..1_000).map(choice).collect();
        assert_eq!(chosen, (1..1_000).map(choice).collect::<Vec<_>>());
        let count = chosen.iter().filter(|chosen| **chosen).count();
        assert!((350..650).contains(&count), "{count}");
    }

    /// Goal: where there is no trace, none is made, nor of what is malformed.
    /// Method: the headers before and after.
    #[test]
    fn what_is_no_trace_is_let_be() {
        let mut headers = HeaderMap::new();
        Sampling::new(1.0).decide(&mut headers);
        assert!(headers.is_empty());
        headers.insert("traceparent", "00-garbage-01".parse().unwrap());
        let before = headers.clone();
        Sampling::new(0.0).decide(&mut headers);
        assert_eq!(before, headers);
    }
}
