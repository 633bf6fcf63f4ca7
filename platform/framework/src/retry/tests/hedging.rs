//! When hedges are made, and how many.

use super::*;

/// Goal: attempts are made one delay apart, until one is answered or all are made.
/// Method: four attempts of half a second, by the clock.
#[tokio::test(start_paused = true)]
async fn hedges_are_a_delay_apart() {
    let (policy, allowance) = (hedged(4), allowance());
    let began = Instant::now();
    let mut plan = hedge::Plan::begin(&policy, None, began);
    for (previous, due) in [(1, 500), (2, 1_000), (3, 1_500)] {
        assert_eq!(Some(began + due * MS), plan.next());
        assert_eq!(previous, plan.previous());
        assert!(plan.take(&policy, &allowance, began + due * MS));
    }
    assert_eq!(None, plan.next());
}

/// Goal: a failure brings the next attempt forward, delays it, stops the plan or ends the call, by
/// its code and what the server says.
/// Method: each, half-way to the second attempt.
#[tokio::test(start_paused = true)]
async fn a_failure_moves_the_next_hedge() {
    use hedge::Others::{Cancelled, GoOn};
    let policy = hedged(4);
    let began = Instant::now();
    let now = began + 250 * MS;
    let fails = |failure, allowance: &Allowance| {
        let mut plan = hedge::Plan::begin(&policy, None, began);
        let others = plan.failed(failure, &policy, allowance, now);
        (others, plan.next())
    };
    let unavailable = failure(Grpc::Unavailable);
    assert_eq!((GoOn, Some(now)), fails(unavailable, &allowance()));
    let later = pushed(Pushback::After(1_000 * MS));
    let at = now + 1_000 * MS;
    assert_eq!((GoOn, Some(at)), fails(later, &allowance()));
    let longest = pushed(Pushback::After(pushback::PAUSE_MAX));
    let at = now + pushback::PAUSE_MAX;
    assert_eq!((GoOn, Some(at)), fails(longest, &allowance()));
    let longer = pushed(Pushback::After(pushback::PAUSE_MAX + MS));
    assert_eq!((GoOn, None), fails(longer, &allowance()));
    let never = pushed(Pushback::Never);
    assert_eq!((GoOn, None), fails(never, &allowance()));
    let fatal = fails(failure(Grpc::NotFound), &allowance());
    assert_eq!(Cancelled, fatal.0);

    let weary = allowance().with(Tokens::new(2, 100), Budget::default());
    assert_eq!((GoOn, None), fails(unavailable, &weary));
    let none = Share {
        ratio: 0.0,
        reserve: 0,
        ..Share::default()
    };
    let spent = allowance().with(Tokens::default(), Budget::new(none));
    let mut plan = hedge::Plan::begin(&policy, None, began);
    plan.failed(unavailable, &policy, &spent, now);
    assert!(!plan.take(&policy, &spent, now));
    assert_eq!(None, plan.next());
}

/// Goal: hedges are a share of the calls of their own, and one a second; retries have theirs all the
/// same, and a call that is not hedged is retried.
/// Method: a thousand calls, frozen time, at 5 and at 20 percent; what a plan is given after them.
#[tokio::test(start_paused = true)]
async fn hedges_have_a_budget_of_their_own() {
    for (budget_percent, expected) in [(5, 60), (20, 210)] {
        let hedge = Hedge {
            attempts_max: 2,
            budget_percent,
            ..Hedge::default()
        };
        let policy = Policy::new(&config(1), &hedge);
        let allowance = allowance();
        let began = Instant::now();
        (0..1_000).for_each(|_| allowance.call(began));
        let mut made = 0;
        for _ in 0..1_000 {
            let mut plan = hedge::Plan::begin(&policy, None, began);
            made += u32::from(plan.take(&policy, &allowance, began));
        }
        assert_eq!(expected, made);

        let mut plan = hedge::Plan::begin(&policy, None, began);
        assert!(!plan.take(&policy, &allowance, began));
        assert_eq!(None, plan.next());
        plan.failed(failure(Grpc::Unavailable), &policy, &allowance, began);
        assert_eq!(Some(began), plan.next());
        assert!(plan.take(&policy, &allowance, began), "it is a retry");
        let retries = (0..1_000).filter(|_| allowance.withdraw(began)).count();
        assert_eq!(299, retries, "a fifth, and ten a second");

        // In the window after, they are there again.
        let later = began + Duration::from_secs(11);
        assert!(hedge::Plan::begin(&policy, None, later).take(&policy, &allowance, later));
    }
}

/// Goal: a measured delay is what 95 of 100 calls take, between its bounds, and the setting while that
/// is not known, or not asked for.
/// Method: what a plan makes of each.
#[tokio::test(start_paused = true)]
async fn a_delay_follows_what_calls_take() {
    let policy = |delay_from| {
        let hedge = Hedge {
            attempts_max: 2,
            delay_from,
            delay_min: 8 * MS,
            ..Hedge::default()
        };
        Policy::new(&config(1), &hedge)
    };
    let began = Instant::now();
    for (from, p95, expected) in [
        (DelayFrom::Fixed, Some(95 * MS), 500 * MS),
        (DelayFrom::P95, None, 500 * MS),
        (DelayFrom::P95, Some(95 * MS), 95 * MS),
        (DelayFrom::P95, Some(MS), 8 * MS),
        (DelayFrom::P95, Some(3_600_000 * MS), 60_000 * MS),
    ] {
        let plan = hedge::Plan::begin(&policy(from), p95, began);
        assert_eq!(Some(began + expected), plan.next(), "{from:?} {p95:?}");
    }
}
