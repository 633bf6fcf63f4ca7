use std::time::Duration;

use tokio::time::{self, Instant};

use super::stage::{DRAIN_MAX, PATIENCE, Play, scale};
use crate::supervisor::{operation::Progress, *};

const CATALOG: &str = "catalog-1";
const ORDERS: &str = "orders-1";

/// Goal: what is missing is started at once under free numbers, and nobody else is touched.
/// Method: from one to three; the asker's steps, the caller's environment and restarts.
#[tokio::test(start_paused = true)]
async fn more_are_started_and_callers_left_alone() {
    let play = Play::serving(&[CATALOG, ORDERS]).await;
    let (done, steps) = play.operate(scale(&[("catalog", 3)])).await;
    assert_eq!(Ok(()), done);
    assert_eq!(
        vec![
            "catalog-2 Starts",
            "catalog-3 Starts",
            "catalog-2 Serves",
            "catalog-3 Serves"
        ],
        steps
    );
    assert_eq!(
        vec!["catalog-1", "catalog-2", "catalog-3", "orders-1"],
        play.names()
    );
    let reports = play.supervisor.reports();
    assert!(reports.iter().all(|report| report.row.restarts == 0));
}

/// Goal: the youngest go, whatever their numbers, and are forgotten; their numbers are given out
/// again, and no task is left.
/// Method: a restart makes number 1 of two the older one's successor; scale down, and up again.
#[tokio::test(start_paused = true)]
async fn the_youngest_go_and_are_forgotten() {
    let play = Play::serving(&["orders-1", "orders-2"]).await;
    let tasks = play.tasks.running();
    play.restart(&["orders-1"]).await.unwrap();
    assert_eq!(vec!["orders-2", "orders-3"], play.names());
    play.scale(&[("orders", 3)]).await.unwrap();
    assert_eq!(vec!["orders-1", "orders-2", "orders-3"], play.names());

    play.scene().told.clear();
    let (done, steps) = play.operate(scale(&[("orders", 2)])).await;
    assert_eq!(Ok(()), done);
    assert_eq!(vec!["orders-1 Drains", "orders-1 Gone"], steps);
    play.scale(&[("orders", 1)]).await.unwrap();
    assert_eq!(vec!["drain orders-1", "drain orders-3"], play.scene().told);
    assert_eq!(vec!["orders-2"], play.names());

    play.scale(&[("orders", 2)]).await.unwrap();
    assert_eq!(vec!["orders-1", "orders-2"], play.names());
    assert_eq!(tasks, play.tasks.running(), "as many as at first");
}

/// Goal: what does not come to serve is removed, what does stays, and nothing drains.
/// Method: grow one service, of which one instance refuses its configuration, and shrink another.
#[tokio::test(start_paused = true)]
async fn what_does_not_serve_is_removed_and_nothing_drains() {
    let play = Play::serving(&[CATALOG, "catalog-2", ORDERS]).await;
    let failing = ("orders-2".to_owned(), Ended::Code(2));
    play.scene().failing.extend([failing]);
    let fault = play.scale(&[("orders", 3), ("catalog", 1)]).await;
    let fault = fault.unwrap_err();
    assert_eq!(Some("orders-2"), fault.instance.as_deref());
    assert_eq!("orders-2 exited with code 2; removed again", fault.text);
    assert_eq!(
        vec!["catalog-1", "catalog-2", "orders-1", "orders-3"],
        play.names()
    );
    assert!(play.scene().told.is_empty(), "{:?}", play.scene().told);

    play.scene().failing.clear();
    play.scale(&[("orders", 3), ("catalog", 1)]).await.unwrap();
    assert_eq!(
        vec!["catalog-1", "orders-1", "orders-2", "orders-3"],
        play.names()
    );
}

