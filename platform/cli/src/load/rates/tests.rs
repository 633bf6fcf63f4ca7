use super::*;

fn stage(from: f64, to: f64, seconds: u64) -> Stage {
    Stage {
        from,
        to,
        time: Duration::from_secs(seconds),
    }
}

/// Calls due in each second.
fn by_second(stages: &[Stage]) -> Vec<u64> {
    let rates = Rates::of(stages);
    let seconds: u64 = stages.iter().map(|stage| stage.time.as_secs()).sum();
    let mut counts = vec![0; usize::try_from(seconds).unwrap()];
    let mut last = Duration::ZERO;
    for number in 0.. {
        let Some(due) = rates.due(number) else {
            return counts;
        };
        assert!(due >= last, "call {number}: {due:?} after {last:?}");
        last = due;
        counts[usize::try_from(due.as_secs()).unwrap()] += 1;
    }
    counts
}

/// Goal: each second has exactly the calls under its part of the curve.
/// Method: a hold, ramps up from nothing, down to nothing and between, a spike, a pause.
#[test]
fn each_second_has_the_calls_under_the_curve() {
    assert_eq!(vec![50; 3], by_second(&[stage(50.0, 50.0, 3)]));
    let up = by_second(&[stage(0.0, 100.0, 10)]);
    assert_eq!(vec![5, 15, 25, 35, 45, 55, 65, 75, 85, 95], up);
    let between = by_second(&[stage(100.0, 200.0, 4)]);
    // 112.5 and so on; the half calls come in turn.
    assert_eq!(600, between.iter().sum::<u64>());
    assert_eq!(vec![113, 137, 163, 187], between);
    let down = by_second(&[stage(20.0, 0.0, 2)]);
    assert_eq!((20, 15), (down.iter().sum(), down[0]));
    let spike = [
        stage(10.0, 10.0, 2),
        stage(500.0, 500.0, 1),
        stage(0.0, 0.0, 2),
        stage(10.0, 10.0, 1),
    ];
    assert_eq!(vec![10, 10, 500, 0, 0, 10], by_second(&spike));
}

/// Goal: no call falls between stages, whatever is rounded.
/// Method: many short stages of odd lengths and rates; each has its calls, and none ends the run.
#[test]
fn no_call_falls_between_stages() {
    let stages: Vec<_> = (1..100_u32)
        .map(|number| Stage {
            from: 0.1 * f64::from(number),
            to: 0.7 / f64::from(number),
            time: Duration::from_millis(u64::from(333 * number)),
        })
        .collect();
    let rates = Rates::of(&stages);
    let total: f64 = stages.iter().map(Stage::calls).sum();
    let mut calls = 0..1_000_000_u32;
    let count = calls.find(|number| rates.due(u64::from(*number)).is_none());
    let count = f64::from(count.unwrap());
    assert!((count - total.ceil()).abs() <= 1.0, "{count} of {total}");
}

/// Goal: a constant rate is as it ever was, and goes on.
/// Method: the first calls of three a second, and a late one.
#[test]
fn a_constant_rate_goes_on() {
    let rates = Rates::Constant(3.0);
    assert_eq!(Some(Duration::ZERO), rates.due(0));
    assert_eq!(Some(Duration::from_secs(1)), rates.due(3));
    assert_eq!(Some(Duration::from_secs(1_000_000)), rates.due(3_000_000));
}

/// Goal: there may be nothing to send.
/// Method: stages without calls, and no stage.
#[test]
fn stages_may_be_empty() {
    assert_eq!(None, Rates::of(&[]).due(0));
    assert_eq!(None, Rates::of(&[stage(0.0, 0.0, 5)]).due(0));
    let later = [stage(0.0, 0.0, 5), stage(1.0, 1.0, 1)];
    assert_eq!(Some(Duration::from_secs(5)), Rates::of(&later).due(0));
}
