use std::time::Duration;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time,
};

use super::stage::{Play, restart, scale};
use crate::{
    state::StateFolder,
    supervisor::{control, *},
};

/// A system that answers in a folder of its own.
struct Asked {
    play: Play,
    state: StateFolder,
    _folder: tempfile::TempDir,
}

impl Asked {
    async fn serving(instances: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let state = StateFolder::of(folder.path());
        state.create().unwrap();
        let listener = state.listen(&state.lock().unwrap()).unwrap();
        let play = Play::serving(instances).await;
        let (stop, _) = watch::channel(false);
        let tasks = play.tasks.clone();
        let serve = control::serve(
            listener,
            play.supervisor.clone(),
            control::Servers::default(),
            stop,
            tasks.clone(),
        );
        tasks.spawn("control", serve);
        Self {
            play,
            state,
            _folder: folder,
        }
    }

    async fn operate(&self, operation: Operation) -> (Result<Vec<Report>, Fault>, usize) {
        let mut steps = 0;
        let asked = control::operate_on(&self.state, operation, |_| steps += 1).await;
        (asked.unwrap().expect("it runs"), steps)
    }
}

/// Goal: an asker hears every step and the instances after the last, or what is wrong.
/// Method: scale up by many, restart, and mistake a name.
#[tokio::test]
async fn an_asker_hears_every_step() {
    let asked = Asked::serving(&["orders-1"]).await;
    let (done, steps) = asked.operate(scale(&[("orders", 30)])).await;
    assert_eq!((30, 58), (done.unwrap().len(), steps));
    let (done, steps) = asked.operate(restart(&["orders-7"])).await;
    assert_eq!((30, 4), (done.unwrap().len(), steps));
    let (done, steps) = asked.operate(restart(&["ordres"])).await;
    assert!(done.unwrap_err().usage);
    assert_eq!(0, steps);
}

/// Goal: an asker that leaves in the middle leaves no half of it behind.
/// Method: leave a restart of two at its first step; the first is replaced, the second is not, and
/// the service is free for the next operation.
#[tokio::test]
async fn an_asker_that_leaves_leaves_no_half() {
    let asked = Asked::serving(&["orders-1", "orders-2"]).await;
    let (first, mut heard) = watch::channel(false);
    let operation = control::operate_on(&asked.state, restart(&["orders"]), |_| {
        first.send_replace(true);
    });
    tokio::select! {
        _ = operation => panic!("it takes longer than a step"),
        _ = heard.wait_for(|heard| *heard) => {}
    }
    let mut changes = asked.play.supervisor.changes();
    let replaced = async {
        while asked.play.names() != ["orders-2", "orders-3"] {
            changes.changed().await.unwrap();
        }
    };
    let replaced = time::timeout(Duration::from_secs(30), replaced).await;
    replaced.expect("the one at hand is replaced");
    // Refused until the operation has noticed that it was the last.
    while asked.operate(scale(&[("orders", 1)])).await.0.is_err() {
        time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(vec!["orders-2"], asked.play.names());
}

/// Goal: what is not understood is refused in words, and the next one is answered.
/// Method: a word, and a line without end.
#[tokio::test]
async fn nonsense_is_refused() {
    let asked = Asked::serving(&["orders-1"]).await;
    let long = format!("\"{}", "x".repeat(100_000));
    for nonsense in ["\"dance\"\n", &long] {
        let mut stream = asked.state.connect().await.unwrap().unwrap();
        // A line that is too long may be cut off while it is sent.
        drop(stream.write_all(nonsense.as_bytes()).await);
        let mut answer = String::new();
        drop(stream.read_to_string(&mut answer).await);
        assert!(answer.is_empty() || answer.starts_with("{\"refused\""));
    }
    let reports = control::instances(&asked.state).await.unwrap();
    assert_eq!(1, reports.expect("it runs").len());
}

/// Goal: an `up` that ends before it has taken an asker's connection up is as good as none.
/// Method: ask one that only listens, which ends meanwhile.
#[tokio::test]
async fn an_end_between_question_and_answer_is_an_end() {
    let folder = tempfile::tempdir().unwrap();
    let state = StateFolder::of(folder.path());
    state.create().unwrap();
    let listener = state.listen(&state.lock().unwrap()).unwrap();
    let end = async {
        tokio::task::yield_now().await;
        drop(listener);
    };
    let (asked, ()) = tokio::join!(control::instances(&state), end);
    assert!(asked.unwrap().is_none());
}
