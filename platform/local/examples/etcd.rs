//! Serves the local etcd alone: `cargo run -p gantry-local --example etcd -- ADDRESS FOLDER`.
//!
//! Says on its standard output where it listens, once it does. Tests kill and freeze it.

use std::{env::args, error::Error, io::Write as _, process::ExitCode};

use gantry::{journal::Journal, shutdown::Tasks};
use gantry_local::etcd::{Config, Data, Etcd, Listen};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let Err(error) = run().await else {
        return ExitCode::SUCCESS;
    };
    let mut line = format!("etcd: {error}");
    let mut source = error.source();
    while let Some(error) = source {
        line += ": ";
        line += &error.to_string();
        source = error.source();
    }
    // Nobody may listen.
    let _ = writeln!(std::io::stderr(), "{line}");
    ExitCode::FAILURE
}

async fn run() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<_> = args().skip(1).collect();
    let [address, folder] = arguments.as_slice() else {
        return Err("usage: etcd ADDRESS FOLDER".into());
    };
    let etcd = Etcd::open(Config {
        listen: Listen::Address(address.parse()?),
        data: Data::Folder(folder.into()),
        ..Config::default()
    })?;
    writeln!(std::io::stdout(), "{}", etcd.handle().address())?;
    etcd.run(Tasks::new(Journal::new())).await?;
    Ok(())
}
