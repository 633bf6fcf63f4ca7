//! The local broker alone, with its file in a folder: `bench-broker FOLDER`.
//!
//! Prints its address, and ends with its input.

use std::{env::args, error::Error};

use gantry::{journal::Journal, shutdown::Tasks};
use gantry_bench::print;
use gantry_local::broker::{Broker, Config, Data};
use tokio::io::AsyncReadExt as _;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = args().nth(1).ok_or("usage: bench-broker FOLDER")?;
    let broker = Broker::open(Config {
        data: Data::Folder(folder.into()),
        ..Config::default()
    })?;
    print(broker.handle().address());
    let mut input = tokio::io::stdin();
    let mut read = Vec::new();
    // Neither is begun anew: what ends first ends the process.
    tokio::select! {
        ended = broker.run(Tasks::new(Journal::new())) => ended?,
        closed = input.read_to_end(&mut read) => drop(closed?),
    }
    Ok(())
}
