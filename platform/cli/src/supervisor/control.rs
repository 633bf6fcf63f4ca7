//! How other `gantry` commands talk to the running `up`: lines of JSON over a socket only its owner
//! can open. One line asks; one line answers, or, for an operation, one per step and a last one.
//!
//! An operation goes on when its asker leaves, up to where it may stop; see [`Operation`].

use std::{io, time::Duration};

use gantry::shutdown::Tasks;
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream},
    sync::{mpsc, watch},
    time,
};

use super::{
    Event, Fault, Marked, Operation, Report, Supervisor, operation::Progress, world::World,
};
use crate::{access::Access, failure::Failure, output, state::StateFolder};

/// A request at most; the longest names some services.
const REQUEST_MAX: u64 = 64 << 10;

/// A line of an answer at most.
const ANSWER_MAX: u64 = 1 << 20;

/// How long either side waits for the other's line.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long one instance may take to drain and be gone, generously: the bound of an asker on top
/// of what it grants an instance to come up.
const STEP_MAX: Duration = Duration::from_mins(1);

/// What `up` can be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Request {
    /// How the instances are.
    Ps,
    /// Which servers the services share, and how each is reached.
    Servers,
    /// To have further processes of an instance begin with their registrations paused, or not.
    Pause { instance: String, paused: bool },
    /// To drain and end.
    Stop,
    /// To change what runs.
    Operate(Operation),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Answer {
    Instances(Vec<Report>),
    Servers(Servers),
    /// It is noted.
    Marked(Marked),
    Stopping,
    Refused(String),
    /// A step of an operation; further lines follow.
    Step(Event),
    /// An operation is through, and these are the instances.
    Done(Vec<Report>),
    /// An operation was refused, or is not through and will not be.
    Faulty(Fault),
}

/// What the services of an `up` share, and how it is reached.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Servers {
    /// Where they register.
    pub(crate) etcd: Access,
    /// What carries their events, where there is one.
    pub(crate) broker: Option<Access>,
}

/// A connection, read line by line.
type Lines = BufReader<UnixStream>;

/// Answers until `tasks` stop. `stop` is set when somebody asks for it.
pub(crate) async fn serve<W: World>(
    listener: UnixListener,
    supervisor: Supervisor<W>,
    servers: Servers,
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
                let servers = servers.clone();
                let supervisor = supervisor.clone();
                let answer = answer(stream, supervisor, servers, stop.clone(), tasks.clone());
                tasks.spawn("control", answer);
            }
            // Out of descriptors, most likely; the asker waits in the backlog meanwhile.
            Err(_) => time::sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn answer<W: World>(
    stream: UnixStream,
    supervisor: Supervisor<W>,
    servers: Servers,
    stop: watch::Sender<bool>,
    tasks: Tasks,
) {
    let mut stream = BufReader::new(stream);
    let Ok(Ok(line)) = time::timeout(PATIENCE, read_line(&mut stream, REQUEST_MAX)).await else {
        return;
    };
    match serde_json::from_str(&line) {
        Ok(Request::Ps) => tell(&mut stream, &Answer::Instances(supervisor.reports())).await,
        Ok(Request::Servers) => tell(&mut stream, &Answer::Servers(servers)).await,
        Ok(Request::Pause { instance, paused }) => {
            let answer = match supervisor.pause(&instance, paused) {
                Ok(marked) => Answer::Marked(marked),
                Err(why) => Answer::Refused(why),
            };
            tell(&mut stream, &answer).await
        }
        Ok(Request::Stop) => {
            stop.send_replace(true);
            if tell(&mut stream, &Answer::Stopping).await {
                // Whoever asked to stop waits for this stream to end, which is when everything has.
                tasks.stopping().cancelled().await;
            }
            true
        }
        Ok(Request::Operate(operation)) => operate(&mut stream, supervisor, operation).await,
        Err(error) => tell(&mut stream, &Answer::Refused(error.to_string())).await,
    };
}

/// Carries out an operation to its end, and tells how it goes for as long as anybody listens.
async fn operate<W: World>(
    stream: &mut Lines,
    supervisor: Supervisor<W>,
    operation: Operation,
) -> bool {
    let (progress, events) = Progress::new();
    let (outcome, heard) = tokio::join!(
        supervisor.operate(operation, progress),
        relay(stream, events)
    );
    let last = match outcome {
        Ok(()) => Answer::Done(supervisor.reports()),
        Err(fault) => Answer::Faulty(fault),
    };
    heard && tell(stream, &last).await
}

/// Tells steps until there are no more; false once nobody listens, which the operation notices.
async fn relay(stream: &mut Lines, mut events: mpsc::Receiver<Event>) -> bool {
    loop {
        // Both arms are cancel-safe.
        let event = tokio::select! {
            event = events.recv() => event,
            // An asker has nothing more to say, so this is its leaving.
            _ = stream.fill_buf() => return false,
        };
        match event {
            Some(event) => {
                if !tell(stream, &Answer::Step(event)).await {
                    return false;
                }
            }
            None => return true,
        }
    }
}

/// Sends one line, within a bound; false when nobody takes it.
async fn tell(stream: &mut Lines, answer: &Answer) -> bool {
    let written = time::timeout(PATIENCE, write_line(stream, answer)).await;
    matches!(written, Ok(Ok(())))
}

async fn read_line(stream: &mut Lines, max: u64) -> io::Result<String> {
    let mut line = String::new();
    stream.take(max).read_line(&mut line).await?;
    Ok(line)
}

