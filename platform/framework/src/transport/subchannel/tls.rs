//! Encrypted connections to peers that prove who they are.

use std::{fmt, io, net::SocketAddr, path::PathBuf, sync::Arc};

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use tokio_rustls::TlsConnector;

use super::connect::{Connect, Io};
use crate::{
    BoxError,
    transport::tls::{LoadError, certificates, private_key},
};

/// Which files a client trusts and proves itself with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificates as PEM that must have signed the peer's.
    pub ca: PathBuf,
    /// Our own certificate chain and its private key as PEM, for peers that ask.
    pub proof: Option<(PathBuf, PathBuf)>,
}

/// TLS over another way of connecting.
///
/// The files are read at every connection: a renewed certificate is used by the next one, and a
/// missing file shows as the endpoint's error, as any other reason not to be connected.
pub struct Tls {
    inner: Arc<dyn Connect>,
    files: TlsFiles,
    server_name: Option<String>,
}

impl Tls {
    /// Connects through `inner` and accepts peers whose certificate holds `server_name`, or, where
    /// there is none, the IP address connected to.
    #[must_use]
    pub fn new(inner: Arc<dyn Connect>, files: TlsFiles, server_name: Option<String>) -> Self {
        Self {
            inner,
            files,
            server_name,
        }
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("files", &self.files)
            .field("server_name", &self.server_name)
            .finish_non_exhaustive()
    }
}

#[async_trait::async_trait]
impl Connect for Tls {
    async fn connect(&self, addr: SocketAddr) -> io::Result<Box<dyn Io>> {
        let files = self.files.clone();
        let config = tokio::task::spawn_blocking(move || read(&files))
            .await
            .map_err(io::Error::other)?
            .map_err(io::Error::other)?;
        let name = match &self.server_name {
            Some(name) => ServerName::try_from(name.clone())
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?,
            None => ServerName::IpAddress(addr.ip().into()),
        };
        let plain = self.inner.connect(addr).await?;
        let stream = TlsConnector::from(Arc::new(config))
            .connect(name, plain)
            .await?;
        // A peer that chose nothing may be any server; HTTP/2 with prior knowledge is for
        // plaintext.
        if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
            let error = "the peer does not offer HTTP/2 (ALPN h2)";
            return Err(io::Error::new(io::ErrorKind::Unsupported, error));
        }
        Ok(Box::new(stream))
    }

    fn is_secure(&self) -> bool {
        true
    }
}

/// Why the files cannot be used.
#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error("use certificates {}", path.display())]
    Ca { path: PathBuf, source: BoxError },
    #[error("use certificate {} with key {}", certificate.display(), key.display())]
    Proof {
        certificate: PathBuf,
        key: PathBuf,
        source: rustls::Error,
    },
}

fn read(files: &TlsFiles) -> Result<ClientConfig, ReadError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&files.ca)? {
        roots.add(certificate).map_err(|source| ReadError::Ca {
            path: files.ca.clone(),
            source: source.into(),
        })?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring supports the default versions")
        .with_root_certificates(roots);
    let mut config = match &files.proof {
        None => config.with_no_client_auth(),
        Some((certificate, key)) => config
            .with_client_auth_cert(certificates(certificate)?, private_key(key)?)
            .map_err(|source| ReadError::Proof {
                certificate: certificate.clone(),
                key: key.clone(),
                source,
            })?,
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}