/// Goal: an instance that neither serves nor ends is waited for as long as was asked.
/// Method: a sick one; the time it takes.
#[tokio::test(start_paused = true)]
async fn waiting_is_bounded() {
    let play = Play::serving(&[CATALOG]).await;
    play.scene().sick.insert("catalog-2".to_owned());
    play.scene().stubborn.insert("catalog-2".to_owned());
    let began = Instant::now();
    let fault = play.scale(&[("catalog", 2)]).await.unwrap_err();
    assert_eq!(
        "catalog-2 does not serve after 1m; removed again",
        fault.text
    );
    assert_eq!(PATIENCE + DRAIN_MAX, began.elapsed(), "and then killed");
    assert_eq!(vec!["catalog-1"], play.names());
}

/// Goal: what cannot be is refused before anything happens.
/// Method: each mistake once.
#[tokio::test(start_paused = true)]
async fn mistakes_are_refused_before_anything_happens() {
    let play = Play::serving(&[CATALOG]).await;
    let cases: [(&[(&str, u16)], &str); 4] = [
        (&[("catalog", 0)], "from 1 to 32"),
        (&[("catalog", 33)], "from 1 to 32"),
        (
            &[("catalog", 2), ("catalgo", 2)],
            "did you mean \"catalog\"",
        ),
        (&[("catalog", 2), ("catalog", 3)], "named twice"),
    ];
    for (counts, words) in cases {
        let fault = play.scale(counts).await.unwrap_err();
        assert!(fault.usage && fault.text.contains(words), "{fault:?}");
    }
    assert!(play.scene().history.is_empty());
}

/// Goal: a service is changed by one operation at a time; others may be meanwhile.
/// Method: a scale that waits; a restart of the same service, and a scale of another.
#[tokio::test(start_paused = true)]
async fn two_operations_on_one_service_do_not_mix() {
    let play = Play::serving(&[CATALOG, ORDERS]).await;
    play.scene().sick.insert("catalog-2".to_owned());
    let others = async {
        play.until("catalog-2", |s| s.pid.is_some()).await;
        let refused = play.restart(&["orders", "catalog-1"]).await.unwrap_err();
        assert!(
            !refused.usage && refused.text.starts_with("catalog is being changed"),
            "{refused:?}"
        );
        play.scale(&[("orders", 2)]).await.unwrap();
        play.scene().sick.clear();
    };
    let (done, ()) = tokio::join!(play.scale(&[("catalog", 2)]), others);
    done.unwrap();
    assert_eq!(
        vec!["catalog-1", "catalog-2", "orders-1", "orders-2"],
        play.names()
    );
    play.restart(&["catalog-1"]).await.unwrap();
}

/// Goal: instances that came later drain in the same order as the first.
/// Method: add to both of a chain, then end it.
#[tokio::test(start_paused = true)]
async fn added_ones_drain_in_order() {
    let play = Play::serving(&[CATALOG, ORDERS]).await;
    play.scale(&[("orders", 2), ("catalog", 2)]).await.unwrap();
    play.scene().told.clear();
    play.scene().stubborn.insert("orders-2".to_owned());

    play.supervisor.drain().await;
    assert_eq!(
        vec![
            "drain orders-1",
            "drain orders-2",
            "kill orders-2",
            "drain catalog-1",
            "drain catalog-2"
        ],
        play.scene().told
    );
    let reports = play.supervisor.reports();
    assert!(reports.iter().all(|it| it.row.state == State::Exited));
}

