//! `gantry events remove`: a group that nobody needs any more, away with all that it keeps.

use gantry_events::broker::Fill;
use serde::Serialize;

use crate::{
    Outcome,
    args::EventsRemove,
    broker::Reached,
    failure::{Exit, Failure},
    output::{self, Format, counted},
};

/// What is gone, as it is printed for programs.
#[derive(Debug, Serialize)]
struct Removed {
    group: String,
    ready: u64,
    delayed: u64,
    dead_letters: u64,
}

pub(super) async fn run(args: &EventsRemove) -> Outcome {
    let reached = Reached::find(&args.broker).await?;
    let removed = remove(&reached, args).await;
    reached.close().await;
    let removed = removed?;
    match args.output {
        Format::Json => output::json(&removed),
        Format::Human => output::line(&format!(
            "{} is gone, with {}",
            removed.group,
            removed.text()
        )),
    }
    Ok(Exit::Fine)
}

async fn remove(reached: &Reached, args: &EventsRemove) -> Result<Removed, Failure> {
    let failed = |error| reached.failure(&error);
    let fill = reached.broker.fill(&args.group).await.map_err(failed)?;
    let removed = Removed::of(&args.group, &fill);
    // Whoever begins to consume it from here on has it made again, and misses what is gone: nobody asks
    // for this of a group that is in use.
    if fill.consumers > 0 {
        return Err(Failure::usage(format!(
            "{} has {}: stop who consumes it first",
            args.group,
            counted(fill.consumers, "consumer"),
        )));
    }
    if !args.yes {
        return Err(Failure::usage(format!(
            "{} would be gone for good, with {}; add --yes to do it",
            args.group,
            removed.text()
        )));
    }
    reached.broker.remove(&args.group).await.map_err(failed)?;
    Ok(removed)
}

impl Removed {
    fn of(group: &str, fill: &Fill) -> Self {
        Self {
            group: group.to_owned(),
            ready: fill.ready.iter().sum::<u64>() + fill.unsettled + fill.strays,
            delayed: fill.delayed,
            dead_letters: fill.dead_letters,
        }
    }

    fn text(&self) -> String {
        let events = counted(self.ready + self.delayed, "event");
        let letters = counted(self.dead_letters, "dead letter");
        format!("{events} and {letters}")
    }
}
