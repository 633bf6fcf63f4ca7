use super::stage::{Meanwhile, Play, restart};
use crate::supervisor::{operation::Progress, *};

const VARIABLE: &str = "GANTRY_REGISTRATION__PAUSED";

impl Play {
    /// Whether the last process of an instance began paused.
    fn began_paused(&self, instance: &str) -> bool {
        let last = {
            let scene = self.scene();
            let mut started = scene.started.iter();
            started.rposition(|(_, launch)| launch.instance == instance)
        };
        let said = self.environment(last.expect("it was started"), VARIABLE);
        assert!(said.is_none() || said.as_deref() == Some("true"));
        said.is_some()
    }

    fn is_paused(&self, instance: &str) -> bool {
        let mut reports = self.supervisor.reports().into_iter();
        let report = reports.find(|report| report.row.instance == instance);
        report.expect("it is there").paused
    }

    /// Crashes an instance, and waits until its next process serves.
    async fn crashed_and_back(&self, instance: &str) {
        let before = self.until(instance, |status| status.pid.is_some()).await;
        self.crash(instance, Ended::Signal(9)).await;
        let back =
            |status: &Status| status.restarts > before.restarts && status.state == State::Serving;
        self.until(instance, back).await;
    }
}

/// Goal: a pause outlives crashes and restarts of its instance and of no other, until it is
/// resumed.
/// Method: pause one of two; crash both, restart both, resume the successor, crash it.
#[tokio::test(start_paused = true)]
async fn a_pause_outlives_the_process() {
    let play = Play::serving(&["orders-1", "orders-2"]).await;
    let marked = play.supervisor.pause("orders-1", true).unwrap();
    assert_eq!((false, true), (marked.before, marked.running));
    for instance in ["orders-1", "orders-2"] {
        play.crashed_and_back(instance).await;
    }
    assert!(play.began_paused("orders-1") && !play.began_paused("orders-2"));

    play.restart(&["orders"]).await.unwrap();
    assert_eq!(["orders-1", "orders-3"], play.names()[..]);
    assert!(play.began_paused("orders-3"), "the successor of orders-1");
    assert!(!play.began_paused("orders-1"), "a new one of that name");
    assert!(play.is_paused("orders-3") && !play.is_paused("orders-1"));

    let marked = play.supervisor.pause("orders-3", false).unwrap();
    assert!(marked.before);
    play.crashed_and_back("orders-3").await;
    assert!(!play.began_paused("orders-3") && !play.is_paused("orders-3"));
}

/// Goal: one between two processes can be paused, and says that nobody has to be told.
/// Method: crash one, pause it before the next begins.
#[tokio::test(start_paused = true)]
async fn one_without_a_process_is_paused() {
    let play = Play::serving(&["orders-1"]).await;
    play.crash("orders-1", Ended::Signal(9)).await;
    play.until("orders-1", |status| status.pid.is_none()).await;
    let marked = play.supervisor.pause("orders-1", true).unwrap();
    assert!(!marked.running);
    let serves = |status: &Status| status.state == State::Serving;
    play.until("orders-1", serves).await;
    assert!(play.began_paused("orders-1"));
}

/// Goal: one whose process is just being started has one that has to be told, as it may have been
/// started without knowing.
/// Method: pause it while the next process is started, after a crash.
#[tokio::test(start_paused = true)]
async fn one_that_is_being_started_is_told() {
    let play = Play::serving(&["orders-1"]).await;
    let (told, marked) = std::sync::mpsc::channel();
    let supervisor = play.supervisor.clone();
    play.scene().meanwhile = Meanwhile(Some(Box::new(move || {
        told.send(supervisor.pause("orders-1", true)).unwrap();
    })));
    play.crashed_and_back("orders-1").await;
    assert!(!play.began_paused("orders-1"), "it was too late for that");
    let marked = marked.try_recv().unwrap().unwrap();
    assert!(marked.running);
}

/// Goal: nobody is paused who may be replaced meanwhile, nor who is not there.
/// Method: while a successor does not come to serve; then by a name nobody has.
#[tokio::test(start_paused = true)]
async fn a_change_under_way_refuses_a_pause() {
    let play = Play::serving(&["orders-1", "accounts-1"]).await;
    play.scene().sick.insert("orders-2".to_owned());
    let (progress, _heard) = Progress::new();
    let operation = play.supervisor.operate(restart(&["orders"]), progress);
    let asked = async {
        play.happened("start orders-2").await;
        let refused = play.supervisor.pause("orders-1", true).unwrap_err();
        assert!(refused.contains("being changed"), "{refused}");
        play.supervisor.pause("accounts-1", true).unwrap();
    };
    let (done, ()) = tokio::join!(operation, asked);
    assert!(done.is_err() && !play.is_paused("orders-1"));
    play.supervisor.pause("orders-1", true).unwrap();
    let gone = play.supervisor.pause("orders-9", true).unwrap_err();
    assert!(gone.contains("orders-9"), "{gone}");
}
