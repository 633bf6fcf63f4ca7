//! The `delivery` program: proves by faults that no event is lost, and that none has its effect twice.

use std::{
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use clap::{Args, Parser, Subcommand};
use gantry_delivery::{BrokerKind, DatabaseKind, Harm, Plan, Row};

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
    /// Runs a service with real servers, and kills and stops it and them, one thing at a time.
    ///
    /// What is known of a round that is not good is kept, and its place is printed with its seed.
    Real(Real),
}

#[derive(Debug, Args)]
struct Real {
    /// On which broker
    #[arg(long, value_enum, default_value_t = BrokerKind::Local)]
    broker: BrokerKind,
    /// On which database
    #[arg(long, value_enum, default_value_t = DatabaseKind::Sqlite)]
    database: DatabaseKind,
    /// How many rounds of each kind
    #[arg(long, default_value_t = 1, conflicts_with = "seed")]
    seeds: u64,
    /// One round of each kind, with this seed
    #[arg(long)]
    seed: Option<u64>,
    /// Only these kinds of rounds
    #[arg(long, value_name = "NAME", value_parser = harm)]
    only: Vec<Harm>,
    /// How long the broker stands still
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    stop: Duration,
    /// Where what is known of each round is kept; a new folder where it is not said
    #[arg(long)]
    folder: Option<PathBuf>,
}

fn harm(name: &str) -> Result<Harm, String> {
    let known = || {
        let names: Vec<_> = Harm::all().into_iter().map(Harm::name).collect();
        format!("expected one of {}", names.join(", "))
    };
    Harm::named(name).ok_or_else(known)
}

#[tokio::main]
async fn main() -> ExitCode {
    let Verb::Real(real) = Arguments::parse().verb;
    match run(real).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            say(&format!("error: {error}"));
            ExitCode::FAILURE
        }
    }
}

async fn run(real: Real) -> io::Result<bool> {
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
        broker: real.broker,
        database: real.database,
        harms: if real.only.is_empty() {
            Harm::all()
        } else {
            real.only
        },
        seeds,
        stop: real.stop,
        folder: folder.clone(),
    };
    say(&Row::heading());
    let Some(rows) = plan.run().await? else {
        return Ok(true);
    };
    let good = rows.iter().all(Row::is_good);
    if good {
        // Empty but for what the servers kept.
        drop(std::fs::remove_dir_all(folder));
    }
    Ok(good)
}

fn say(text: &str) {
    drop(writeln!(io::stdout().lock(), "{text}"));
}
