//! The `delivery` program: proves by faults that no event is lost, and that none has its effect twice.

use std::{
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use clap::{Args, Parser, Subcommand};
use gantry_delivery::{Combination, Harm, Plan, Scale};
use gantry_harness::tools;

/// How many times as fast three instances are to be.
const RATIO_MIN: f64 = 2.5;

/// Which share of the work each of them is to have done.
const SHARE_MIN: f64 = 0.2;

/// Proves by faults that no event is lost on its way, and that none has its effect twice.
///
/// Ends with 0 where nothing was found, and 1 where something was, or could not be run.
#[derive(Debug, Parser)]
#[command(name = "delivery", version)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Runs a service with real servers, and kills and stops it and them, one thing after the other.
    ///
    /// A round is one history in which everything is done that there is to do, in an order that its seed
    /// decides; it is judged once all has come to rest. What is known of a round that is not good is
    /// kept, and its place is printed with its seed.
    Real(Real),
    /// Measures how much faster three instances of a consumer are than one, where a handler waits.
    ///
    /// It is wrong that one of the three does less than a fifth of the work; with `TESTS_TIMED` also that
    /// they are not two and a half times as fast, in the middle of all turns.
    Scale(ScaleArguments),
    /// Runs the outbox, the relay and the consumer with a broker in memory, in this process and on a
    /// clock that stands still: thousands of runs, each of a seed of its own.
    ///
    /// The history of a run that is not good is kept, and its place is printed with its seed.
    #[cfg(feature = "model")]
    Model(Model),
}

#[cfg(feature = "model")]
#[derive(Debug, Args)]
struct Model {
    /// How many runs
    #[arg(long, default_value_t = 1_000, conflicts_with = "seed")]
    seeds: u64,
    /// The first seed; the others follow it
    #[arg(long, conflicts_with = "seed")]
    first: Option<u64>,
    /// The run of this seed alone, with all that happens in it
    #[arg(long)]
    seed: Option<u64>,
    /// How many at once
    #[arg(long, default_value_t = 3)]
    threads: usize,
}

#[derive(Debug, Args)]
struct ScaleArguments {
    /// On which broker and database
    #[arg(long, value_name = "BROKER+DATABASE", default_value = "local+sqlite")]
    on: Combination,
    /// Events that each process handles at once
    #[arg(long, default_value_t = 4)]
    handlers_max: usize,
    /// Events that are there to be consumed each time
    #[arg(long, default_value_t = 2_000)]
    events: u64,
    /// How often one instance and three take turns at it
    #[arg(long, default_value = "3", value_parser = clap::value_parser!(u8).range(1..))]
    turns: u8,
}

#[derive(Debug, Args)]
struct Real {
    /// On which broker and database; given several times, on all of them at once
    #[arg(long, value_name = "BROKER+DATABASE", default_value = "local+sqlite")]
    on: Vec<Combination>,
    /// How many rounds on each
    #[arg(long, default_value_t = 1, conflicts_with = "seed")]
    seeds: u64,
    /// One round, with this seed
    #[arg(long)]
    seed: Option<u64>,
    /// Only this is done
    #[arg(long, value_name = "NAME", value_parser = harm)]
    only: Vec<Harm>,
    /// How long the broker stands still; tests/run --soak takes 30s
    #[arg(long, value_name = "TIME", default_value = "6s", value_parser = humantime::parse_duration)]
    stop: Duration,
    /// Where what is known of each round is kept; a new folder where it is not said
    #[arg(long)]
    folder: Option<PathBuf>,
    /// A file for the table of what was done and what came of it, which is printed in any case
    #[arg(long, value_name = "FILE")]
    matrix: Option<PathBuf>,
}

fn harm(name: &str) -> Result<Harm, String> {
    let known = || {
        let names: Vec<_> = Harm::all().into_iter().map(Harm::name).collect();
        format!("expected one of {}", names.join(", "))
    };
    Harm::named(name).ok_or_else(known)
}

fn main() -> ExitCode {
    let good = match Arguments::parse().verb {
        Verb::Real(real) => run(real),
        Verb::Scale(scale) => measure(&scale),
        #[cfg(feature = "model")]
        Verb::Model(model) => modelled(&model),
    };
    match good {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            say(&format!("error: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn run(real: Real) -> io::Result<bool> {
    if !cfg!(feature = "crash-points") {
        let missing = "this program was built without crash points, so nothing ends where it is to end: \
                       build it with --all-features";
        return Err(io::Error::other(missing));
    }
    let folder = match real.folder {
        Some(folder) => folder,
        None => tempfile::Builder::new()
            .prefix("gantry-delivery-")
            .tempdir()?
            .keep(),
    };
    let seeds = match real.seed {
        Some(seed) => vec![seed],
        None => (0..real.seeds).map(|_| fastrand::u64(..)).collect(),
    };
    let plan = Plan {
        on: real.on,
        harms: if real.only.is_empty() {
            Harm::all()
        } else {
            real.only
        },
        seeds,
        stop: real.stop,
        folder: folder.clone(),
        matrix: real.matrix,
    };
    let matrix = plan.run()?;
    say(&matrix.to_string());
    if matrix.is_good() {
        // Empty but for what the servers kept.
        drop(std::fs::remove_dir_all(folder));
    }
    Ok(matrix.is_good())
}

#[cfg(feature = "model")]
fn modelled(model: &Model) -> io::Result<bool> {
    use gantry_delivery::model;
    if let Some(seed) = model.seed {
        return model::replay(seed);
    }
    let plan = model::Plan {
        first: model.first.unwrap_or_else(|| fastrand::u64(..1 << 53)),
        seeds: model.seeds,
        threads: model.threads,
    };
    plan.run()
}

#[tokio::main]
async fn measure(arguments: &ScaleArguments) -> io::Result<bool> {
    let folder = tempfile::Builder::new()
        .prefix("gantry-delivery-")
        .tempdir()?;
    let scale = Scale {
        on: arguments.on,
        handlers_max: arguments.handlers_max,
        events: arguments.events,
        turns: arguments.turns.into(),
        folder: folder.path().to_owned(),
    };
    let Some(scaled) = scale.run().await? else {
        return Ok(true);
    };
    say(&format!("{}: {scaled}", arguments.on));
    if scaled.least() < SHARE_MIN {
        say("FAULTY: one of three did less than a fifth of the work");
        return Ok(false);
    }
    if tools::timed() && scaled.ratio() < RATIO_MIN {
        say("FAULTY: three are not 2.5 times as fast as one");
        return Ok(false);
    }
    Ok(true)
}

fn say(text: &str) {
    drop(writeln!(io::stdout().lock(), "{text}"));
}
