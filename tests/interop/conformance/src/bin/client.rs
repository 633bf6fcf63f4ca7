//! The client under test: makes the calls that come over standard input and tells what came of
//! each over standard output.

use std::{collections::BTreeMap, error::Error, io::Write as _, process::ExitCode, sync::Arc};

use gantry::{
    client::{Channel, Clients, Config, Tls},
    journal::Journal,
    shutdown::Tasks,
    status,
};
use gantry_conformance::{
    invoke,
    proto::{
        ClientCompatRequest, ClientCompatResponse, ClientErrorResult,
        client_compat_response::Result as Told,
    },
    wire,
};
use tempfile::TempDir;
use tokio::{
    io::Stdout,
    sync::{Mutex, Semaphore},
    task::JoinSet,
};

/// Calls made at once.
const CALLS_MAX: usize = 16;

#[tokio::main]
async fn main() -> ExitCode {
    match call_all().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Standard output is the runner's.
            drop(writeln!(std::io::stderr(), "{}", status::chain(&*error)));
            ExitCode::FAILURE
        }
    }
}

async fn call_all() -> Result<(), Box<dyn Error>> {
    let mut input = tokio::io::stdin();
    let output = Arc::new(Mutex::new(tokio::io::stdout()));
    let places = Arc::new(Semaphore::new(CALLS_MAX));
    let mut calls = JoinSet::new();
    while let Some(asked) = wire::read::<ClientCompatRequest>(&mut input).await? {
        let place = Arc::clone(&places).acquire_owned().await?;
        let output = Arc::clone(&output);
        calls.spawn(async move {
            let told = call(&asked).await;
            drop(place);
            tell(&output, asked.test_name, told).await
        });
        while let Some(ended) = calls.try_join_next() {
            ended??;
        }
    }
    while let Some(ended) = calls.join_next().await {
        ended??;
    }
    Ok(())
}

async fn tell(output: &Mutex<Stdout>, test_name: String, told: Told) -> std::io::Result<()> {
    let answer = ClientCompatResponse {
        test_name,
        result: Some(told),
    };
    wire::write(&mut *output.lock().await, &answer).await
}

async fn call(asked: &ClientCompatRequest) -> Told {
    let made = async {
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let channel = channel(asked, &folder).map_err(|error| error.to_string())?;
        invoke::invoke(channel, asked).await
    };
    match made.await {
        Ok(result) => Told::Response(result),
        Err(message) => Told::Error(ClientErrorResult { message }),
    }
}

/// A channel of its own for each call, as the runner starts a server for each.
fn channel(asked: &ClientCompatRequest, folder: &TempDir) -> Result<Channel, Box<dyn Error>> {
    let mut config = Config::to(format!("{}:{}", asked.host, asked.port));
    // The suite serves its own contract alone.
    config.health = false;
    let file = |name: &str, text: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).map(|()| path)
    };
    if !asked.server_tls_cert.is_empty() {
        let mut tls = Tls {
            ca: Some(file("ca.pem", &asked.server_tls_cert)?),
            ..Tls::default()
        };
        if let Some(credentials) = &asked.client_tls_creds {
            tls.certificate = Some(file("certificate.pem", &credentials.cert)?);
            tls.key = Some(file("key.pem", &credentials.key)?);
        }
        config.tls = Some(tls);
    }
    let configs = BTreeMap::from([("server".to_owned(), config)]);
    let journal = Journal::new();
    Ok(Clients::new(configs, Tasks::new(journal.clone()), journal).client("server"))
}
