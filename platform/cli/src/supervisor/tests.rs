mod asked;
mod paused;
mod restarted;
mod scaled;
mod stage;

use std::{collections::HashSet, time::Duration};

use tokio::time::{self, Instant};

use self::stage::{DRAIN_MAX, Play};
use super::*;

/// Goal: everybody is started at once with its own addresses.
/// Method: two replicas called by one service; read the environment, then make them healthy.
#[tokio::test(start_paused = true)]
async fn everybody_gets_addresses_of_its_own() {
    let play = Play::of(&["catalog-1", "catalog-2", "orders-1"]);
    play.until("orders-1", |status| status.pid.is_some()).await;
    assert_eq!(State::Starting, play.supervisor.reports()[2].row.state);
    assert_eq!(
        Some("127.0.0.1:5".to_owned()),
        play.environment(2, "GANTRY_LISTEN__ADDRESS")
    );
    assert_eq!(
        Some("127.0.0.1:6".to_owned()),
        play.environment(2, "GANTRY_ADMIN__ADDRESS")
    );

    play.all_healthy();
    assert_eq!(Ok(()), play.supervisor.all_serving().await);
}

/// Goal: a crashed instance comes back at its port, later each time, up to a minute.
/// Method: crash it at once eight times on a paused clock, and look at the times of its starts.
#[tokio::test(start_paused = true)]
async fn a_crashed_instance_comes_back_with_growing_pauses() {
    let play = Play::of(&["orders-1"]);
    play.all_healthy();
    for restarts in 0..8 {
        play.until("orders-1", |s| {
            s.restarts == restarts && s.state == State::Serving
        })
        .await;
        play.crash("orders-1", Ended::Signal(9)).await;
        play.until("orders-1", |s| s.state == State::Exited).await;
    }
    let status = play.until("orders-1", |s| s.state == State::Serving).await;
    assert_eq!(8, status.restarts);
    assert_eq!(Some(Ended::Signal(9)), status.ended);

    let times: Vec<_> = play.scene().started.iter().map(|(at, _)| *at).collect();
    let pauses: Vec<_> = times
        .windows(2)
        .map(|pair| (pair[1] - pair[0]).as_secs_f64())
        .collect();
    assert!((0.4..0.8).contains(&pauses[0]), "{pauses:?}");
    assert!((48.0..73.0).contains(&pauses[7]), "{pauses:?}");
    let addresses: HashSet<_> = (0..9)
        .map(|start| play.environment(start, "GANTRY_LISTEN__ADDRESS"))
        .collect();
    assert_eq!(1, addresses.len(), "the port is kept");
}

/// Goal: an instance that ends as it was told to does not end as one before it did.
/// Method: crash it, let it come back, drain.
#[tokio::test(start_paused = true)]
async fn a_crash_is_forgotten_by_a_drain() {
    let play = Play::of(&["orders-1"]);
    play.all_healthy();
    play.crash("orders-1", Ended::Signal(9)).await;
    play.until("orders-1", |s| s.restarts == 1 && s.state == State::Serving)
        .await;
    play.supervisor.drain().await;
    let status = play.until("orders-1", |s| s.over).await;
    assert_eq!((State::Exited, None), (status.state, status.ended));
}

/// Goal: an instance that loses the race for its port before it served gets another; one that has
/// served keeps its port.
/// Method: take the port, let it exit; then take the new port after it has served.
#[tokio::test(start_paused = true)]
async fn a_port_is_given_up_only_before_it_was_known() {
    let play = Play::of(&["catalog-1"]);
    let old = play
        .until("catalog-1", |s| s.pid.is_some())
        .await
        .place
        .address;
    play.scene().taken.insert(old);
    play.crash("catalog-1", Ended::Code(1)).await;

    let moved = play
        .until("catalog-1", |s| s.place.address != old && s.pid.is_some())
        .await;
    play.all_healthy();
    play.until("catalog-1", |s| s.state == State::Serving).await;
    play.scene().taken.insert(moved.place.address);
    play.crash("catalog-1", Ended::Code(1)).await;
    play.until("catalog-1", |s| s.state == State::Exited).await;
    let again = play.until("catalog-1", |s| s.state == State::Serving).await;
    assert_eq!(moved.place, again.place);
}

