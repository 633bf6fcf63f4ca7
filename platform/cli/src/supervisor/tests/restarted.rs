use std::time::Duration;

use tokio::time::{self, Instant};

use super::stage::{PATIENCE, Play, restart};
use crate::supervisor::{operation::Progress, *};

const CATALOG: &str = "catalog-1";
const ORDERS: [&str; 2] = ["orders-1", "orders-2"];

/// Goal: a successor serves before the old one is told, and the next one's turn comes when the old
/// one is gone; each successor has a place of its own.
/// Method: two instances; everything that happened, in order.
#[tokio::test(start_paused = true)]
async fn a_successor_serves_before_the_old_one_drains() {
    let play = Play::serving(&ORDERS).await;
    let (done, steps) = play.operate(restart(&["orders"])).await;
    assert_eq!(Ok(()), done);
    assert_eq!(
        vec![
            "start orders-3",
            "serves orders-3",
            "drain orders-1",
            "end orders-1",
            "start orders-1",
            "serves orders-1",
            "drain orders-2",
            "end orders-2"
        ],
        play.scene().history
    );
    assert_eq!(
        vec![
            "orders-3 Starts",
            "orders-3 Serves",
            "orders-1 Drains",
            "orders-1 Gone",
            "orders-1 Starts",
            "orders-1 Serves",
            "orders-2 Drains",
            "orders-2 Gone"
        ],
        steps
    );
    assert_eq!(vec!["orders-1", "orders-3"], play.names());
    let scene = play.scene();
    let places: std::collections::HashSet<_> =
        scene.started.iter().map(|(_, it)| it.place).collect();
    assert_eq!(4, places.len());
}

/// Goal: the old one serves for as long as its successor does not.
/// Method: a successor that becomes well only after half the patience.
#[tokio::test(start_paused = true)]
async fn the_old_one_waits_for_a_slow_successor() {
    let play = Play::serving(&[ORDERS[0]]).await;
    play.scene().sick.insert("orders-2".to_owned());
    let heal = async {
        time::sleep(PATIENCE / 2).await;
        assert!(play.scene().told.is_empty(), "{:?}", play.scene().told);
        let old = play.until("orders-1", |_| true).await;
        assert_eq!(State::Serving, old.state);
        play.scene().sick.clear();
    };
    let (done, ()) = tokio::join!(play.restart(&["orders"]), heal);
    done.unwrap();
    assert_eq!(vec!["orders-2"], play.names());
}

/// Goal: a successor that does not come up is removed, the old one stays, and the others are left
/// alone.
/// Method: refuse the configuration, crash for ever, and never serve.
#[tokio::test(start_paused = true)]
async fn a_successor_that_does_not_serve_is_removed() {
    let cases = [
        (Some(Ended::Code(2)), "exited with code 2", Duration::ZERO),
        (Some(Ended::Signal(11)), "signal 11", PATIENCE / 2),
        (None, "does not serve after 1m", PATIENCE),
    ];
    for (ended, words, within) in cases {
        let play = Play::serving(&ORDERS).await;
        let tasks = play.tasks.running();
        let three = "orders-3".to_owned();
        match ended {
            Some(ended) => play.scene().failing.extend([(three, ended)]),
            None => play.scene().sick.extend([three]),
        }
        let began = Instant::now();

        let fault = play.restart(&["orders"]).await.unwrap_err();
        assert!(
            fault.text.contains(words) && fault.text.ends_with("removed again, orders-1 stays"),
            "{fault:?}"
        );
        assert_eq!(Some("orders-3"), fault.instance.as_deref());
        assert!(!fault.usage);
        assert!(began.elapsed() <= within, "{:?}", began.elapsed());
        assert_eq!(vec!["orders-1", "orders-2"], play.names());
        let reports = play.supervisor.reports();
        assert!(reports.iter().all(|it| it.row.state == State::Serving));
        assert!(!play.scene().told.iter().any(|it| it == "drain orders-1"));
        assert_eq!(tasks, play.tasks.running(), "as many as before");
    }
}

/// Goal: crashes do not upset a restart: of the successor before it serves, of the old one
/// meanwhile, of the successor while the old one drains.
/// Method: each in turn; the successor keeps its port.
#[tokio::test(start_paused = true)]
async fn crashes_do_not_upset_a_restart() {
    let play = Play::serving(&[ORDERS[0]]).await;
    play.scene().sick.insert("orders-2".to_owned());
    play.scene().stubborn.insert("orders-1".to_owned());
    let crashes = async {
        play.crash("orders-2", Ended::Code(1)).await;
        let new = play.until("orders-2", |s| s.restarts == 1).await;
        play.crash("orders-1", Ended::Signal(9)).await;
        play.until("orders-1", |s| s.restarts == 1 && s.state == State::Serving)
            .await;
        assert!(play.scene().told.is_empty(), "{:?}", play.scene().told);
        play.scene().sick.clear();

        play.until("orders-1", |s| s.state == State::Draining).await;
        play.crash("orders-2", Ended::Signal(11)).await;
        let again = play
            .until("orders-2", |s| s.restarts == 2 && s.state == State::Serving)
            .await;
        assert_eq!(new.place, again.place);
    };
    let (done, ()) = tokio::join!(play.restart(&["orders-1"]), crashes);
    done.unwrap();
    assert_eq!(vec!["drain orders-1", "kill orders-1"], play.scene().told);
    assert_eq!(vec!["orders-2"], play.names());
    play.supervisor.all_serving().await.unwrap();
}

