//! Asks an address outside the platform over HTTP: one `GET` on a connection of its own.

mod trust;

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, StatusCode, Uri, header, uri::Scheme};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use self::trust::Trust;
pub(crate) use self::trust::{Roots, TrustError};
use super::subchannel::Io;
use crate::BoxError;

/// Why an address cannot be asked.
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

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
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
    #[error("read the answer of GET {url}, of at most {body_max} bytes")]
    Body {
        url: Uri,
        body_max: usize,
        source: BoxError,
    },
}

/// An address, and whom to believe there.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) url: Uri,
    host: String,
    port: u16,
    /// Whom to believe who is there; nobody is asked over plain HTTP.
    trust: Option<Trust>,
}

impl Target {
    pub(crate) fn parse(text: &str, roots: Roots) -> Result<Self, UrlError> {
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

    /// Whether the other side must prove itself.
    pub(crate) fn is_encrypted(&self) -> bool {
        self.trust.is_some()
    }

    /// How to greet the other side; nothing over plain HTTP.
    pub(crate) async fn tls(&self) -> Result<Option<Arc<ClientConfig>>, TrustError> {
        match &self.trust {
            Some(trust) => trust.config().await.map(Some),
            None => Ok(None),
        }
    }

    /// The status of the answer; its body is left unread.
    pub(crate) async fn head(
        &self,
        tls: Option<Arc<ClientConfig>>,
        agent: &str,
    ) -> Result<StatusCode, Fault> {
        let (status, _) = self.get(tls, agent, None).await?;
        Ok(status)
    }

    /// The status of the answer and its body, of at most `body_max` bytes.
    pub(crate) async fn whole(
        &self,
        tls: Option<Arc<ClientConfig>>,
        agent: &str,
        body_max: usize,
    ) -> Result<(StatusCode, Bytes), Fault> {
        self.get(tls, agent, Some(body_max)).await
    }

    async fn get(
        &self,
        tls: Option<Arc<ClientConfig>>,
        agent: &str,
        body_max: Option<usize>,
    ) -> Result<(StatusCode, Bytes), Fault> {
        let stream = TcpStream::connect((self.host.as_str(), self.port))
            .await
            .map_err(|source| Fault::Connect {
                authority: self.authority().to_owned(),
                source,
            })?;
        match tls {
            Some(config) => {
                let stream = self.greet(config, stream).await?;
                self.exchange(stream, agent, body_max).await
            }
            None => self.exchange(stream, agent, body_max).await,
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

    async fn exchange(
        &self,
        stream: impl Io,
        agent: &str,
        body_max: Option<usize>,
    ) -> Result<(StatusCode, Bytes), Fault> {
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
            .header(header::USER_AGENT, agent)
            .header(header::CONNECTION, "close")
            .body(Empty::<Bytes>::new())
            .expect("path and host come from a parsed URL");
        let answer = async {
            let answer = sender.send_request(request).await.map_err(exchange)?;
            let status = answer.status();
            let Some(body_max) = body_max else {
                return Ok((status, Bytes::new()));
            };
            let body = Limited::new(answer.into_body(), body_max).collect().await;
            let body = body.map_err(|source| Fault::Body {
                url: self.url.clone(),
                body_max,
                source,
            })?;
            Ok((status, body.to_bytes()))
        };
        // The connection moves bytes only while it is polled. Once it has ended the answer is
        // there, or the error that ended it.
        let connection = async {
            drop(connection.await);
            std::future::pending::<()>().await;
        };
        tokio::select! {
            answer = answer => answer,
            () = connection => unreachable!("a pending future never ends"),
        }
    }
}
