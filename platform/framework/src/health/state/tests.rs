use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use tokio::time;

use super::*;

const ORDERS: &str = "shop.orders.v1.OrdersService";
const SCHEDULE: Config = Config {
    interval: Duration::from_secs(5),
    timeout: Duration::from_secs(2),
    fall: 3,
    rise: 2,
};

fn health() -> (Health, Tasks, Journal) {
    let journal = Journal::new();
    let health = Health::new(journal.clone(), SCHEDULE);
    health.register(ORDERS);
    (health, Tasks::new(journal.clone()), journal)
}

/// A probe whose answer a test changes.
fn scripted(answer: &watch::Receiver<bool>) -> impl FnMut() -> Probe + Send + 'static {
    let answer = answer.clone();
    move || {
        let passes = *answer.borrow();
        std::future::ready(if passes { Ok(()) } else { Err("down".into()) })
    }
}

type Probe = std::future::Ready<Result<(), crate::BoxError>>;

/// Lets tasks that are due run, and the clock pass by `secs`.
async fn pass(secs: u64) {
    time::sleep(Duration::from_secs(secs)).await;
}

/// Goal: nothing serves before the start-up is done, and nothing after the drain has begun,
/// whatever is said later.
/// Method: the whole life of a process without checks.
#[tokio::test]
async fn a_process_serves_between_start_up_and_drain() {
    let (health, _, _) = health();
    assert_eq!(Some(Status::NotServing), health.status(""));
    assert_eq!(Some(Status::NotServing), health.status(ORDERS));
    assert_eq!(None, health.status("nobody"));
    assert_eq!("startup", health.report().checks[0].name);

    health.started();
    assert_eq!(Some(Status::Serving), health.status(""));
    assert_eq!(Some(Status::Serving), health.status(ORDERS));
    assert!(health.report().checks.is_empty());

    health.latch();
    health.started();
    health.service(ORDERS).healthy();
    assert_eq!(Some(Status::NotServing), health.status(""));
    assert_eq!(Some(Status::NotServing), health.status(ORDERS));
    assert_eq!("drain", health.report().checks[0].name);
}

/// Goal: a handler's word counts for its own service, and the whole is no better than its parts.
/// Method: two services, one marked each way.
#[tokio::test]
async fn a_handler_speaks_for_its_own_service() {
    let (health, _, _) = health();
    health.register("other");
    health.started();
    let orders = health.service(ORDERS);

    orders.unhealthy("index is broken");
    assert_eq!(Some(Status::NotServing), health.status(ORDERS));
    assert_eq!(Some(Status::Serving), health.status("other"));
    assert_eq!(Some(Status::NotServing), health.status(""));
    assert_eq!("index is broken", health.report().checks[0].reason);
    assert_eq!(Some("index is broken"), health.reason(ORDERS).as_deref());
    let whole = format!("{ORDERS}: index is broken");
    assert_eq!(Some(whole), health.reason(""));
    assert_eq!(None, health.reason("other"));

    orders.unknown("index is being read");
    assert_eq!(Some(Status::Unknown), health.status(ORDERS));
    assert_eq!(Some(Status::NotServing), health.status(""));

    orders.healthy();
    assert!(health.is_ready());
}

/// Goal: a failing gate holds everything back, a failing report nothing.
/// Method: the same failing probe with either effect.
#[tokio::test(start_paused = true)]
async fn only_gates_change_health() {
    let (_sender, answer) = watch::channel(false);
    for (effect, expected) in [
        (Effect::Gates, Status::NotServing),
        (Effect::Reports, Status::Serving),
    ] {
        let (health, tasks, _) = health();
        health.started();
        let check = Check::gate("store", scripted(&answer)).with_effect(effect);
        health.check(check, &tasks);
        pass(1).await;

        assert_eq!(Some(expected), health.status(ORDERS), "{effect:?}");
        let report = health.report();
        assert_eq!(Verdict::Failing, report.checks[0].verdict);
        assert_eq!("down", report.checks[0].reason);
        tasks.stop().await;
    }
}

