//! `gantry fault`: has calls fail on purpose, sees which do, and ends it.

use std::time::Duration;

use gantry_api::admin::v1::{
    Fault, ListFaultsRequest, SwitchFaultOffRequest, SwitchFaultOnRequest,
    admin_service_client::AdminServiceClient,
};
use serde::Serialize;
use tonic::Status;

use crate::{
    Outcome, args,
    call::{
        self,
        target::{Channel, Target},
    },
    failure::{Exit, Failure},
    here,
    output::{self, Format},
    supervisor::control,
    wait,
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
}

pub(crate) async fn run(args: args::Fault) -> Outcome {
    let (_, state) = here()?;
    let reports = control::running(&state).await?;
    let mut rows = Vec::new();
    for report in wait::chosen(&args.name, &reports)? {
        let row = &report.row;
        let target = Target::at(&row.side_address, None)?;
        let faults = change(target.channel.clone(), &args).await;
        target.close().await;
        let faults = faults.map_err(|status| {
            let failure = call::failure(&status);
            Failure::new(failure.exit(), format!("{}: {failure}", row.instance))
        })?;
        rows.extend(faults.into_iter().map(|fault| on(&row.instance, fault)));
    }
    match args.output {
        Format::Json => output::json(&rows),
        Format::Human if rows.is_empty() => output::note("no fault is switched on"),
        Format::Human => output::line(&table(&rows)),
    }
    Ok(Exit::Fine)
}

/// Does what is asked, and returns what is on then.
async fn change(channel: Channel, args: &args::Fault) -> Result<Vec<Fault>, Status> {
    let mut admin = AdminServiceClient::new(channel);
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
    let time = |time: Option<prost_types::Duration>| {
        let time = time.and_then(|time| Duration::try_from(time).ok());
        time.unwrap_or_default()
    };
    let delay = time(fault.delay).as_millis();
    Row {
        instance: instance.to_owned(),
        pattern: fault.pattern,
        delay_percent: fault.delay_percent,
        delay_ms: u64::try_from(delay).unwrap_or(u64::MAX),
        fail_percent: fault.fail_percent,
        code: fault.code,
        abort_percent: fault.abort_percent,
        drop_percent: fault.drop_percent,
        metadata: Some(fault.metadata).filter(|metadata| !metadata.is_empty()),
        seconds_left: time(fault.left).as_secs(),
    }
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
                in_words(row),
                of.to_owned(),
                format!("{}s", row.seconds_left),
            ]
        })
        .collect();
    output::table(heading, &rows)
}

fn in_words(row: &Row) -> String {
    let delay = format!("{} ms late", row.delay_ms);
    let parts = [
        (row.delay_percent, delay),
        (row.fail_percent, row.code.clone()),
        (row.abort_percent, "broken off".to_owned()),
        (row.drop_percent, "not answered".to_owned()),
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
