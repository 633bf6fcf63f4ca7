//! How a running service ends.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{net::TcpStream, time::Instant};
use tonic::Code;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use super::probe::{IDENTITY, Probe, ends_with, hang, running};
use crate::{
    app::{App, BoxError, testing},
    client::Channel,
    journal::Kind,
    status::chain,
};

/// Goal: a stream that never ends and an open watch of health do not hold the drain beyond its
/// bound; the watch hears of it, both end with a status, and nothing is left listening.
/// Method: both open over real sockets, then stop; the bound for streams is 300 ms.
#[tokio::test]
async fn open_streams_end_with_a_status_within_the_bound() {
    let service = running("[shutdown]\nfinish = '300ms'").await;
    let addr = service.address();
    let mut channel: Channel = service.client();
    let hanging = hang(&mut channel).await;
    let mut health = HealthClient::new(channel);
    let asked = HealthCheckRequest::default();
    let mut watch = health.watch(asked).await.unwrap().into_inner();
    let first = watch.message().await.unwrap().unwrap();
    assert_eq!("SERVING", first.status().as_str_name());
    let journal = service.journal();

    let begun = Instant::now();
    service.stop().await;
    let took = begun.elapsed();

    assert!(took >= Duration::from_millis(300), "{took:?}");
    assert!(took < Duration::from_secs(3), "{took:?}");
    assert_eq!(Some(Code::Unavailable), ends_with(hanging).await);
    let told = watch.message().await.unwrap().unwrap();
    assert_eq!("NOT_SERVING", told.status().as_str_name());
    let ended = watch.message().await.unwrap_err();
    assert_eq!(Code::Unavailable, ended.code());
    assert!(TcpStream::connect(addr).await.is_err(), "something listens");
    let (past, _) = journal.watch();
    let last = past.iter().rfind(|entry| entry.kind == Kind::Stopped);
    assert!(last.is_some(), "{past:?}");
}

/// Goal: with nothing in flight a drain takes no longer than it must, an open watch of health
/// notwithstanding.
/// Method: a bound far longer than the test may take.
#[tokio::test]
async fn an_idle_service_drains_at_once() {
    let service = running("[shutdown]\nfinish = '10min'").await;
    let mut health = HealthClient::new(service.client::<Channel>());
    let asked = HealthCheckRequest::default();
    let mut watch = health.watch(asked).await.unwrap().into_inner();
    watch.message().await.unwrap().unwrap();

    let begun = Instant::now();
    service.stop().await;
    assert!(
        begun.elapsed() < Duration::from_secs(3),
        "{:?}",
        begun.elapsed()
    );
}

/// Goal: a start-up that fails says why, and what it had opened is closed.
/// Method: open something, then fail with a cause.
#[tokio::test]
async fn a_failed_start_closes_what_it_opened() {
    let closed = Arc::new(AtomicBool::new(false));
    let noted = Arc::clone(&closed);
    let start = async move |app: &mut App<()>| -> Result<(), BoxError> {
        app.on_close("store", async move { noted.store(true, Ordering::Relaxed) });
        Err("no luck".into())
    };
    let failed = testing::Service::start(IDENTITY, "", start).await;
    let error = failed.err().unwrap();
    assert_eq!("start probe: no luck", chain(error.as_ref()));
    assert!(closed.load(Ordering::Relaxed));
}

/// Goal: the panic of an essential task ends the process, and says which task it was.
/// Method: a task that panics once told.
#[tokio::test]
async fn an_essential_tasks_panic_stops_the_service() {
    let (go, mut told) = tokio::sync::watch::channel(false);
    let start = async move |app: &mut App<()>| -> Result<(), BoxError> {
        app.serve(Probe);
        app.spawn("relay", async move {
            drop(told.wait_for(|go| *go).await);
            panic!("on purpose");
        });
        Ok(())
    };
    let service = testing::Service::start(IDENTITY, "", start).await.unwrap();
    go.send_replace(true);
    assert_eq!("task relay panicked", service.stopped().await);
    service.stop().await;
}

/// Goal: a taken port is one line that names the setting, for either port.
/// Method: start a second service on the ports of the first.
#[tokio::test]
async fn a_taken_port_is_named_with_its_setting() {
    let first = running("").await;
    for (key, addr) in [("listen", first.address()), ("admin", first.side_address())] {
        let toml = format!("[{key}]\naddress = '{addr}'");
        let second = testing::Service::start(IDENTITY, &toml, super::probe::start).await;
        let error = chain(second.err().unwrap().as_ref());
        assert!(
            error.starts_with(&format!("{key}.address {addr}: port ")),
            "{error}"
        );
        assert!(error.contains("taken"), "{error}");
    }
    first.stop().await;
}