/// Goal: the end of the system ends an operation at once, with all it has started, and none begins
/// any more.
/// Method: drain and kill while new instances are waited for.
#[tokio::test(start_paused = true)]
async fn the_end_of_the_system_ends_operations() {
    for kill in [false, true] {
        let play = Play::serving(&[CATALOG, ORDERS]).await;
        play.scene().sick.insert("orders-2".to_owned());
        play.scene().stubborn.insert("orders-2".to_owned());
        let end = async {
            play.until("orders-2", |s| s.pid.is_some()).await;
            if kill {
                play.supervisor.kill().await;
            } else {
                play.supervisor.drain().await;
            }
        };
        let began = Instant::now();
        let operated = async {
            let fault = play.scale(&[("orders", 2)]).await.unwrap_err();
            (fault, began.elapsed())
        };
        let ((fault, after), ()) = tokio::join!(operated, end);
        assert!(fault.text.contains("is ending"), "{fault:?}");
        assert!(after < Duration::from_secs(1), "{after:?}");
        let bound = if kill { Duration::ZERO } else { DRAIN_MAX };
        assert!(began.elapsed() <= bound + Duration::from_secs(1));
        let reports = play.supervisor.reports();
        assert!(reports.iter().all(|it| it.row.state == State::Exited));

        let started = play.scene().started.len();
        let refused = play.scale(&[("orders", 3)]).await.unwrap_err();
        assert!(refused.text.contains("is ending"), "{refused:?}");
        let refused = play.restart(&["catalog"]).await.unwrap_err();
        assert!(refused.text.contains("is ending"), "{refused:?}");
        time::sleep(Duration::from_hours(1)).await;
        assert_eq!(started, play.scene().started.len());
    }
}

/// Goal: an operation goes on when its asker leaves.
/// Method: nobody listens from the beginning.
#[tokio::test(start_paused = true)]
async fn scaling_goes_on_without_its_asker() {
    let play = Play::serving(&[CATALOG]).await;
    let (progress, events) = Progress::new();
    drop(events);
    let operation = scale(&[("catalog", 20)]);
    play.supervisor.operate(operation, progress).await.unwrap();
    assert_eq!(20, play.names().len());
    play.supervisor.all_serving().await.unwrap();
}

/// Goal: an asker that does not listen holds the operation up, but no memory is used without
/// bound; once it leaves, the operation goes on.
/// Method: an asker that sleeps for a while, and more steps than it may be behind.
#[tokio::test(start_paused = true)]
async fn an_asker_that_does_not_listen_is_waited_for() {
    let play = Play::serving(&[CATALOG]).await;
    let (progress, events) = Progress::new();
    let leave = async {
        time::sleep(Duration::from_secs(10)).await;
        let behind = events.len();
        drop(events);
        behind
    };
    let operation = play.supervisor.operate(scale(&[("catalog", 20)]), progress);
    let (done, behind) = tokio::join!(operation, leave);
    assert_eq!((Ok(()), 16), (done, behind));
}

/// Goal: whoever waits for everything to serve does not count on those that come or go.
/// Method: a crash loop among the new ones, and a stubborn one that leaves.
#[tokio::test(start_paused = true)]
async fn nobody_counts_on_those_that_come_or_go() {
    let play = Play::serving(&[CATALOG, "catalog-2", ORDERS]).await;
    let failing = ("orders-2".to_owned(), Ended::Signal(11));
    play.scene().failing.extend([failing]);
    play.scene().stubborn.insert("catalog-2".to_owned());
    let look = async {
        play.until("orders-2", |s| s.hopeless).await;
        assert_eq!(Ok(()), play.supervisor.all_serving().await);
        let reports = play.supervisor.reports();
        assert!(reports.iter().all(|it| !it.hopeless));
    };
    let (fault, ()) = tokio::join!(play.scale(&[("orders", 2)]), look);
    let fault = fault.unwrap_err();
    assert!(fault.text.contains("signal 11"), "{fault:?}");

    let look = async {
        play.until("catalog-2", |s| s.state == State::Draining)
            .await;
        assert_eq!(Ok(()), play.supervisor.all_serving().await);
        let reports = play.supervisor.reports();
        let leaving = reports.iter().filter(|it| it.leaving);
        assert_eq!(1, leaving.count());
    };
    let (done, ()) = tokio::join!(play.scale(&[("catalog", 1)]), look);
    done.unwrap();
}
