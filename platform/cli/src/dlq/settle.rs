//! `gantry dlq redrive` and `gantry dlq drop`: letters put back, or away for good.

use std::{io::IsTerminal as _, pin::pin};

use gantry_events::{
    broker::{BrokerError, DeadLetter},
    dead::{self, Chosen, Walk},
};
use serde::Serialize;
use tokio::signal;

use super::list::of;
use crate::{
    Outcome,
    args::{DlqDrop, DlqRedrive, Meant},
    broker::Reached,
    failure::{Exit, Failure},
    output::{self, Format},
};

/// What became of letters, as it is printed for programs.
#[derive(Debug, Default, Serialize)]
struct Settled {
    /// How many were put back, or dropped.
    done: u64,
    /// Somebody else settled these meanwhile.
    gone: u64,
    /// They went back too often before.
    left: u64,
    /// Names that no letter has.
    missing: Vec<String>,
}

pub(super) async fn redrive(reached: &Reached, args: &DlqRedrive) -> Outcome {
    let (group, chosen) = (&args.meant.group, chosen(&args.meant));
    let walk = Walk::begin(&*reached.broker, group, &chosen).await;
    let walk = walk.map_err(|error| reached.failure(&error))?;
    let walk = walk.paced(args.rate);
    let (done, exit) = each(reached, walk, "redriven", async |letter| {
        dead::redrive(&*reached.broker, group, letter, args.redriven_max).await
    })
    .await?;
    let why = "went back as often as it may; see --redriven-max";
    finish(&done, "redriven", why, args.output, exit)
}

pub(super) async fn drop(reached: &Reached, args: &DlqDrop) -> Outcome {
    let (group, chosen) = (&args.meant.group, chosen(&args.meant));
    let walk = Walk::begin(&*reached.broker, group, &chosen).await;
    let mut walk = walk.map_err(|error| reached.failure(&error))?;
    if !args.yes {
        let mut count = 0_u64;
        while walk
            .next()
            .await
            .map_err(|error| reached.failure(&error))?
            .is_some()
        {
            count += 1;
        }
        let text = format!(
            "{} for good; add --yes to do it",
            letters(count, "would be dropped")
        );
        return Err(Failure::usage(text));
    }
    let (done, exit) = each(reached, walk, "dropped", async |letter| {
        dead::discard(&*reached.broker, group, letter).await
    })
    .await?;
    finish(&done, "dropped", "", args.output, exit)
}

fn chosen(meant: &Meant) -> Chosen {
    Chosen {
        names: meant.letters.iter().cloned().collect(),
        ..of(&meant.filter)
    }
}

/// Settles each letter of a walk; a signal ends it after the one at hand.
async fn each(
    reached: &Reached,
    mut walk: Walk<'_>,
    what: &str,
    settle: impl AsyncFn(&DeadLetter) -> Result<dead::Outcome, BrokerError>,
) -> Result<(Settled, Exit), Failure> {
    let mut done = Settled::default();
    let shown = std::io::stderr().is_terminal();
    let mut interrupted = pin!(signal::ctrl_c());
    let mut exit = Exit::Fine;
    let failure = loop {
        let next = tokio::select! {
            biased;
            _ = &mut interrupted => {
                exit = Exit::Interrupted;
                break None;
            }
            next = walk.next() => next,
        };
        let letter = match next {
            Ok(Some(letter)) => letter,
            Ok(None) => break None,
            Err(error) => break Some(error),
        };
        match settle(&letter).await {
            Ok(dead::Outcome::Done) => done.done += 1,
            Ok(dead::Outcome::Gone) => done.gone += 1,
            Ok(dead::Outcome::TooOften) => done.left += 1,
            Err(error) => break Some(error),
        }
        if shown {
            output::rewrite(&letters(done.done, what));
        }
    };
    if shown {
        output::rewrite("");
    }
    if let Some(error) = failure {
        // What was done stays done, and is told.
        output::note(&letters(done.done, what));
        return Err(reached.failure(&error));
    }
    if exit == Exit::Fine {
        done.missing = walk.missing().map(ToString::to_string).collect();
    }
    Ok((done, exit))
}

/// Tells what became of letters; fails where one that was meant stays, or is none.
fn finish(done: &Settled, what: &str, why_left: &str, format: Format, exit: Exit) -> Outcome {
    match format {
        Format::Json => output::json(done),
        Format::Human => {
            output::line(&letters(done.done, what));
            if done.gone > 0 {
                output::line(&letters(done.gone, "gone already"));
            }
            if done.left > 0 {
                output::line(&format!("{}: each {why_left}", letters(done.left, "left")));
            }
        }
    }
    if !done.missing.is_empty() {
        let names = done.missing.join(", ");
        return Err(Failure::failed(format!("no such dead letter: {names}")));
    }
    match (exit, done.left) {
        (Exit::Fine, 1..) => Ok(Exit::Failed),
        _ => Ok(exit),
    }
}

fn letters(count: u64, what: &str) -> String {
    format!("{} {what}", output::counted(count, "letter"))
}
