//! The `audit` program: looks at the books of a running shop, and says what does not add up.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::{Parser, ValueEnum};
use gantry::{BoxError, status};
use gantry_store::Url;
use shop_audit::{Bank, Places, Report, Shelves, Sources};

/// Some things do not add up.
const FAULTY: u8 = 1;
/// The books could not be looked at; clap ends with the same for a wrong command line.
const UNSEEN: u8 = 2;

/// Compares the books of a running shop, and says what does not add up.
///
/// Every order must be confirmed or cancelled. What is confirmed was charged by the bank once, with
/// its total, and has left the shelves; what is cancelled was given back. No money and no stock is
/// gone for an order that nobody knows. Nothing is changed, and the shop may be at work: orders on
/// their way are waited for, and those that come meanwhile are left alone.
///
/// Ends with 0 where everything adds up, 1 where something does not, and 2 where it cannot be seen.
#[derive(Debug, Parser)]
#[command(
    name = "audit",
    version,
    after_help = "\
Examples:
  audit --bank 127.0.0.1:34567               the shop that `gantry up` runs here; `gantry ps` shows
                                             the address of its bank
  audit --bank 127.0.0.1:34567 --output json > before.json
  audit --bank 127.0.0.1:34567 --since before.json
                                             whether units went missing in between; deliveries show, too
  audit --bank bank:8090 --database postgres://me@db/shop
                                             the shop of gantry up --database"
)]
struct Arguments {
    /// Where the bank answers: HOST:PORT or http://HOST:PORT
    #[arg(long, value_name = "ADDRESS")]
    bank: Bank,
    /// The folder with the SQLite files of the services
    #[arg(long, value_name = "FOLDER", default_value = ".gantry/data")]
    data: PathBuf,
    /// The PostgreSQL database in which each service has a schema of its own, in place of files; its
    /// password is best in PGPASSWORD or a .pgpass file
    #[arg(long, value_name = "URL", conflicts_with = "data")]
    database: Option<String>,
    /// The database of orders, where it is neither of these: sqlite:PATH or postgres://…
    #[arg(long, value_name = "URL")]
    orders: Option<String>,
    /// The same of payments
    #[arg(long, value_name = "URL")]
    payments: Option<String>,
    /// The same of the catalog
    #[arg(long, value_name = "URL")]
    catalog: Option<String>,
    /// How long orders may take to be confirmed or cancelled
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    wait: Duration,
    /// An earlier report of --output json: what was on the shelves then is there or was sold
    #[arg(long, value_name = "FILE")]
    since: Option<PathBuf>,
    /// Print tables, or one line of JSON: faults, orders, money, charges, shelves
    #[arg(long, value_enum, default_value_t = Format::Human)]
    output: Format,
}

/// How the report is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Aligned, for people.
    Human,
    /// For programs.
    Json,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => FAULTY.into(),
        Err(error) => {
            let why = status::chain(&*error);
            drop(writeln!(io::stderr().lock(), "error: {why}"));
            UNSEEN.into()
        }
    }
}

/// Looks, prints, and answers whether everything adds up.
async fn run(arguments: Arguments) -> Result<bool, BoxError> {
    let since = arguments.since.as_deref().map(shelves_of).transpose()?;
    let (wait, output) = (arguments.wait, arguments.output);
    let sources = Sources::open(places(arguments)?).await?;
    let report = Report::of(&sources.settled(wait).await?, since);
    let text = match output {
        Format::Human => report.to_string(),
        Format::Json => serde_json::to_string(&report)?,
    };
    // A reader that went away is no fault of the books.
    drop(writeln!(io::stdout().lock(), "{text}"));
    Ok(report.is_good())
}

fn shelves_of(path: &Path) -> Result<Shelves, BoxError> {
    let shown = path.display();
    let json = fs::read(path).map_err(|error| format!("--since {shown}: {error}"))?;
    Report::shelves_of(&json).map_err(|error| {
        format!("--since {shown}: expected a report of audit --output json: {error}").into()
    })
}

fn places(arguments: Arguments) -> Result<Places, BoxError> {
    let bank = arguments.bank;
    let places = match arguments.database {
        Some(text) => Places::in_database(&url("--database", &text)?, bank)
            .map_err(|error| format!("--database: {error}"))?,
        None => Places::in_folder(&arguments.data, bank),
    };
    let or = |option: &str, text: Option<String>, place: Url| match text {
        Some(text) => url(option, &text),
        None => Ok(place),
    };
    Ok(Places {
        orders: or("--orders", arguments.orders, places.orders)?,
        payments: or("--payments", arguments.payments, places.payments)?,
        catalog: or("--catalog", arguments.catalog, places.catalog)?,
        bank: places.bank,
    })
}

/// The address of a database. Its text is never repeated: it may hold a password.
fn url(option: &str, text: &str) -> Result<Url, BoxError> {
    let url = text.parse::<Url>();
    url.map_err(|error| format!("{option}: {error}").into())
}
