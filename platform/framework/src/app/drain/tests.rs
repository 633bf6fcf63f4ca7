use std::sync::{Arc, Mutex};

use tokio::sync::watch;

use super::*;
use crate::{
    health::{self, Status},
    journal,
};

/// What happened, with the milliseconds since the drain began.
#[derive(Clone)]
struct Log {
    lines: Arc<Mutex<Vec<(u128, &'static str)>>>,
    begun: Instant,
}

impl Log {
    fn new() -> Self {
        Self {
            lines: Arc::default(),
            begun: Instant::now(),
        }
    }

    fn add(&self, line: &'static str) {
        let millis = self.begun.elapsed().as_millis();
        self.lines.lock().unwrap().push((millis, line));
    }

    fn lines(&self) -> Vec<(u128, &'static str)> {
        self.lines.lock().unwrap().clone()
    }
}

/// A server with one call in flight that ends `rest` after the GOAWAY, or when told to.
struct Stub {
    log: Log,
    rest: Option<Duration>,
    obeys: bool,
    closed: watch::Sender<bool>,
}

impl Serving for Stub {
    fn drain(&self) {
        self.log.add("goaway");
    }

    fn end_calls(&self) {
        self.log.add("end calls");
        if self.obeys {
            self.closed.send_replace(true);
        }
    }

    fn cut(&self) {
        self.log.add("cut");
    }

    fn closed(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async {
            let mut closed = self.closed.subscribe();
            let told = closed.wait_for(|closed| *closed);
            match self.rest {
                Some(rest) => time::sleep(rest).await,
                None => drop(told.await),
            }
        })
    }
}

fn ending(log: &Log, rest: Option<Duration>, obeys: bool) -> Ending {
    let journal = Journal::new();
    let health = Health::new(journal.clone(), health::Config::default());
    health.started();
    Ending {
        deregister: Box::pin(async {}),
        config: Live::fixed(Config::default()),
        journal: journal.clone(),
        health,
        draining: CancellationToken::new(),
        serving: Box::new(Stub {
            log: log.clone(),
            rest,
            obeys,
            closed: watch::Sender::new(false),
        }),
        tasks: Tasks::new(journal.clone()),
        finishing: Vec::new(),
        hooks: Vec::new(),
        platform: Tasks::new(journal),
    }
}

fn hook(log: &Log, name: &'static str, hangs: bool) -> Hook {
    let log = log.clone();
    Hook {
        name,
        close: Box::pin(async move {
            log.add(name);
            if hangs {
                std::future::pending::<()>().await;
            }
        }),
    }
}

/// Goal: everything ends in its order, and what is quick is not waited for longer than it takes.
/// Method: a call that ends a second after the GOAWAY, a task and two stores, on the paused clock.
#[tokio::test(start_paused = true)]
async fn everything_ends_in_order() {
    let log = Log::new();
    let mut ending = ending(&log, Some(Duration::from_secs(1)), true);
    ending.hooks = vec![
        hook(&log, "first store", false),
        hook(&log, "second store", false),
    ];
    let (stopping, task_log) = (ending.tasks.stopping(), log.clone());
    ending.tasks.spawn("relay", async move {
        stopping.cancelled().await;
        task_log.add("task stopped");
    });
    let (draining, stream_log) = (ending.draining.clone(), log.clone());
    ending.platform.spawn("stream", async move {
        draining.cancelled().await;
        stream_log.add("streams told");
    });
    let health = ending.health.clone();
    assert!(health.is_ready());

    let flush_log = log.clone();
    let drained = tokio::join!(
        ending.run("SIGTERM", async move { flush_log.add("flush") }),
        async {
            // Right after the announcement: not ready, and calls are still taken.
            tokio::task::yield_now().await;
            assert_eq!(Some(Status::NotServing), health.status(""));
            assert_eq!(Vec::<(u128, &str)>::new(), log.lines());
        }
    );
    let ((), ()) = drained;

    let expected = vec![
        (3_000, "goaway"),
        (3_000, "streams told"),
        (4_000, "cut"),
        (4_000, "task stopped"),
        (4_000, "second store"),
        (4_000, "first store"),
        (4_000, "flush"),
    ];
    assert_eq!(expected, log.lines());
}

