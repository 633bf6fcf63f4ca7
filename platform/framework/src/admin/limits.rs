//! Limits as operators see them.

use gantry_api::admin::v1::{Limiter, limiter};

use crate::limit::board::{Fill, Kind};

/// One limit, for people and programs.
pub(super) fn on_wire(fill: Fill) -> Limiter {
    let kind = match fill.kind {
        Kind::Concurrency => limiter::Kind::Concurrency,
        Kind::Adaptive => limiter::Kind::Adaptive,
        Kind::Queue => limiter::Kind::Queue,
        Kind::Lag => limiter::Kind::Lag,
        Kind::Cpu => limiter::Kind::Cpu,
        Kind::Memory => limiter::Kind::Memory,
        Kind::Shed => limiter::Kind::Shed,
        Kind::Bulkhead => limiter::Kind::Bulkhead,
        Kind::Throttle => limiter::Kind::Throttle,
        Kind::RetryBudget => limiter::Kind::RetryBudget,
        Kind::RetryTokens => limiter::Kind::RetryTokens,
        Kind::Rate => limiter::Kind::Rate,
    };
    Limiter {
        kind: kind.into(),
        client: fill.client,
        method: fill.method,
        key: fill.key,
        enforced: fill.enforced,
        used: fill.used,
        max: fill.max,
        refused: fill.refused,
        would_refuse: fill.would_refuse,
    }
}
