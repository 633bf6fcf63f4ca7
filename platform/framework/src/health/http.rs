//! Asks an address outside the platform over HTTP, and minds how long the answer takes.
//!
//! One `GET` on a connection of its own each time, so that connecting, and over `https` proving
//! itself, is part of what is checked.

mod trust;

use std::{path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, StatusCode, Uri, header, uri::Scheme};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::{net::TcpStream, time::Instant};
use tokio_rustls::TlsConnector;

use self::trust::{Roots, Trust};
use super::check::{Check, Effect, Kind};
use crate::{BoxError, transport::subchannel::Io};

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
    /// It is not HTTP with a host.
    #[error("{url:?} is not of the form http[s]://host[:port]/path")]
    NotHttp {
        /// What was given.
        url: String,
    },
    /// It is not encrypted, so that nobody would ask for the certificates given.
    #[error("{url:?} is not of the form https://host[:port]/path")]
    NotHttps {
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
    #[error("greet {authority} by TLS")]
    Greet {
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
    /// is an error (400 and above), and where it takes longer than `latency_max`, from the first
    /// packet to the head of the answer.
    ///
    /// Over `https` it also fails where the other side does not prove itself to this machine's root
    /// certificates. They are read once, at the first run that finds some: those of the system, or
    /// of the file that `SSL_CERT_FILE` names.
    ///
    /// # Errors
    ///
    /// If `url` is not `http` or `https` with a host.
    pub fn http(
        name: impl Into<String>,
        url: &str,
        latency_max: Duration,
    ) -> Result<Self, UrlError> {
        let target = Target::parse(url, Roots::Machine)?;
        Ok(Self::of_target(name, target, latency_max))
    }

    /// As [`Check::http`], for an address whose certificate was signed by those in the PEM file
    /// `ca` and by no others. The file is read at every run.
    ///
    /// # Errors
    ///
    /// If `url` is not `https` with a host.
    pub fn https_with_ca(
        name: impl Into<String>,
        url: &str,
        ca: impl Into<PathBuf>,
        latency_max: Duration,
    ) -> Result<Self, UrlError> {
        let target = Target::parse(url, Roots::File(ca.into()))?;
        if target.trust.is_none() {
            let url = url.to_owned();
            return Err(UrlError::NotHttps { url });
        }
        Ok(Self::of_target(name, target, latency_max))
    }

    fn of_target(name: impl Into<String>, target: Target, latency_max: Duration) -> Self {
        let probe = move || target.clone().probe(latency_max);
        Self::of(name, Kind::Http, Effect::Reports, probe)
    }
}

#[derive(Debug, Clone)]
struct Target {
    url: Uri,
    host: String,
    port: u16,
    /// Whom to believe who is there; nobody is asked over plain HTTP.
    trust: Option<Trust>,
}

impl Target {
    fn parse(text: &str, roots: Roots) -> Result<Self, UrlError> {
        let url: Uri = text.parse().map_err(|source| UrlError::Malformed {
            url: text.to_owned(),
            source,
        })?;
        let trust = match url.scheme() {
            Some(scheme) if *scheme == Scheme::HTTP => Some(None),
            Some(scheme) if *scheme == Scheme::HTTPS => Some(Some(Trust::new(roots))),
            _ => None,
        };
        match (trust, url.host()) {
            (Some(trust), Some(host)) => Ok(Self {
                // An IPv6 address stands in brackets in a URL and without them elsewhere.
                host: host.trim_matches(['[', ']']).to_owned(),
                port: url
                    .port_u16()
                    .unwrap_or(if trust.is_some() { 443 } else { 80 }),
                trust,
                url,
            }),
            _ => Err(UrlError::NotHttp {
                url: text.to_owned(),
            }),
        }
    }

    async fn probe(self, latency_max: Duration) -> Result<(), BoxError> {
        let tls = match &self.trust {
            Some(trust) => Some(trust.config().await?),
            None => None,
        };
        let begun = Instant::now();
        let status = self.get(tls).await?;
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
    async fn get(&self, tls: Option<Arc<ClientConfig>>) -> Result<StatusCode, Fault> {
        let stream = TcpStream::connect((self.host.as_str(), self.port))
            .await
            .map_err(|source| Fault::Connect {
                authority: self.authority().to_owned(),
                source,
            })?;
        match tls {
            Some(config) => self.exchange(self.greet(config, stream).await?).await,
            None => self.exchange(stream).await,
        }
    }

    fn authority(&self) -> &str {
        self.url.authority().map_or("", |name| name.as_str())
    }

    async fn greet(
        &self,
        config: Arc<ClientConfig>,
        stream: TcpStream,
    ) -> Result<impl Io + use<>, Fault> {
        let greeted = async {
            let name = ServerName::try_from(self.host.clone()).map_err(std::io::Error::other)?;
            TlsConnector::from(config).connect(name, stream).await
        };
        greeted.await.map_err(|source| Fault::Greet {
            authority: self.authority().to_owned(),
            source,
        })
    }

    async fn exchange(&self, stream: impl Io) -> Result<StatusCode, Fault> {
        let exchange = |source| Fault::Exchange {
            url: self.url.clone(),
            source,
        };
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(exchange)?;
        let path = self.url.path_and_query().map_or("/", |path| path.as_str());
        let request = Request::get(path)
            .header(header::HOST, self.authority())
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
mod tests;
