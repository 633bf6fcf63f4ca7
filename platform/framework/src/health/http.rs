//! Asks an address outside the platform over HTTP, and minds how long the answer takes.
//!
//! One `GET` on a connection of its own each time, so that connecting is part of what is checked.
//! Plain `http` alone: checking `https` would need the machine's root certificates, which nothing
//! else here does; put a probe of your own into [`Check::report`] for that.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, Uri, header, uri::Scheme};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::Instant};

use super::check::{Check, Effect, Kind};
use crate::BoxError;

/// Why an address cannot be checked.
#[derive(Debug, thiserror::Error)]
pub enum UrlError {
    /// It is not a URL.
    #[error("{url:?} is not a URL")]
    Malformed {
        /// What was given.
        url: String,
        /// What is wrong with it.
        source: http::uri::InvalidUri,
    },
    /// It is not plain HTTP with a host.
    #[error("{url:?} is not of the form http://host[:port]/path")]
    NotHttp {
        /// What was given.
        url: String,
    },
}

/// What one run found wrong.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error("connect to {authority}")]
    Connect {
        authority: String,
        source: std::io::Error,
    },
    #[error("GET {url}")]
    Exchange { url: Uri, source: hyper::Error },
    #[error("GET {url} answered {status}")]
    Status { url: Uri, status: StatusCode },
    #[error("GET {url} took {} ms, more than {} ms", .took.as_millis(), .latency_max.as_millis())]
    Slow {
        url: Uri,
        took: Duration,
        latency_max: Duration,
    },
}

impl Check {
    /// An address outside the platform; reports. It fails where nothing answers, where the answer
    /// is an error (400 and above), and where it takes longer than `latency_max`.
    ///
    /// # Errors
    ///
    /// If `url` is not plain `http` with a host.
    pub fn http(
        name: impl Into<String>,
        url: &str,
        latency_max: Duration,
    ) -> Result<Self, UrlError> {
        let target = Target::parse(url)?;
        let probe = move || target.clone().probe(latency_max);
        Ok(Self::of(name, Kind::Http, Effect::Reports, probe))
    }
}

#[derive(Debug, Clone)]
struct Target {
    url: Uri,
    host: String,
    port: u16,
}

impl Target {
    fn parse(text: &str) -> Result<Self, UrlError> {
        let url: Uri = text.parse().map_err(|source| UrlError::Malformed {
            url: text.to_owned(),
            source,
        })?;
        match (url.scheme(), url.host()) {
            (Some(scheme), Some(host)) if *scheme == Scheme::HTTP => Ok(Self {
                // An IPv6 address stands in brackets in a URL and without them elsewhere.
                host: host.trim_matches(['[', ']']).to_owned(),
                port: url.port_u16().unwrap_or(80),
                url,
            }),
            _ => Err(UrlError::NotHttp {
                url: text.to_owned(),
            }),
        }
    }

    async fn probe(self, latency_max: Duration) -> Result<(), BoxError> {
        let begun = Instant::now();
        let status = self.get().await?;
        let took = begun.elapsed();
        let url = self.url;
        if status.is_client_error() || status.is_server_error() {
            return Err(Fault::Status { url, status }.into());
        }
        if took > latency_max {
            return Err(Fault::Slow {
                url,
                took,
                latency_max,
            }
            .into());
        }
        Ok(())
    }

    /// The status of the answer; its body is left unread.
    async fn get(&self) -> Result<StatusCode, Fault> {
        let authority = self.url.authority().map_or("", |name| name.as_str());
        let stream = TcpStream::connect((self.host.as_str(), self.port))
            .await
            .map_err(|source| Fault::Connect {
                authority: authority.to_owned(),
                source,
            })?;
        let exchange = |source| Fault::Exchange {
            url: self.url.clone(),
            source,
        };
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(exchange)?;
        let path = self.url.path_and_query().map_or("/", |path| path.as_str());
        let request = Request::get(path)
            .header(header::HOST, authority)
            .header(header::USER_AGENT, "gantry-health")
            .header(header::CONNECTION, "close")
            .body(Empty::<Bytes>::new())
            .expect("path and host come from a parsed URL");
        let answer = sender.send_request(request);
        // The connection moves bytes only while it is polled. Once it has ended the answer is
        // there, or the error that ended it.
        let connection = async {
            drop(connection.await);
            std::future::pending::<()>().await;
        };
        tokio::select! {
            answer = answer => answer.map(|answer| answer.status()).map_err(exchange),
            () = connection => unreachable!("a pending future never ends"),
        }
    }
}

#[cfg(test)]
mod tests {
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
        let target = Target::parse(url).unwrap();
        let found = target.probe(latency_max).await;
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
    /// Method: other schemes, no host, no URL.
    #[test]
    fn other_addresses_are_refused() {
        for url in [
            "https://bank.example/",
            "bank:8080",
            "/health",
            "http://",
            "",
        ] {
            let check = Check::http("bank", url, Duration::from_secs(1));
            assert!(check.is_err(), "{url}");
        }
    }
}
