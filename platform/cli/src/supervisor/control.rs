//! How other `gantry` commands talk to the running `up`: one line of JSON each way over a socket
//! only its owner can open.

use std::time::Duration;

use gantry::shutdown::Tasks;
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream},
    sync::watch,
    time,
};

use super::{Report, Supervisor};
use crate::{failure::Failure, output, state::StateFolder};

/// A request at most; they are a word or two.
const REQUEST_MAX: u64 = 4 << 10;

/// An answer at most.
const ANSWER_MAX: u64 = 1 << 20;

/// How long either side waits for the other's line.
const PATIENCE: Duration = Duration::from_secs(5);

/// What `up` can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Request {
    /// How the instances are.
    Ps,
    /// To drain and end.
    Stop,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Answer {
    Instances(Vec<Report>),
    Stopping,
    Refused(String),
}

/// Answers until `tasks` stop. `stop` is set when somebody asks for it.
pub(crate) async fn serve(
    listener: UnixListener,
    supervisor: Supervisor,
    stop: watch::Sender<bool>,
    tasks: Tasks,
) {
    let stopping = tasks.stopping();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stopping.cancelled() => return,
        };
        match accepted {
            Ok((stream, _)) => {
                let answer = answer(stream, supervisor.clone(), stop.clone(), tasks.clone());
                tasks.spawn("control", answer);
            }
            // Out of descriptors, most likely; the asker waits in the backlog meanwhile.
            Err(_) => time::sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn answer(
    mut stream: UnixStream,
    supervisor: Supervisor,
    stop: watch::Sender<bool>,
    tasks: Tasks,
) {
    let Ok(Ok(line)) = time::timeout(PATIENCE, read_line(&mut stream, REQUEST_MAX)).await else {
        return;
    };
    let request = serde_json::from_str(&line);
    let answer = match &request {
        Ok(Request::Ps) => Answer::Instances(supervisor.reports()),
        Ok(Request::Stop) => {
            stop.send_replace(true);
            Answer::Stopping
        }
        Err(error) => Answer::Refused(error.to_string()),
    };
    if write_line(&mut stream, &answer).await.is_ok() && matches!(request, Ok(Request::Stop)) {
        // Whoever asked to stop waits for this stream to end, which is when everything has.
        tasks.stopping().cancelled().await;
    }
}

async fn read_line(stream: &mut UnixStream, max: u64) -> std::io::Result<String> {
    let mut line = String::new();
    BufReader::new(stream.take(max))
        .read_line(&mut line)
        .await?;
    Ok(line)
}

async fn write_line(stream: &mut UnixStream, value: &impl Serialize) -> std::io::Result<()> {
    let mut line = output::to_json(value);
    line.push('\n');
    stream.write_all(line.as_bytes()).await
}

async fn ask(
    state: &StateFolder,
    request: Request,
) -> Result<Option<(UnixStream, Answer)>, Failure> {
    let Some(mut stream) = state.connect().await? else {
        return Ok(None);
    };
    let talk = async {
        write_line(&mut stream, &request).await?;
        read_line(&mut stream, ANSWER_MAX).await
    };
    let line = match time::timeout(PATIENCE, talk).await {
        Ok(Ok(line)) => line,
        Ok(Err(error)) => return Err(Failure::failed(format!("ask the running up: {error}"))),
        Err(_) => return Err(Failure::failed("the running `gantry up` does not answer")),
    };
    if line.is_empty() {
        // It ended between our connecting and its answer.
        return Ok(None);
    }
    match serde_json::from_str(&line) {
        Ok(answer) => Ok(Some((stream, answer))),
        Err(error) => Err(Failure::failed(format!(
            "understand the running up: {error}"
        ))),
    }
}

/// The instances of the `up` that runs on `state`; `None` when none runs.
pub(crate) async fn instances(state: &StateFolder) -> Result<Option<Vec<Report>>, Failure> {
    match ask(state, Request::Ps).await? {
        None => Ok(None),
        Some((_, Answer::Instances(reports))) => Ok(Some(reports)),
        Some((_, other)) => Err(unexpected(&other)),
    }
}

/// Asks the `up` that runs on `state` to drain, and waits until it has; false when none runs.
pub(crate) async fn stop(state: &StateFolder) -> Result<bool, Failure> {
    match ask(state, Request::Stop).await? {
        None => Ok(false),
        Some((mut stream, Answer::Stopping)) => {
            // Ends when `up` closes it or is gone, either of which is what we wait for.
            drop(stream.read(&mut [0]).await);
            Ok(true)
        }
        Some((_, other)) => Err(unexpected(&other)),
    }
}

fn unexpected(answer: &Answer) -> Failure {
    Failure::failed(match answer {
        Answer::Refused(why) => format!("the running `gantry up` refused: {why}"),
        _ => "the running `gantry up` is of another version".to_owned(),
    })
}
