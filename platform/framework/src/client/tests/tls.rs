//! Peers that prove who they are, or fail to.

use std::{fs, path::Path};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use tokio_rustls::TlsAcceptor;

use super::{net::addr, raw::SERVING, *};

/// A certificate authority, and a certificate for `shop.test` that it signed, as files.
fn certificates(folder: &Path) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let names = vec!["shop.test".to_owned()];
    let leaf = CertificateParams::new(names).unwrap();
    let leaf = leaf.signed_by(&key, &authority).unwrap();
    fs::write(folder.join("ca.pem"), authority.pem()).unwrap();
    fs::write(folder.join("leaf.pem"), leaf.pem()).unwrap();
    fs::write(folder.join("key.pem"), key.serialize_pem()).unwrap();
}

/// Serves one connection after another with the certificate in `folder`.
fn secure_peer(net: &Net, folder: &Path, protocol: &[u8]) {
    let chain = CertificateDer::pem_file_iter(folder.join("leaf.pem")).unwrap();
    let chain = chain.map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(folder.join("key.pem")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    if !protocol.is_empty() {
        config.alpn_protocols = vec![protocol.to_vec()];
    }
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let mut listener = net.listen(addr(1));
    spawn(async move {
        while let Some(io) = listener.recv().await {
            let Ok(io) = acceptor.accept(io).await else {
                continue;
            };
            let Ok(mut connection) = h2::server::handshake(io).await else {
                continue;
            };
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                assert_eq!(Some("https"), request.uri().scheme_str());
                let head = Response::builder().header("content-type", "application/grpc");
                let head = head.body(()).unwrap();
                let mut stream = respond.send_response(head, false).unwrap();
                let message = bytes::Bytes::from_static(SERVING);
                stream.send_data(message, false).unwrap();
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", HeaderValue::from_static("0"));
                stream.send_trailers(trailers).unwrap();
            }
        }
    });
}

/// Goal: only a peer with the right name, signed by the right authority, that speaks HTTP/2 gets
/// calls, and what is wrong with any other is told.
/// Method: the right one, then one thing wrong at a time.
#[tokio::test(start_paused = true)]
async fn only_a_peer_that_proves_itself_gets_calls() {
    let folder = tempfile::tempdir().unwrap();
    certificates(folder.path());
    let other = tempfile::tempdir().unwrap();
    certificates(other.path());
    let cases = [
        (folder.path(), "shop.test", &b"h2"[..], None),
        (other.path(), "shop.test", b"h2", Some("certificate")),
        (folder.path(), "bank.test", b"h2", Some("certificate")),
        (folder.path(), "shop.test", b"", Some("ALPN")),
        (
            Path::new("/nowhere"),
            "shop.test",
            b"h2",
            Some("/nowhere/ca.pem"),
        ),
    ];
    for (trusted, name, protocol, error) in cases {
        let net = Net::default();
        secure_peer(&net, folder.path(), protocol);
        let caller = Caller::with(&net, &[addr(1)], |config| {
            config.fail_fast = 300 * MS;
            config.tls = Some(Tls {
                ca: Some(trusted.join("ca.pem")),
                server_name: Some(name.to_owned()),
                ..Tls::default()
            });
        });
        let outcome = caller.check("x").await;
        match error {
            None => outcome.unwrap(),
            Some(error) => {
                let status = outcome.unwrap_err();
                assert_eq!(Code::Unavailable, status.code());
                assert!(status.message().contains(error), "{error}: {status}");
            }
        }
        caller.stop().await;
    }
}