/// Goal: callers are drained and gone before what they call is told.
/// Method: a chain with two replicas in front; the order of what was told.
#[tokio::test(start_paused = true)]
async fn callers_drain_first() {
    let play = Play::of(&["catalog-1", "orders-1", "orders-2"]);
    play.all_healthy();
    play.supervisor.all_serving().await.unwrap();
    play.scene().stubborn.insert("orders-2".to_owned());

    let began = Instant::now();
    let drain = time::timeout(DRAIN_MAX * 2, play.supervisor.drain()).await;

    drain.expect("a drain is bounded");
    assert_eq!(
        vec![
            "drain orders-1",
            "drain orders-2",
            "kill orders-2",
            "drain catalog-1"
        ],
        play.scene().told,
        "the stubborn one was killed, and only then catalog told"
    );
    assert_eq!(DRAIN_MAX, began.elapsed());
    let reports = play.supervisor.reports();
    assert!(
        reports
            .iter()
            .all(|report| report.row.state == State::Exited)
    );
}

/// Goal: a second signal ends a drain that hangs.
/// Method: a stubborn instance; drain, then kill meanwhile.
#[tokio::test(start_paused = true)]
async fn killing_cuts_a_drain_short() {
    let play = Play::of(&["orders-1"]);
    play.all_healthy();
    play.supervisor.all_serving().await.unwrap();
    play.scene().stubborn.insert("orders-1".to_owned());

    let began = Instant::now();
    let cut = async {
        play.until("orders-1", |s| s.state == State::Draining).await;
        play.supervisor.kill().await;
    };
    tokio::join!(play.supervisor.drain(), cut);

    assert_eq!(vec!["drain orders-1", "kill orders-1"], play.scene().told);
    assert!(
        began.elapsed() < Duration::from_secs(2),
        "{:?}",
        began.elapsed()
    );
}

/// Goal: an instance that waits for its next try is stopped at once, and stays so.
/// Method: crash it, drain during the pause, and let an hour pass.
#[tokio::test(start_paused = true)]
async fn an_instance_between_two_processes_stops_at_once() {
    let play = Play::of(&["orders-1"]);
    play.crash("orders-1", Ended::Code(1)).await;
    play.until("orders-1", |s| s.state == State::Exited).await;

    play.supervisor.drain().await;
    time::sleep(Duration::from_hours(1)).await;
    assert_eq!(1, play.scene().started.len());
}

/// Goal: what cannot work is given up: a refused configuration at once, a crash loop after a few.
/// Method: exit with 2 at the first start; crash another five times.
#[tokio::test(start_paused = true)]
async fn what_cannot_work_is_given_up() {
    let play = Play::of(&["orders-1"]);
    play.crash("orders-1", Ended::Code(2)).await;
    let lost = play.supervisor.all_serving().await.unwrap_err();
    assert_eq!("orders-1", lost.to_string());
    assert_eq!(1, play.scene().started.len());

    let play = Play::of(&["orders-1"]);
    for restarts in 0..5 {
        play.until("orders-1", |s| s.restarts == restarts && s.pid.is_some())
            .await;
        play.crash("orders-1", Ended::Code(1)).await;
    }
    let lost = play.supervisor.all_serving().await.unwrap_err();
    assert_eq!("orders-1", lost.to_string());
}

/// Goal: an instance that stops answering is shown as such, and back when it answers again.
/// Method: switch its health off and on.
#[tokio::test(start_paused = true)]
async fn health_is_followed() {
    let play = Play::of(&["orders-1"]);
    play.all_healthy();
    play.until("orders-1", |s| s.state == State::Serving).await;
    play.scene().healthy.clear();
    play.until("orders-1", |s| s.state == State::NotServing)
        .await;
    play.all_healthy();
    let status = play.until("orders-1", |s| s.state == State::Serving).await;
    assert_eq!(0, status.restarts, "the process is left alone");
}
