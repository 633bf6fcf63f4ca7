//! Whose signature makes an address outside the platform believable.

use std::{path::PathBuf, sync::Arc};

use rustls::{ClientConfig, RootCertStore, client::Resumption, crypto::ring};
use tokio::{sync::OnceCell, task::spawn_blocking};

use super::super::tls::{LoadError, certificates};

/// Where the certificates are that must have signed another's.
#[derive(Debug, Clone)]
pub(crate) enum Roots {
    /// This machine's own.
    Machine,
    /// In a PEM file.
    File(PathBuf),
}

/// What one side of a connection believes; clones share what was read.
#[derive(Debug, Clone)]
pub(super) struct Trust {
    roots: Roots,
    /// Large, and rarely changed: what this machine believes is read once.
    machine: Arc<OnceCell<Arc<ClientConfig>>>,
}

/// Why nobody can be believed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TrustError {
    #[error(
        "this machine has no root certificates; install its package of them (ca-certificates), \
         or name a file of your own"
    )]
    None {
        /// What went wrong in looking for them, if anything did.
        source: Option<rustls_native_certs::Error>,
    },
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error("use certificates {}", path.display())]
    File {
        path: PathBuf,
        source: rustls::Error,
    },
    #[error("read the certificates to trust")]
    Stopped(#[from] tokio::task::JoinError),
}

impl Trust {
    pub(super) fn new(roots: Roots) -> Self {
        Self {
            roots,
            machine: Arc::default(),
        }
    }

    /// How to greet whom this trusts.
    pub(super) async fn config(&self) -> Result<Arc<ClientConfig>, TrustError> {
        match &self.roots {
            Roots::Machine => {
                let read = || async {
                    spawn_blocking(|| believing(rustls_native_certs::load_native_certs())).await?
                };
                self.machine.get_or_try_init(read).await.map(Arc::clone)
            }
            Roots::File(path) => {
                let path = path.clone();
                spawn_blocking(move || believing_file(&path)).await?
            }
        }
    }
}

fn believing(
    found: rustls_native_certs::CertificateResult,
) -> Result<Arc<ClientConfig>, TrustError> {
    let mut roots = RootCertStore::empty();
    // Among many there may be one that nobody can use; the others count.
    let (usable, _) = roots.add_parsable_certificates(found.certs);
    if usable == 0 {
        let source = found.errors.into_iter().next();
        return Err(TrustError::None { source });
    }
    Ok(trusting(roots))
}

fn believing_file(path: &PathBuf) -> Result<Arc<ClientConfig>, TrustError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|source| TrustError::File {
            path: path.clone(),
            source,
        })?;
    }
    Ok(trusting(roots))
}

fn trusting(roots: RootCertStore) -> Arc<ClientConfig> {
    let provider = Arc::new(ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring supports the default versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // A session that is resumed proves nothing anew: a certificate that has expired since would
    // not be noticed.
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::chain;

    /// Goal: a machine without root certificates is told so.
    /// Method: what looking for them gives where there are none.
    #[test]
    fn a_machine_without_roots_is_told_so() {
        let found = rustls_native_certs::CertificateResult::default();
        let error = chain(&believing(found).unwrap_err());
        assert!(error.contains("no root certificates"), "{error}");
        assert!(error.contains("ca-certificates"), "{error}");
    }

    /// Goal: one root that nobody can use does not spoil the others.
    /// Method: a good one among garbage, and an error beside it.
    #[test]
    fn one_bad_root_does_not_spoil_the_others() {
        let mut found = rustls_native_certs::CertificateResult::default();
        found.certs.push(vec![7; 7].into());
        assert!(believing(std::mem::take(&mut found)).is_err());

        let key = rcgen::KeyPair::generate().unwrap();
        let good = rcgen::CertificateParams::default();
        let good = good.self_signed(&key).unwrap();
        found.certs.extend([vec![7; 7].into(), good.der().clone()]);
        assert!(believing(found).is_ok());
    }

    /// Goal: a file that is not there, or holds no certificate, is named.
    /// Method: both.
    #[test]
    fn a_file_that_cannot_be_used_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        for text in [None, Some("not PEM")] {
            text.inspect(|text| std::fs::write(&path, text).unwrap());
            let error = chain(&believing_file(&path).unwrap_err());
            assert!(error.contains(&path.display().to_string()), "{error}");
        }
    }
}