async fn write_line(stream: &mut Lines, value: &impl Serialize) -> io::Result<()> {
    let mut line = output::to_json(value);
    line.push('\n');
    stream.get_mut().write_all(line.as_bytes()).await
}

/// The next line of an answer, within `patience`; `None` when the other side has ended.
async fn hear(stream: &mut Lines, patience: Duration) -> Result<Option<Answer>, Failure> {
    let line = match time::timeout(patience, read_line(stream, ANSWER_MAX)).await {
        Ok(Ok(line)) => line,
        Ok(Err(error)) if is_end(&error) => return Ok(None),
        Ok(Err(error)) => return Err(Failure::failed(format!("ask the running up: {error}"))),
        Err(_) => return Err(Failure::failed("the running `gantry up` does not answer")),
    };
    if line.is_empty() {
        return Ok(None);
    }
    let answer = serde_json::from_str(&line);
    answer
        .map(Some)
        .map_err(|error| Failure::failed(format!("understand the running up: {error}")))
}

/// Whether a connection failed because the other side has ended: what was not accepted or not read
/// by then is cut.
fn is_end(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
    )
}

async fn ask(
    state: &StateFolder,
    request: &Request,
    patience: Duration,
) -> Result<Option<(Lines, Answer)>, Failure> {
    let Some(stream) = state.connect().await? else {
        return Ok(None);
    };
    let mut stream = BufReader::new(stream);
    match time::timeout(PATIENCE, write_line(&mut stream, request)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) if is_end(&error) => return Ok(None),
        Ok(Err(error)) => return Err(Failure::failed(format!("ask the running up: {error}"))),
        Err(_) => return Err(Failure::failed("the running `gantry up` does not answer")),
    }
    // `None`: it ended between our connecting and its answer.
    let answer = hear(&mut stream, patience).await?;
    Ok(answer.map(|answer| (stream, answer)))
}

/// The instances of the `up` that runs on `state`; `None` when none runs.
pub(crate) async fn instances(state: &StateFolder) -> Result<Option<Vec<Report>>, Failure> {
    match ask(state, &Request::Ps, PATIENCE).await? {
        None => Ok(None),
        Some((_, Answer::Instances(reports))) => Ok(Some(reports)),
        Some((_, other)) => Err(unexpected(&other)),
    }
}

/// The same, for those who can do nothing where none runs.
pub(crate) async fn running(state: &StateFolder) -> Result<Vec<Report>, Failure> {
    instances(state).await?.ok_or_else(nothing_runs)
}

/// What to say then.
pub(crate) fn nothing_runs() -> Failure {
    Failure::failed("nothing runs here; start it with `gantry up`")
}

/// What the services of the `up` on `state` share; `None` when none runs.
pub(crate) async fn servers(state: &StateFolder) -> Result<Option<Servers>, Failure> {
    match ask(state, &Request::Servers, PATIENCE).await? {
        None => Ok(None),
        Some((_, Answer::Servers(servers))) => Ok(Some(servers)),
        Some((_, other)) => Err(unexpected(&other)),
    }
}

/// Has the `up` on `state` start further processes of `instance` paused, or not.
pub(crate) async fn pause(
    state: &StateFolder,
    instance: &str,
    paused: bool,
) -> Result<Marked, Failure> {
    let instance = instance.to_owned();
    match ask(state, &Request::Pause { instance, paused }, PATIENCE).await? {
        None => Err(Failure::failed("`gantry up` has ended meanwhile")),
        Some((_, Answer::Marked(marked))) => Ok(marked),
        Some((_, Answer::Refused(why))) => Err(Failure::failed(why)),
        Some((_, other)) => Err(unexpected(&other)),
    }
}

/// Asks the `up` that runs on `state` to drain, and waits until it has; false when none runs.
pub(crate) async fn stop(state: &StateFolder) -> Result<bool, Failure> {
    match ask(state, &Request::Stop, PATIENCE).await? {
        None => Ok(false),
        Some((mut stream, Answer::Stopping)) => {
            // Ends when `up` closes it or is gone, either of which is what we wait for.
            drop(stream.read(&mut [0]).await);
            // It holds its lock a moment longer, and another one would be refused.
            state.freed().await;
            Ok(true)
        }
        Some((_, other)) => Err(unexpected(&other)),
    }
}

/// Has the `up` that runs on `state` carry out an operation, and waits until it has; `step` is
/// called as each step is told. `None` when none runs; the inner result is the operation's own.
///
/// Dropped before its end, it leaves the operation to `up`.
pub(crate) async fn operate_on(
    state: &StateFolder,
    operation: Operation,
    mut step: impl FnMut(Event),
) -> Result<Option<Result<Vec<Report>, Fault>>, Failure> {
    let (Operation::Scale { timeout, .. } | Operation::Restart { timeout, .. }) = &operation;
    let patience = timeout.saturating_add(STEP_MAX);
    let asked = ask(state, &Request::Operate(operation), patience).await?;
    let Some((mut stream, mut answer)) = asked else {
        return Ok(None);
    };
    loop {
        match answer {
            Answer::Step(event) => step(event),
            Answer::Done(reports) => return Ok(Some(Ok(reports))),
            Answer::Faulty(fault) => return Ok(Some(Err(fault))),
            other => return Err(unexpected(&other)),
        }
        let next = hear(&mut stream, patience).await?;
        answer = next.ok_or_else(|| Failure::failed("`gantry up` has ended meanwhile"))?;
    }
}

fn unexpected(answer: &Answer) -> Failure {
    Failure::failed(match answer {
        Answer::Refused(why) => format!("the running `gantry up` refused: {why}"),
        _ => "the running `gantry up` is of another version".to_owned(),
    })
}
