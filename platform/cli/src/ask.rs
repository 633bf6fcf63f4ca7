//! Asks running instances at their side ports, each for itself: one that does not answer keeps nobody
//! from seeing what the others say.

use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use gantry_api::admin::v1::{
    GetEventsRequest, GetEventsResponse, admin_service_client::AdminServiceClient,
};
use tokio::time;

use crate::{
    Outcome,
    call::{
        self,
        target::{Channel, Target},
    },
    failure::{Exit, Failure},
    here, output,
    supervisor::{Report, Row, control},
    wait,
};

/// Longest wait for one instance: somebody waits for the answer.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// Instances asked at once.
const AT_ONCE: usize = 16;

/// What the instances said, and why some said nothing.
#[derive(Debug)]
pub(crate) struct Answers<T> {
    pub(crate) rows: Vec<T>,
    failures: Vec<Failure>,
}

impl<T> Answers<T> {
    /// Says `text`, where everybody answered.
    pub(crate) fn note(&self, text: &str) {
        if self.failures.is_empty() {
            output::note(text);
        }
    }

    /// Tells of those that said nothing, on standard error. Fails where there are any, as the first of
    /// them did.
    pub(crate) fn exit(&self) -> Outcome {
        let Some((last, others)) = self.failures.split_last() else {
            return Ok(Exit::Fine);
        };
        for failure in others {
            output::error(&failure.to_string());
        }
        Err(Failure::new(last.exit(), last.to_string()))
    }
}

/// All instances of the running `up`.
pub(crate) async fn running() -> Result<Vec<Report>, Failure> {
    let (_, state) = here()?;
    control::running(&state).await
}

/// Asks every instance of `reports` that `name`, a service or an instance, means.
pub(crate) async fn each<T>(
    name: &str,
    reports: &[Report],
    ask: impl AsyncFn(Channel, &Row) -> Result<Vec<T>, Failure>,
) -> Result<Answers<T>, Failure> {
    let rows = wait::chosen(name, reports)?;
    let rows = rows.into_iter().map(|report| &report.row);
    Ok(gather(rows, async |row| one(row, &ask).await).await)
}

/// As [`each`], of all that are there and not about to go.
pub(crate) async fn all<T>(
    reports: &[Report],
    ask: impl AsyncFn(Channel, &Row) -> Result<Vec<T>, Failure>,
) -> Answers<T> {
    let rows = reports.iter().filter(|report| !report.leaving);
    let rows = rows.map(|report| &report.row);
    gather(rows, async |row| one(row, &ask).await).await
}

/// How events fare in an instance.
pub(crate) async fn events(channel: Channel) -> Result<GetEventsResponse, Failure> {
    let mut admin = AdminServiceClient::new(channel);
    let shown = admin.get_events(GetEventsRequest {}).await;
    shown
        .map(tonic::Response::into_inner)
        .map_err(|status| call::failure(&status))
}

/// Gathers what each of `rows` comes to, in their order, with the name of whoever fails.
async fn gather<'a, T>(
    rows: impl Iterator<Item = &'a Row>,
    ask: impl AsyncFn(&Row) -> Result<Vec<T>, Failure>,
) -> Answers<T> {
    let ask = &ask;
    let asked = stream::iter(rows).map(|row| async move {
        let answer = time::timeout(ANSWER_MAX, ask(row)).await;
        let answer = answer.unwrap_or_else(|_| {
            let text = format!("it does not answer within {ANSWER_MAX:?}");
            Err(Failure::failed(text))
        });
        let named = |failure: Failure| {
            let text = format!("{}: {failure}", row.instance);
            Failure::new(failure.exit(), text)
        };
        answer.map_err(named)
    });
    let mut answers = Answers {
        rows: Vec::new(),
        failures: Vec::new(),
    };
    let mut asked = std::pin::pin!(asked.buffered(AT_ONCE));
    while let Some(answer) = asked.next().await {
        match answer {
            Ok(rows) => answers.rows.extend(rows),
            Err(failure) => answers.failures.push(failure),
        }
    }
    answers
}

async fn one<T>(
    row: &Row,
    ask: &impl AsyncFn(Channel, &Row) -> Result<Vec<T>, Failure>,
) -> Result<Vec<T>, Failure> {
    if row.pid.is_none() {
        return Err(Failure::failed("it has no process that could be asked"));
    }
    let target = Target::at(&row.side_address, None)?;
    let answer = ask(target.channel.clone(), row).await;
    target.close().await;
    answer
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervisor::State;

    fn row(instance: &str) -> Row {
        Row {
            name: "payments".to_owned(),
            instance: instance.to_owned(),
            state: State::Serving,
            registration: None,
            registration_error: None,
            address: String::new(),
            side_address: String::new(),
            pid: Some(1),
            restarts: 0,
            uptime_seconds: 0,
            rss_bytes: 0,
        }
    }

    /// Goal: whoever fails or does not answer keeps nobody from seeing what the others say, in their
    /// order; each is named, and the verb fails all the same.
    /// Method: four instances, of which one refuses and one is silent.
    #[tokio::test(start_paused = true)]
    async fn one_that_does_not_answer_keeps_nobody_from_the_others() {
        let rows = ["payments-1", "payments-2", "payments-3", "payments-4"].map(row);
        let answers = gather(rows.iter(), async |row| match row.instance.as_str() {
            "payments-1" => Err(Failure::usage("not here")),
            "payments-2" => std::future::pending().await,
            instance => Ok(vec![instance.to_owned()]),
        });
        let answers = answers.await;
        assert_eq!(["payments-3", "payments-4"], *answers.rows);
        let failures: Vec<_> = answers.failures.iter().map(ToString::to_string).collect();
        let expected = [
            "payments-1: not here",
            "payments-2: it does not answer within 5s",
        ];
        assert_eq!(expected, *failures);
        assert_eq!(Exit::Failed, answers.exit().unwrap_err().exit());
    }
}
