//! A service the tests of `gantry up` run: healthy, or misbehaving as its environment says.
//!
//! `ECHO_REFUSE` refuses its configuration at start, `ECHO_STUBBORN` ignores SIGTERM,
//! `ECHO_SICK_FILE` names a file that makes it `NOT_SERVING` while it exists, `ECHO_REFUSE_FILE` one
//! that makes it refuse its configuration if it exists at start.

#![allow(clippy::print_stdout, reason = "what it prints is what is tested")]

mod echo;

use std::{convert::Infallible, env, net::SocketAddr, path::Path, process::ExitCode};

use echo::Echo;
use gantry::BoxError;
use http::{Request, Response, StatusCode};
use http_body_util::Empty;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    time::{self, Duration},
};
use tonic::transport::Server;

fn main() -> ExitCode {
    if setting("ECHO_REFUSE").is_some() || exists("ECHO_REFUSE_FILE") {
        eprintln!("echo.refuse: nobody may be echoed");
        return ExitCode::from(2);
    }
    if env::args().any(|argument| argument == "--print-config") {
        println!("[echo]");
        return ExitCode::SUCCESS;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    match runtime.block_on(serve()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "a program for tests has no config module"
)]
fn setting(key: &str) -> Option<String> {
    env::var(key).ok()
}

/// Whether the file named in `key` exists.
fn exists(key: &str) -> bool {
    setting(key).is_some_and(|file| Path::new(&file).exists())
}

fn address(key: &str) -> Result<SocketAddr, BoxError> {
    let text = setting(key).ok_or_else(|| format!("{key} is not set"))?;
    Ok(text.parse()?)
}

async fn serve() -> Result<(), BoxError> {
    let mut terminate = signal(SignalKind::terminate())?;
    let listen = address("GANTRY_LISTEN__ADDRESS")?;
    let side = TcpListener::bind(address("GANTRY_ADMIN__ADDRESS")?).await?;
    let descriptors = echo::descriptors();
    let v1 = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(&descriptors)
        .build_v1()?;
    let (reporter, health) = tonic_health::server::health_reporter();
    let service = Echo::new(setting("ECHO_NAME").unwrap_or_default());
    println!(
        "echo listens on {listen}, targets {:?}",
        setting("GANTRY_CLIENTS__BACK__TARGET")
    );

    let told = async move {
        terminate.recv().await;
        println!("echo was told to end");
        if setting("ECHO_STUBBORN").is_some() {
            std::future::pending::<()>().await;
        }
    };
    let served = echo::Served {
        echo: service,
        reflection: v1,
        health,
    };
    let serving = Server::builder().serve_with_shutdown(listen, served, told);
    tokio::select! {
        ended = serving => Ok(ended?),
        ended = answer_side(side) => ended,
        () = follow_health(reporter) => Ok(()),
    }
}

/// Sets gRPC health by the file named in `ECHO_SICK_FILE`.
async fn follow_health(reporter: tonic_health::server::HealthReporter) {
    loop {
        let status = if exists("ECHO_SICK_FILE") {
            tonic_health::ServingStatus::NotServing
        } else {
            tonic_health::ServingStatus::Serving
        };
        reporter.set_service_status("", status).await;
        time::sleep(Duration::from_millis(20)).await;
    }
}

/// Answers `/readyz`.
async fn answer_side(listener: TcpListener) -> Result<(), BoxError> {
    loop {
        let (stream, _) = listener.accept().await?;
        let answer = service_fn(async |request: Request<Incoming>| {
            let mut response = Response::new(Empty::<bytes::Bytes>::new());
            if request.uri().path() != "/readyz" {
                *response.status_mut() = StatusCode::NOT_FOUND;
            }
            Ok::<_, Infallible>(response)
        });
        let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), answer);
        // One after the other is enough for a supervisor that looks once a second.
        drop(time::timeout(Duration::from_secs(1), connection).await);
    }
}
