//! The server under test: reads what to be from standard input, says where it listens, and serves
//! until it is ended.

use std::{error::Error, io::Write as _, process::ExitCode};

use gantry::{
    config::Size,
    journal::Journal,
    server::{Router, Stack},
    shutdown::Tasks,
    status,
    transport::server::{Config, Limits, Listener, Protocols},
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
    let config = listening(&asked, &folder)?;
    let mut limits = Limits::default();
    if asked.message_receive_limit > 0 {
        limits.receive_message_max = Size::bytes(asked.message_receive_limit.into());
    }
    let limits = limits.live();
    let listener = Listener::bind(&config, limits.clone())?;
    let address = listener.handle().local_addr().ok_or("no address")?;
    let answer = ServerCompatResponse {
        host: address.ip().to_string(),
        port: address.port().into(),
        pem_cert: asked.server_creds.map(|it| it.cert).unwrap_or_default(),
    };
    wire::write(&mut tokio::io::stdout(), &answer).await?;
    let router = Router::new().add(ConformanceServiceServer::new(Conformance));
    listener
        .serve(
            Stack::new(router, limits),
            Protocols::Http2,
            Tasks::new(Journal::new()),
        )
        .await;
    Ok(())
}

/// Loopback, with the runner's certificate where it wants TLS.
fn listening(asked: &ServerCompatRequest, folder: &TempDir) -> Result<Config, Box<dyn Error>> {
    let mut config = Config::default();
    if !asked.use_tls {
        return Ok(config);
    }
    let credentials = asked
        .server_creds
        .as_ref()
        .ok_or("TLS without a certificate")?;
    let file = |name: &str, text: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).map(|()| path)
    };
    config.certificate = Some(file("certificate.pem", &credentials.cert)?);
    config.key = Some(file("key.pem", &credentials.key)?);
    if !asked.client_tls_cert.is_empty() {
        config.client_ca = Some(file("client-ca.pem", &asked.client_tls_cert)?);
    }
    Ok(config)
}
