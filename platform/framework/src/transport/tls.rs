//! Certificates from PEM files, replaceable while connections run.
//!
//! A new connection uses the certificate loaded last; connections that are open keep theirs until
//! their age ends them.

use std::{fmt, path::PathBuf, sync::Arc};

use arc_swap::ArcSwap;
use rustls::{RootCertStore, ServerConfig, server::WebPkiClientVerifier};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use tokio_rustls::TlsAcceptor;

use super::server::Protocols;

/// Which files hold what a server proves itself with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// Certificate chain as PEM, the server's own first.
    pub certificate: PathBuf,
    /// Private key as PEM.
    pub key: PathBuf,
    /// Certificates as PEM that must have signed a client's; where given, clients without one
    /// are refused.
    pub client_ca: Option<PathBuf>,
}

/// Why files could not be used; says which.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A file cannot be read, or is not what it should be.
    #[error("read {what} {}", path.display())]
    Read {
        /// What the file should hold.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: rustls_pki_types::pem::Error,
    },
    /// A file holds none of what it should.
    #[error("{} holds no {what}", path.display())]
    Empty {
        /// What the file should hold.
        what: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// Certificate and key do not belong together, or are of a kind that is not supported.
    #[error("certificate {} and key {} do not go together", certificate.display(), key.display())]
    Mismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// Why not.
        source: rustls::Error,
    },
    /// The certificates for clients cannot be used.
    #[error("use client certificates {}", path.display())]
    ClientCa {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: crate::BoxError,
    },
}

/// The server's side of TLS; clones share the certificate and its replacement.
#[derive(Clone)]
pub struct Tls {
    files: Arc<Files>,
    config: Arc<ArcSwap<ServerConfig>>,
}

impl fmt::Debug for Tls {
    // The configuration holds the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("files", &self.files)
            .finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    ///
    /// If one cannot be read or used; the error names it.
    pub fn load(files: Files) -> Result<Self, LoadError> {
        let config = read(&files)?;
        Ok(Self {
            files: Arc::new(files),
            config: Arc::new(ArcSwap::from_pointee(config)),
        })
    }

    /// Reads the files again; connections from now on use what they hold.
    ///
    /// # Errors
    ///
    /// As [`Tls::load`]; the certificate in use stays.
    pub fn reload(&self) -> Result<(), LoadError> {
        // A whole new configuration: sessions and tickets must not outlive a changed client CA.
        self.config.store(Arc::new(read(&self.files)?));
        Ok(())
    }

    /// The files in use, for those who watch them.
    #[must_use]
    pub fn files(&self) -> &Files {
        &self.files
    }

    /// What the next connection is greeted with.
    pub(crate) fn acceptor(&self, protocols: Protocols) -> TlsAcceptor {
        let mut config = self.config.load_full();
        if protocols == Protocols::Http1And2 {
            // A copy shares what is large.
            let protocols = &mut Arc::make_mut(&mut config).alpn_protocols;
            protocols.push(b"http/1.1".to_vec());
        }
        TlsAcceptor::from(config)
    }
}

fn read(files: &Files) -> Result<ServerConfig, LoadError> {
    let chain = certificates(&files.certificate)?;
    let key = private_key(&files.key)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("ring supports the default versions");
    let config = match &files.client_ca {
        None => config.with_no_client_auth(),
        Some(path) => {
            let unusable = |source: crate::BoxError| LoadError::ClientCa {
                path: path.clone(),
                source,
            };
            let mut roots = RootCertStore::empty();
            for certificate in certificates(path)? {
                roots
                    .add(certificate)
                    .map_err(|error| unusable(error.into()))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()
                .map_err(|error| unusable(error.into()))?;
            config.with_client_cert_verifier(verifier)
        }
    };
    let mut config = config
        .with_single_cert(chain, key)
        .map_err(|source| LoadError::Mismatch {
            certificate: files.certificate.clone(),
            key: files.key.clone(),
            source,
        })?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

/// The private key in the PEM file at `path`.
pub(super) fn private_key(path: &PathBuf) -> Result<PrivateKeyDer<'static>, LoadError> {
    let what = "private key";
    PrivateKeyDer::from_pem_file(path).map_err(|source| match source {
        rustls_pki_types::pem::Error::NoItemsFound => LoadError::Empty {
            what,
            path: path.clone(),
        },
        source => LoadError::Read {
            what,
            path: path.clone(),
            source,
        },
    })
}

/// The certificates in the PEM file at `path`, at least one.
pub(crate) fn certificates(path: &PathBuf) -> Result<Vec<CertificateDer<'static>>, LoadError> {
    let what = "certificate";
    let unreadable = |source| LoadError::Read {
        what,
        path: path.clone(),
        source,
    };
    let found: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(unreadable)?;
    if found.is_empty() {
        return Err(LoadError::Empty {
            what,
            path: path.clone(),
        });
    }
    Ok(found)
}
