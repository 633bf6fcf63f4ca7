//! TLS: certificates, their replacement, and their absence.

use std::{fs, path::Path};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, Issuer, KeyPair};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::*;

/// Someone who signs certificates.
pub(super) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub(super) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Self {
            issuer: CertifiedIssuer::self_signed(params, key).unwrap(),
        }
    }

    fn sign(&self, name: &str) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let issuer: &Issuer<'_, KeyPair> = &self.issuer;
        (params.signed_by(&key, issuer).unwrap(), key)
    }
}

/// Writes a certificate for localhost into `folder`.
pub(super) fn certify(authority: &Authority, folder: &Path) -> Config {
    let (certificate, key) = authority.sign("localhost");
    let config = Config {
        certificate: Some(folder.join("server.pem")),
        key: Some(folder.join("server.key")),
        ..Config::default()
    };
    fs::write(folder.join("server.pem"), certificate.pem()).unwrap();
    fs::write(folder.join("server.key"), key.serialize_pem()).unwrap();
    config
}

pub(super) type Presented = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

pub(super) async fn dial(
    address: SocketAddr,
    trusted: &Authority,
    presented: Option<Presented>,
) -> io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.issuer.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match presented {
        None => config.with_no_client_auth(),
        Some((chain, key)) => config.with_client_auth_cert(chain, key).unwrap(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    let name = ServerName::try_from("localhost").unwrap();
    let stream = TcpStream::connect(address).await?;
    TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
}

/// Goal: calls are served over TLS, and a new certificate is used from the next connection on.
/// Method: call, replace the files, reload, call again as one who trusts the new issuer alone; the
/// old connection goes on.
#[tokio::test]
async fn a_new_certificate_takes_over() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (Authority::new(), Authority::new());
    let (address, handle) = on_loopback(&certify(&old, folder.path()), limits());
    let stream = dial(address, &old, None).await.unwrap();
    assert_eq!(Some(&b"h2"[..]), stream.get_ref().1.alpn_protocol());
    let first = Wire::over(stream).await;
    first.call(Wire::request(PATH), b"").await.unwrap();
    assert!(handle.connections()[0].tls);

    certify(&new, folder.path());
    dial(address, &new, None).await.expect_err("not yet");
    handle.reload_tls().unwrap();
    let second = Wire::over(dial(address, &new, None).await.unwrap()).await;
    second.call(Wire::request(PATH), b"").await.unwrap();
    first.call(Wire::request(PATH), b"").await.unwrap();
}

/// Goal: files that cannot be used are refused by name, and those in use stay.
/// Method: a missing file, one that holds something else, a key of another certificate; at start
/// and at a reload.
#[tokio::test]
async fn a_certificate_that_cannot_be_used_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let config = certify(&authority, folder.path());
    let (address, handle) = on_loopback(&config, limits());
    let refuse = |wanted: &str| {
        for error in [
            crate::status::chain(&Listener::bind(&config, shared(limits())).unwrap_err()),
            crate::status::chain(&handle.reload_tls().unwrap_err()),
        ] {
            assert!(error.contains(wanted), "{error}");
        }
    };

    let key = folder.path().join("server.key");
    fs::write(&key, KeyPair::generate().unwrap().serialize_pem()).unwrap();
    refuse("server.key do not go together");
    fs::write(&key, "no key").unwrap();
    refuse("server.key holds no private key");
    let certificate = folder.path().join("server.pem");
    fs::write(&certificate, "no certificate").unwrap();
    refuse("server.pem holds no certificate");
    fs::remove_file(&certificate).unwrap();
    refuse("read certificate");

    let wire = Wire::over(dial(address, &authority, None).await.unwrap()).await;
    wire.call(Wire::request(PATH), b"").await.unwrap();
}

/// Goal: where clients must prove themselves, those who do not get nowhere.
/// Method: no certificate, one of a stranger, one of the authority.
#[tokio::test]
async fn clients_prove_themselves_where_asked_to() {
    let folder = tempfile::tempdir().unwrap();
    let (authority, stranger) = (Authority::new(), Authority::new());
    let ca = folder.path().join("clients.pem");
    fs::write(&ca, authority.issuer.pem()).unwrap();
    let config = Config {
        client_ca: Some(ca),
        ..certify(&authority, folder.path())
    };
    let (address, handle) = on_loopback(&config, limits());
    let present = |signer: &Authority| -> Presented {
        let (certificate, key) = signer.sign("client");
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        (vec![certificate.der().clone()], key)
    };

    for unproven in [None, Some(present(&stranger))] {
        // In TLS 1.3 the client is done before the server has judged it; the first read tells.
        if let Ok(mut stream) = dial(address, &authority, unproven).await {
            let read = tokio::io::AsyncReadExt::read(&mut stream, &mut [0]).await;
            assert!(read.is_err() || read.unwrap() == 0);
        }
    }
    until(|| handle.counts().refused(Refused::Handshake) == 2).await;
    let proven = dial(address, &authority, Some(present(&authority)))
        .await
        .unwrap();
    assert!(is_trusted(proven).await);
}

async fn is_trusted<I>(io: I) -> bool
where
    I: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let wire = Wire::over(io).await;
    let reply = wire.call(Wire::request(TRUSTED_PATH), b"").await.unwrap();
    !reply.data.is_empty()
}

/// Goal: by being on this machine a peer is known where nothing is encrypted; over TLS a certificate of
/// its own is what makes it known, and without one it is a stranger.
/// Method: who connects from here, to a listener in plaintext and to one that asks for no certificate.
#[tokio::test]
async fn over_tls_only_a_certificate_makes_known() {
    let (address, _plain) = on_loopback(&Config::default(), limits());
    assert!(is_trusted(TcpStream::connect(address).await.unwrap()).await);

    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let config = certify(&authority, folder.path());
    let (address, _encrypted) = on_loopback(&config, limits());
    assert!(!is_trusted(dial(address, &authority, None).await.unwrap()).await);
}

/// Goal: a peer that does not finish the handshake is cut in time.
/// Method: a connection that says nothing, with a short limit.
#[tokio::test]
async fn a_silent_handshake_is_cut() {
    let folder = tempfile::tempdir().unwrap();
    let limits = Limits {
        first_request_timeout: Duration::from_millis(50),
        ..limits()
    };
    let (address, handle) = on_loopback(&certify(&Authority::new(), folder.path()), limits);
    let _silent = TcpStream::connect(address).await.unwrap();
    until(|| handle.counts().refused(Refused::FirstRequest) == 1).await;
    until(|| handle.counts().open == 0).await;
}