/// Goal: an old one between two processes is gone at once.
/// Method: crash it for ever, then replace it.
#[tokio::test(start_paused = true)]
async fn a_crashing_one_is_replaced() {
    let play = Play::serving(&[ORDERS[0]]).await;
    let failing = ("orders-1".to_owned(), Ended::Signal(11));
    play.scene().failing.extend([failing]);
    play.crash("orders-1", Ended::Signal(11)).await;
    play.until("orders-1", |s| s.hopeless).await;

    let began = Instant::now();
    play.restart(&["orders-1"]).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(1));
    assert_eq!(vec!["orders-2"], play.names());
    let started = play.scene().started.len();
    time::sleep(Duration::from_hours(1)).await;
    assert_eq!(started, play.scene().started.len());
}

/// Goal: everything is replaced, callees before their callers, each once.
/// Method: a chain; the order of starts.
#[tokio::test(start_paused = true)]
async fn all_are_replaced_callees_first() {
    let play = Play::serving(&[CATALOG, "orders-1"]).await;
    let all = Operation::Restart {
        targets: Targets::All,
        timeout: PATIENCE,
    };
    let (done, steps) = play.operate(all).await;
    assert_eq!(Ok(()), done);
    assert_eq!(vec!["catalog-2", "orders-2"], play.names());
    let starts = steps.iter().filter(|it| it.ends_with("Starts"));
    let starts: Vec<_> = starts.collect();
    assert_eq!(vec!["catalog-2 Starts", "orders-2 Starts"], starts);
    let reports = play.supervisor.reports();
    assert!(reports.iter().all(|report| report.row.restarts == 0));
}

/// Goal: names are services and instances, each instance is replaced once, and slips are named.
/// Method: overlapping names; unknown ones.
#[tokio::test(start_paused = true)]
async fn names_are_services_and_instances() {
    let play = Play::serving(&ORDERS).await;
    let (done, steps) = play.operate(restart(&["orders-2", "orders"])).await;
    assert_eq!(Ok(()), done);
    let drains = steps.iter().filter(|it| it.ends_with("Drains"));
    let drains: Vec<_> = drains.collect();
    assert_eq!(vec!["orders-2 Drains", "orders-1 Drains"], drains);

    for (name, words) in [
        ("ordres", "did you mean \"orders\""),
        ("orders-9", "no service"),
    ] {
        let fault = play.restart(&[name]).await.unwrap_err();
        assert!(fault.usage && fault.text.contains(words), "{fault:?}");
    }
}

/// Goal: once its asker has left, a restart finishes the replacement at hand and begins no other.
/// Method: leave at the first step.
#[tokio::test(start_paused = true)]
async fn a_restart_without_asker_finishes_what_it_is_at() {
    let play = Play::serving(&ORDERS).await;
    let (progress, mut events) = Progress::new();
    let leave = async {
        events.recv().await;
        drop(events);
    };
    let operation = play.supervisor.operate(restart(&["orders"]), progress);
    let (done, ()) = tokio::join!(operation, leave);
    assert_eq!(Ok(()), done);
    assert_eq!(vec!["orders-2", "orders-3"], play.names());
    play.supervisor.all_serving().await.unwrap();
    play.scale(&[("orders", 1)]).await.unwrap();
}

/// Goal: the old one is told only if its successor serves at that very moment, and the system does
/// not end: its end has an order of its own.
/// Method: an asker so slow that the operation waits for it after the last successor served; in the
/// meantime a crash of that one, or the end of the system with a caller that takes its time.
#[tokio::test(start_paused = true)]
async fn the_old_one_is_told_only_if_that_is_right_then() {
    let catalog = [
        "catalog-1",
        "catalog-2",
        "catalog-3",
        "catalog-4",
        "catalog-5",
    ];
    let mut instances = catalog.to_vec();
    instances.push("orders-1");
    for ends in [false, true] {
        let play = Play::serving(&instances).await;
        play.scene().stubborn.insert("orders-1".to_owned());
        let (progress, mut events) = Progress::new();
        let asker = async {
            // The successor of the fifth. Its four predecessors took all the room for steps.
            play.happened("start catalog-4").await;
            events.recv().await;
            play.happened("serves catalog-4").await;
            // On the paused clock: once the operation waits for us as well.
            time::sleep(Duration::from_secs(1)).await;
            if ends {
                play.scene().told.clear();
                let listen = async {
                    play.until("orders-1", |s| s.state == State::Draining).await;
                    drop(events);
                };
                tokio::join!(play.supervisor.drain(), listen);
                let told = play.scene().told.clone();
                assert_eq!(["drain orders-1", "kill orders-1"], told[..2], "{told:?}");
            } else {
                let failing = ("catalog-4".to_owned(), Ended::Signal(11));
                play.scene().failing.extend([failing]);
                play.crash("catalog-4", Ended::Signal(11)).await;
                play.until("catalog-4", |s| s.state == State::Exited).await;
                while events.recv().await.is_some() {}
            }
        };
        let operation = restart(&["catalog"]);
        let operation = play.supervisor.operate(operation, progress);
        let (done, ()) = tokio::join!(operation, asker);
        let fault = done.unwrap_err();
        if ends {
            assert!(fault.text.contains("is ending"), "{fault:?}");
        } else {
            assert_eq!(
                "catalog-4 serves no more; removed again, catalog-5 stays",
                fault.text
            );
            assert!(!play.scene().told.iter().any(|it| it == "drain catalog-5"));
            assert_eq!(6, play.names().len());
        }
    }
}
