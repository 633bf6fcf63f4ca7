//! A certificate authority of a test's own.

use std::{fs, net::Ipv4Addr, path::PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType};
use tempfile::TempDir;

/// Signs certificates, and keeps them as files as long as it lives.
#[derive(Debug)]
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: TempDir,
}

/// A certificate and its private key, as PEM files.
#[derive(Debug, Clone)]
pub struct Issued {
    /// The certificate.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

impl Authority {
    /// An authority called `name`, which nobody knows yet.
    ///
    /// # Panics
    ///
    /// If its file cannot be written.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("a certificate");
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::write(folder.path().join("ca.pem"), issuer.pem()).expect("write a file");
        Self { issuer, folder }
    }

    /// The file of what must be trusted to trust those it issued.
    #[must_use]
    pub fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// A certificate of `name` for this machine's loopback, good for both ends of a connection.
    ///
    /// # Panics
    ///
    /// If its files cannot be written.
    #[must_use]
    pub fn issue(&self, name: &str) -> Issued {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params
            .subject_alt_names
            .push(SanType::IpAddress(Ipv4Addr::LOCALHOST.into()));
        let key = KeyPair::generate().expect("a key");
        let signed = params.signed_by(&key, &self.issuer);
        let path = |end: &str| self.folder.path().join(format!("{name}.{end}"));
        let issued = Issued {
            certificate: path("pem"),
            key: path("key"),
        };
        fs::write(&issued.certificate, signed.expect("a certificate").pem()).expect("write a file");
        fs::write(&issued.key, key.serialize_pem()).expect("write a file");
        issued
    }
}