/// Goal: whatever hangs, each phase ends at its bound, the next begins, and all of it takes less
/// than 28 s by default.
/// Method: a stream that never ends and ignores being told, a deaf task, a store that never
/// closes, a reader that never leaves, a collector that never answers.
#[tokio::test(start_paused = true)]
async fn whatever_hangs_the_process_ends_in_time() {
    let log = Log::new();
    let mut ending = ending(&log, None, false);
    let journal = ending.journal.clone();
    ending.hooks = vec![
        hook(&log, "good store", false),
        hook(&log, "hung store", true),
    ];
    ending.tasks.spawn("deaf", std::future::pending());
    ending.platform.spawn("reader", std::future::pending());

    let begun = Instant::now();
    let flush_log = log.clone();
    let flush = async move {
        flush_log.add("flush");
        std::future::pending::<()>().await;
    };
    ending.run("SIGTERM", flush).await;

    assert_eq!(
        Config::default().total(),
        begun.elapsed() + Duration::from_millis(500)
    );
    assert!(Config::default().total() < Duration::from_secs(28));
    let expected = vec![
        (3_000, "goaway"),
        (21_000, "end calls"),
        (22_000, "cut"),
        (23_500, "hung store"),
        (24_000, "good store"),
        (24_500, "flush"),
    ];
    assert_eq!(expected, log.lines());
    let (past, _) = journal.watch();
    let lines: Vec<_> = past
        .iter()
        .map(|entry| format!("{} {}: {}", entry.kind, entry.subject, entry.detail))
        .collect();
    let at = |line: &str| {
        lines
            .iter()
            .position(|l| l.starts_with(line))
            .unwrap_or_else(|| panic!("{line} is not in {lines:#?}"))
    };
    let order = [
        "draining process: SIGTERM",
        "health_changed *: NOT_SERVING",
        "drain_phase delay: done in 3000 ms",
        "drain_phase finish: cut after 18000 ms",
        "drain_phase cut: cut after 1000 ms",
        "task_ended deaf: aborted",
        "drain_phase tasks: done in 1500 ms",
        "drain_phase hung store: did not close in time",
        "drain_phase close: done in 500 ms",
        "stopped process: drained in 24000 ms",
        "drain_phase flush: cut after 2000 ms",
    ];
    assert!(order.map(at).is_sorted(), "{lines:#?}");
}

/// Goal: calls that are left at the bound are told so, and that is all that is waited for then.
/// Method: a stream that never ends by itself and ends when told.
#[tokio::test(start_paused = true)]
async fn calls_left_at_the_bound_are_ended() {
    let log = Log::new();
    let ending = ending(&log, None, true);
    ending.run("Drain", std::future::ready(())).await;
    let expected = vec![(3_000, "goaway"), (21_000, "end calls"), (21_000, "cut")];
    assert_eq!(expected, log.lines());
}

/// Goal: what else is in flight has as long as calls have to come to its end, and the process waits for
/// it, and for no longer.
/// Method: beside a call of a second, work of two seconds; then work that hangs.
#[tokio::test(start_paused = true)]
async fn other_work_in_flight_is_waited_for_like_calls() {
    for (takes, cut_at) in [(2, 5_000), (1_000, 22_000)] {
        let log = Log::new();
        let mut ending = ending(&log, Some(Duration::from_secs(1)), true);
        let (journal, draining, told) =
            (ending.journal.clone(), ending.draining.clone(), log.clone());
        ending.finishing = vec![Hook {
            name: "events in flight",
            close: Box::pin(async move {
                draining.cancelled().await;
                time::sleep(Duration::from_secs(takes)).await;
                told.add("finished");
            }),
        }];
        ending.run("SIGTERM", std::future::ready(())).await;
        let finished = log.lines().contains(&(5_000, "finished"));
        assert_eq!(takes == 2, finished, "{:?}", log.lines());
        assert_eq!(Some(&(cut_at, "cut")), log.lines().last());
        let (past, _) = journal.watch();
        let late = |entry: &journal::Entry| entry.detail == "did not finish in time";
        assert_eq!(takes != 2, past.iter().any(late));
    }
}
