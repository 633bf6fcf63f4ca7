//! `gantry ps`: the running instances.

use std::time::Duration;

use crate::{
    Outcome,
    args::Ps,
    failure::Exit,
    here,
    output::{self, Format},
    registrations,
    supervisor::{Report, Row, control},
};

pub(crate) async fn run(args: Ps) -> Outcome {
    let (_, state) = here()?;
    let mut reports = control::instances(&state).await?;
    if let Some(reports) = &mut reports {
        registrations::complete(reports).await;
    }
    match args.output {
        Format::Json => {
            let rows = reports.unwrap_or_default();
            let rows: Vec<Row> = rows.into_iter().map(|report| report.row).collect();
            output::json(&rows);
        }
        Format::Human => match reports {
            Some(reports) => output::line(&table(&reports)),
            None => output::note("nothing runs here; start it with `gantry up`"),
        },
    }
    Ok(Exit::Fine)
}

/// The instances for people.
pub(crate) fn table(reports: &[Report]) -> String {
    let rows: Vec<_> = reports.iter().map(cells).collect();
    let heading = [
        "NAME",
        "INSTANCE",
        "STATE",
        "REGISTRATION",
        "ADDRESS",
        "SIDE",
        "PID",
        "RESTARTS",
        "UP",
        "RSS",
        "",
    ];
    output::table(heading, &rows)
}

fn cells(report: &Report) -> [String; 11] {
    let row = &report.row;
    let wrong = match row.pid {
        None => report.ended.clone(),
        Some(_) => row.registration_error.clone(),
    };
    [
        row.name.clone(),
        row.instance.clone(),
        row.state.to_string(),
        row.registration.clone().unwrap_or_else(|| "-".to_owned()),
        row.address.clone(),
        row.side_address.clone(),
        row.pid
            .map_or_else(|| "-".to_owned(), |pid| pid.to_string()),
        row.restarts.to_string(),
        humantime::format_duration(Duration::from_secs(row.uptime_seconds)).to_string(),
        format!("{} MB", row.rss_bytes / 1_000_000),
        wrong.unwrap_or_default(),
    ]
}
