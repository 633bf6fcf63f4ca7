//! `gantry fault`: has calls fail on purpose, sees which do, and ends it.

use std::time::Duration;

use gantry::status;
use gantry_api::admin::v1::{
    Fault, ListFaultsRequest, SwitchFaultOffRequest, SwitchFaultOnRequest,
    admin_service_client::AdminServiceClient,
};
use serde::Serialize;
use tonic::Status;

use crate::{
    Outcome, args, ask,
    call::{
        self,
        target::{Channel, Target},
    },
    failure::Failure,
    output::{self, Format},
};

/// A fault that is on, as it is printed for programs.
#[derive(Debug, Serialize)]
struct Row {
    instance: String,
    pattern: String,
    delay_percent: f64,
    delay_ms: u64,
    fail_percent: f64,
    code: String,
    abort_percent: f64,
    drop_percent: f64,
    metadata: Option<String>,
    seconds_left: u64,
    #[serde(skip)]
    what: String,
}

pub(crate) async fn run(args: args::Fault) -> Outcome {
    let reports = ask::running().await?;
    let answers = ask::each(&args.name, &reports, async |channel, row| {
        let faults = change(&mut AdminServiceClient::new(channel), &args).await;
        let faults = faults.map_err(|status| call::failure(&status))?;
        let faults = faults.into_iter();
        Ok(faults.map(|fault| on(&row.instance, fault)).collect())
    });
    let answers = answers.await?;
    match args.output {
        Format::Json => output::json(&answers.rows),
        Format::Human if answers.rows.is_empty() => answers.note("no fault is switched on"),
        Format::Human => output::line(&table(&answers.rows)),
    }
    answers.exit()
}

/// Asks the process whose side port is at `side_address`.
async fn at<T>(
    side_address: &str,
    ask: impl AsyncFnOnce(&mut AdminServiceClient<Channel>) -> Result<T, Status>,
) -> Result<T, Failure> {
    let target = Target::at(side_address, None)?;
    let answer = ask(&mut AdminServiceClient::new(target.channel.clone())).await;
    target.close().await;
    answer.map_err(|status| call::failure(&status))
}

/// Switches a fault on in the process whose side port is at `side_address`.
pub(crate) async fn switch_on(side_address: &str, fault: Fault) -> Result<(), Failure> {
    let fault = Some(fault);
    at(side_address, async |admin| {
        let asked = admin.switch_fault_on(SwitchFaultOnRequest { fault });
        asked.await.map(drop)
    })
    .await
}

/// Switches the fault of `pattern` off there.
pub(crate) async fn switch_off(side_address: &str, pattern: &str) -> Result<(), Failure> {
    let pattern = pattern.to_owned();
    at(side_address, async |admin| {
        let asked = admin.switch_fault_off(SwitchFaultOffRequest { pattern });
        asked.await.map(drop)
    })
    .await
}

/// Does what is asked, and returns what is on then.
async fn change(
    admin: &mut AdminServiceClient<Channel>,
    args: &args::Fault,
) -> Result<Vec<Fault>, Status> {
    if args.off {
        let pattern = args.method.clone().unwrap_or_default();
        admin
            .switch_fault_off(SwitchFaultOffRequest { pattern })
            .await?;
    } else if let Some(fault) = wanted(args) {
        let fault = Some(fault);
        admin
            .switch_fault_on(SwitchFaultOnRequest { fault })
            .await?;
    }
    let on = admin.list_faults(ListFaultsRequest {}).await?;
    Ok(on.into_inner().faults)
}

/// The fault that is asked for; none where none is.
fn wanted(args: &args::Fault) -> Option<Fault> {
    let asked = [args.fail, args.abort, args.drop];
    if args.delay.is_none() && asked.iter().all(Option::is_none) {
        return None;
    }
    Some(Fault {
        pattern: args.method.clone().unwrap_or_else(|| "*".to_owned()),
        delay_percent: args.delay.map_or(0.0, |_| args.delay_percent),
        delay: args.delay.and_then(|delay| delay.try_into().ok()),
        fail_percent: args.fail.unwrap_or_default(),
        code: args.code.clone().unwrap_or_default(),
        abort_percent: args.abort.unwrap_or_default(),
        drop_percent: args.drop.unwrap_or_default(),
        metadata: args.metadata.clone().unwrap_or_default(),
        left: args.time.try_into().ok(),
    })
}

fn on(instance: &str, fault: Fault) -> Row {
    let what = in_words(&fault);
    Row {
        instance: instance.to_owned(),
        pattern: fault.pattern,
        delay_percent: fault.delay_percent,
        delay_ms: milliseconds(fault.delay),
        fail_percent: fault.fail_percent,
        code: fault.code,
        abort_percent: fault.abort_percent,
        drop_percent: fault.drop_percent,
        metadata: Some(fault.metadata).filter(|metadata| !metadata.is_empty()),
        seconds_left: time(fault.left).as_secs(),
        what,
    }
}

fn time(time: Option<prost_types::Duration>) -> Duration {
    let time = time.and_then(|time| Duration::try_from(time).ok());
    time.unwrap_or_default()
}

fn milliseconds(delay: Option<prost_types::Duration>) -> u64 {
    u64::try_from(time(delay).as_millis()).unwrap_or(u64::MAX)
}

/// What is on, for people.
fn table(rows: &[Row]) -> String {
    let heading = ["INSTANCE", "CALLS", "FAULT", "OF", "LEFT"];
    let rows: Vec<_> = rows
        .iter()
        .map(|row| {
            let of = row.metadata.as_deref().unwrap_or("all callers");
            [
                row.instance.clone(),
                row.pattern.clone(),
                row.what.clone(),
                of.to_owned(),
                format!("{}s", row.seconds_left),
            ]
        })
        .collect();
    output::table(heading, &rows)
}

/// What a fault does to calls, for people.
pub(crate) fn in_words(fault: &Fault) -> String {
    let delay = format!("{} ms late", milliseconds(fault.delay));
    let code = match &*fault.code {
        "" => status::code_name(tonic::Code::Unavailable),
        code => code,
    };
    let parts = [
        (fault.delay_percent, &*delay),
        (fault.fail_percent, code),
        (fault.abort_percent, "broken off"),
        (fault.drop_percent, "not answered"),
    ];
    let parts = parts.iter().filter(|(percent, _)| *percent > 0.0);
    let parts: Vec<_> = parts
        .map(|(percent, what)| format!("{percent} % {what}"))
        .collect();
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: people see what calls meet, in words.
    /// Method: two faults of one instance.
    #[test]
    fn faults_are_shown_in_words() {
        let fault = |pattern: &str, delay_percent, fail_percent, metadata: &str| Fault {
            pattern: pattern.to_owned(),
            delay_percent,
            delay: Duration::from_millis(200).try_into().ok(),
            fail_percent,
            code: "INTERNAL".to_owned(),
            metadata: metadata.to_owned(),
            left: Duration::from_secs(59).try_into().ok(),
            ..Fault::default()
        };
        let rows = [
            on("payments-2", fault("a.B/C", 100.0, 12.5, "")),
            on("payments-2", fault("*", 0.0, 50.0, "user-agent: x")),
        ];
        let expected = "INSTANCE    CALLS  FAULT                               OF             LEFT\n\
                        payments-2  a.B/C  100 % 200 ms late, 12.5 % INTERNAL  all callers    59s\n\
                        payments-2  *      50 % INTERNAL                       user-agent: x  59s";
        assert_eq!(expected, table(&rows));
    }
}
