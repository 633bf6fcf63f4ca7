//! The local broker alone: `delivery-broker ADDRESS FOLDER`.
//!
//! Says on its standard output where it listens, once it does. The driver kills and stops it.

use std::{env::args, error::Error, io::Write as _, process::ExitCode};

use gantry::{journal::Journal, shutdown::Tasks, status::chain};
use gantry_local::broker::{Broker, Config, Data, Listen};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody may listen.
            drop(writeln!(
                std::io::stderr(),
                "delivery-broker: {}",
                chain(&*error)
            ));
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<_> = args().skip(1).collect();
    let [address, folder] = arguments.as_slice() else {
        return Err("usage: delivery-broker ADDRESS FOLDER".into());
    };
    let broker = Broker::open(Config {
        listen: Listen::Address(address.parse()?),
        data: Data::Folder(folder.into()),
        ..Config::default()
    })?;
    writeln!(std::io::stdout(), "{}", broker.handle().address())?;
    broker.run(Tasks::new(Journal::new())).await?;
    Ok(())
}
