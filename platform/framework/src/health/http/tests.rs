mod encrypted;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    time,
};

use super::*;
use crate::{
    health::{Config, Health, Verdict},
    journal::Journal,
    shutdown::Tasks,
    status::chain,
};

/// Answers every connection with `answer` once its request is complete.
async fn outside(tasks: &Tasks, answer: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tasks.spawn("outside", async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                if stream.read_buf(&mut request).await.unwrap_or(0) == 0 {
                    break;
                }
            }
            let text = String::from_utf8(request).unwrap();
            assert!(
                text.starts_with("GET /health?deep=1 HTTP/1.1\r\n"),
                "{text}"
            );
            assert!(text.contains(&format!("host: {addr}\r\n")), "{text}");
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    format!("http://{addr}/health?deep=1")
}

async fn probe(url: &str, latency_max: Duration) -> Result<(), String> {
    let target = Target::parse(url, Roots::Machine).unwrap();
    let found = super::probe(target, latency_max).await;
    found.map_err(|error| chain(error.as_ref()))
}

/// Goal: an answer passes; an error, a slow answer and silence fail, each with its reason.
/// Method: real sockets; a bound of zero makes any answer slow.
#[tokio::test]
async fn answers_are_judged_by_status_and_time() {
    let tasks = Tasks::new(Journal::new());
    let patient = Duration::from_secs(30);
    let fine = outside(&tasks, "HTTP/1.1 204 No Content\r\n\r\n").await;
    let broken = outside(&tasks, "HTTP/1.1 503 Service Unavailable\r\n\r\n").await;
    let garbage = outside(&tasks, "SSH-2.0-OpenSSH\r\n\r\n").await;

    assert_eq!(Ok(()), probe(&fine, patient).await);
    let slow = probe(&fine, Duration::ZERO).await.unwrap_err();
    assert!(slow.ends_with("more than 0 ms"), "{slow}");
    let error = probe(&broken, patient).await.unwrap_err();
    assert!(
        error.ends_with("answered 503 Service Unavailable"),
        "{error}"
    );
    let error = probe(&garbage, patient).await.unwrap_err();
    assert!(error.contains("invalid HTTP"), "{error}");

    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = closed.local_addr().unwrap();
    drop(closed);
    let error = probe(&format!("http://{addr}"), patient).await.unwrap_err();
    assert!(
        error.starts_with(&format!("connect to {addr}: ")),
        "{error}"
    );
}

/// Goal: the outside reports and does not gate.
/// Method: an address nobody listens at, in a health registry that is otherwise fine.
#[tokio::test]
async fn an_outside_that_is_down_is_reported_alone() {
    let tasks = Tasks::new(Journal::new());
    let health = Health::new(Journal::new(), Config::default());
    health.started();
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", closed.local_addr().unwrap());
    drop(closed);
    let check = Check::http("bank", &url, Duration::from_secs(1)).unwrap();
    health.check(check, &tasks);
    while health.report().checks[0].verdict == Verdict::Pending {
        time::sleep(Duration::from_millis(1)).await;
    }

    assert!(health.is_ready());
    assert_eq!(Verdict::Failing, health.report().checks[0].verdict);
}

/// Goal: what this check cannot do is refused where it is written.
/// Method: other schemes, no host, no URL; and no encryption where certificates are given.
#[test]
fn other_addresses_are_refused() {
    let second = Duration::from_secs(1);
    for url in ["ftp://bank.example/", "bank:8080", "/health", "http://", ""] {
        assert!(Check::http("bank", url, second).is_err(), "{url}");
        assert!(Check::https_with_ca("bank", url, "ca.pem", second).is_err());
    }
    let plain = "http://bank.example/";
    assert!(Check::https_with_ca("bank", plain, "ca.pem", second).is_err());
}
