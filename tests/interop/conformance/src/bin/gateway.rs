//! The gateway under test, before the suite's service: reads what to be from standard input, says
//! where it listens, and serves until it is ended.

use std::{collections::BTreeMap, error::Error, io::Write as _, process::ExitCode, sync::Arc};

use gantry::{
    app::{App, Identity, testing::Service},
    discovery::Directory,
    status,
};
use gantry_conformance::{
    proto::{
        ServerCompatRequest, ServerCompatResponse,
        conformance_service_server::ConformanceServiceServer,
    },
    service::Conformance,
    wire,
};
use tempfile::TempDir;
use tokio::sync::watch;

const SERVICE: &str = "connectrpc.conformance.v1.ConformanceService";

#[tokio::main]
async fn main() -> ExitCode {
    match serve().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Standard output is the runner's.
            drop(writeln!(std::io::stderr(), "{}", status::chain(&*error)));
            ExitCode::FAILURE
        }
    }
}

async fn serve() -> Result<(), Box<dyn Error>> {
    let asked: ServerCompatRequest = wire::read(&mut tokio::io::stdin())
        .await?
        .ok_or("nothing was asked")?;
    let folder = tempfile::tempdir()?;
    let limits = limits(&asked);
    let behind = Service::start(
        identity("conformance"),
        &limits,
        async |app: &mut App<()>| {
            app.serve(ConformanceServiceServer::new(Conformance));
            Ok(())
        },
    );
    let behind = behind.await.map_err(|error| error.to_string())?;
    let services = BTreeMap::from([(SERVICE.into(), "conformance".into())]);
    let (_registered, services) = watch::channel(Some(Arc::new(services)));
    let settings = settings(&asked, &folder)?;
    let settings = format!(
        "{settings}{limits}[clients.conformance]\ntarget = '{}'\n",
        behind.address()
    );
    let directory = Directory::following(services);
    let gateway = Service::start(identity("gateway"), &settings, async move |app| {
        gateway::serve(app, directory)
    });
    let gateway = gateway.await.map_err(|error| error.to_string())?;
    let address = gateway.address();
    let answer = ServerCompatResponse {
        host: address.ip().to_string(),
        port: address.port().into(),
        pem_cert: asked.server_creds.map(|it| it.cert).unwrap_or_default(),
    };
    wire::write(&mut tokio::io::stdout(), &answer).await?;
    gateway.stopped().await;
    Ok(())
}

fn identity(name: &'static str) -> Identity {
    Identity {
        name,
        version: env!("CARGO_PKG_VERSION"),
        description: env!("CARGO_PKG_DESCRIPTION"),
    }
}

/// The runner's certificate where it wants TLS, and its bound of messages.
fn settings(asked: &ServerCompatRequest, folder: &TempDir) -> Result<String, Box<dyn Error>> {
    let mut settings = String::new();
    if asked.use_tls {
        let credentials = asked.server_creds.as_ref();
        let credentials = credentials.ok_or("TLS without a certificate")?;
        let file = |name: &str, text: &[u8]| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).map(|()| path.display().to_string())
        };
        let certificate = file("certificate.pem", &credentials.cert)?;
        let key = file("key.pem", &credentials.key)?;
        settings.extend([format!(
            "[listen]\ncertificate = '{certificate}'\nkey = '{key}'\n"
        )]);
        if !asked.client_tls_cert.is_empty() {
            let authority = file("client-ca.pem", &asked.client_tls_cert)?;
            settings.extend([format!("client_ca = '{authority}'\n")]);
        }
    }
    if asked.message_receive_limit > 0 {
        let limit = asked.message_receive_limit;
        settings.extend([format!("[http]\nbody_max = '{limit}B'\n")]);
    }
    Ok(settings)
}

/// The runner's bound of messages, for both: what a compressed one grows to is seen behind alone.
fn limits(asked: &ServerCompatRequest) -> String {
    match asked.message_receive_limit {
        0 => String::new(),
        limit => format!("[limits]\nreceive_message_max = '{limit}B'\n"),
    }
}
