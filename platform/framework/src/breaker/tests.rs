mod model;
mod probes;
mod settings;
mod shown;
mod trips;

use tokio::time;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// Opens after `failures_in_a_row`, and by no rate; pauses are exact.
fn in_a_row(failures_in_a_row: u32) -> Config {
    Config {
        failures_in_a_row,
        calls_min: 1_000_000,
        pause_max: Duration::from_secs(100),
        pause_jitter: 0.0,
        ..Config::default()
    }
}

/// Opens by `failure_rate` of `calls_min` calls or more, and by no row of failures.
fn by_rate(failure_rate: f64, calls_min: u32) -> Config {
    Config {
        failure_rate,
        calls_min,
        ..in_a_row(0)
    }
}

fn breaker(config: Config) -> Breaker {
    Breaker::new("bank", Live::fixed(config), Journal::new())
}

/// One call that ends as `verdict`.
#[track_caller]
fn call(breaker: &Breaker, verdict: Verdict) {
    breaker.admit().expect("it passes").end(verdict);
}

/// `count` calls, each of which passes.
#[track_caller]
fn calls(breaker: &Breaker, count: usize, verdict: Verdict) {
    for _ in 0..count {
        call(breaker, verdict);
    }
}

/// Those of `count` calls that pass now, all under way at once.
fn passing(breaker: &Breaker, count: usize) -> Vec<Permit> {
    (0..count).flat_map(|_| breaker.admit()).collect()
}

/// The one call that passes now.
#[track_caller]
fn probe(breaker: &Breaker) -> Permit {
    let mut passed = passing(breaker, 10);
    assert_eq!(1, passed.len());
    passed.remove(0)
}

/// One that opened by failures one after the other.
fn opened(config: Config) -> Breaker {
    let breaker = breaker(config);
    let failures = breaker.shared.config.read(|it| it.failures_in_a_row);
    for _ in 0..failures {
        call(&breaker, Verdict::Hard);
    }
    assert_eq!(State::Open, breaker.state());
    breaker
}