/// Goal: a gate that has not answered yet holds back, its first answer decides alone, and after
/// that it takes `fall` failures or `rise` successes in a row.
/// Method: a script of answers, one each five seconds, on the paused clock.
#[tokio::test(start_paused = true)]
async fn a_verdict_turns_after_enough_results_in_a_row() {
    let (health, tasks, journal) = health();
    health.started();
    let (sender, answer) = watch::channel(true);
    health.check(Check::gate("store", scripted(&answer)), &tasks);
    assert_eq!(Verdict::Pending, health.report().checks[0].verdict);
    assert!(!health.is_ready());
    pass(1).await;
    assert!(health.is_ready());

    let script = [
        (false, true),
        (false, true),
        (true, true), // the row is broken
        (false, true),
        (false, true),
        (false, false), // the third in a row
        (true, false),
        (false, false), // broken again
        (true, false),
        (true, true), // the second in a row
    ];
    for (step, (passes, ready)) in script.into_iter().enumerate() {
        sender.send_replace(passes);
        pass(5).await;
        assert_eq!(ready, health.is_ready(), "step {step}");
    }
    tasks.stop().await;
    let (past, _) = journal.watch();
    let turns: Vec<_> = past
        .iter()
        .filter(|entry| entry.kind == journal::Kind::CheckChanged)
        .map(|entry| entry.detail.as_str())
        .collect();
    assert_eq!(vec!["PASSING", "FAILING: down", "PASSING"], turns);
}

/// Goal: a probe that hangs fails in time, never runs twice at once, and is told to stop.
/// Method: count the probes alive while none ever answers.
#[tokio::test(start_paused = true)]
async fn a_hanging_probe_is_dropped_and_never_overlaps() {
    struct Alive(Arc<AtomicUsize>);
    impl Drop for Alive {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::Relaxed);
        }
    }
    let (health, tasks, _) = health();
    let alive = Arc::new(AtomicUsize::new(0));
    let begun = Arc::new(AtomicUsize::new(0));
    let (probe_alive, probe_begun) = (Arc::clone(&alive), Arc::clone(&begun));
    let probe = move || {
        assert_eq!(
            0,
            probe_alive.fetch_add(1, Ordering::Relaxed),
            "two at once"
        );
        probe_begun.fetch_add(1, Ordering::Relaxed);
        let alive = Alive(Arc::clone(&probe_alive));
        async move {
            let _alive = alive;
            std::future::pending().await
        }
    };
    // Due again long before the hanging run is given up.
    let check = Check::gate("store", probe)
        .every(Duration::from_millis(10))
        .within(Duration::from_secs(2));
    health.check(check, &tasks);

    pass(3).await;
    assert_eq!(2, begun.load(Ordering::Relaxed));
    let report = health.report().checks[0].clone();
    assert_eq!(Verdict::Failing, report.verdict);
    assert_eq!("no answer within 2000 ms", report.reason);
    assert_eq!(Some(Duration::from_secs(2)), report.latency);

    tasks.stop().await;
    assert_eq!(0, alive.load(Ordering::Relaxed));
}

/// Goal: a panic in a probe is a failure of the check, and the check goes on.
/// Method: panic once, then answer.
#[tokio::test(start_paused = true)]
async fn a_panicking_probe_fails_its_check_alone() {
    let (health, tasks, _) = health();
    health.started();
    let mut runs = 0;
    let probe = move || {
        runs += 1;
        assert!(runs > 1, "on purpose");
        std::future::ready(Ok(()))
    };
    health.check(Check::gate("store", probe).rise(1), &tasks);
    pass(1).await;
    assert_eq!("panicked", health.report().checks[0].reason);
    pass(5).await;
    assert!(health.is_ready());
    tasks.stop().await;
}

/// Goal: whoever looks at the health within a condition of its channel, as `wait_for` has it, does not
/// stand still with whoever changes the health.
/// Method: the channel is held as by such a condition, and the health looked at until a change that
/// another thread begins meanwhile is seen.
#[test]
fn conditions_of_the_channel_can_look_at_the_health() {
    let (health, _, _) = health();
    let (seen, told) = std::sync::mpsc::sync_channel(1);
    std::thread::spawn(move || {
        let changes = health.changes();
        let held = changes.borrow();
        let other = health.clone();
        let changing = std::thread::spawn(move || other.started());
        while !health.is_started() {
            std::thread::yield_now();
        }
        drop(held);
        changing.join().unwrap();
        seen.send(changes.has_changed().unwrap()).unwrap();
    });
    assert_eq!(Ok(true), told.recv_timeout(Duration::from_secs(30)));
}

/// Goal: who waits is woken by every change of a status, and by nothing else.
/// Method: look at the mark of the channel after each step.
#[tokio::test]
async fn waiters_are_woken_by_changes_alone() {
    let (health, _, _) = health();
    let mut changes = health.changes();

    health.started();
    assert!(changes.has_changed().unwrap());
    changes.mark_unchanged();

    health.started();
    health.service(ORDERS).healthy();
    assert!(!changes.has_changed().unwrap());

    health.register("late");
    assert!(changes.has_changed().unwrap());
}
