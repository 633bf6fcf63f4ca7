//! `gantry ls`: who is registered.

use crate::{
    Outcome,
    access::Access,
    args::{EtcdOptions, Ls},
    failure::{Exit, Failure},
    here,
    output::{self, Format},
    registry::{self, Row},
    supervisor::control,
};

pub(crate) async fn run(args: Ls) -> Outcome {
    let access = access(&args.etcd).await?;
    let rows = registry::list(&access, args.name.as_deref()).await?;
    // A name may go on after a slash.
    let wanted = |row: &Row| args.name.as_ref().is_none_or(|name| row.service == *name);
    let rows: Vec<_> = rows.into_iter().filter(wanted).collect();
    match args.output {
        Format::Json => output::json(&rows),
        Format::Human if rows.is_empty() => output::note("nobody is registered"),
        Format::Human => output::line(&table(&rows)),
    }
    Ok(Exit::Fine)
}

/// How etcd is reached: as given, or as the running `up` has it.
pub(crate) async fn access(given: &EtcdOptions) -> Result<Access, Failure> {
    if let Some(given) = Access::given(given)? {
        return Ok(given);
    }
    let (_, state) = here()?;
    let known = control::servers(&state).await?;
    let known = known.map(|servers| servers.etcd);
    known.ok_or_else(|| {
        Failure::failed("no `gantry up` runs here to know its etcd; name one with --etcd URL")
    })
}

fn table(rows: &[Row]) -> String {
    let heading = ["SERVICE", "INSTANCE", "ADDRESS", "TTL", "VERSION", "ZONE"];
    let rows: Vec<_> = rows
        .iter()
        .map(|row| {
            let said = |key: &str| row.metadata.get(key).and_then(|it| it.as_str());
            let ttl = row.lease_ttl_seconds.map(|ttl| format!("{ttl}s"));
            [
                row.service.clone(),
                row.instance.clone(),
                row.address.clone(),
                ttl.unwrap_or_else(|| "-".to_owned()),
                said("version").unwrap_or("-").to_owned(),
                said("zone").unwrap_or("-").to_owned(),
            ]
        })
        .collect();
    output::table(heading, &rows)
}
