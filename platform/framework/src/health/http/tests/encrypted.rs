use std::{fs, net::Ipv4Addr, path::PathBuf, sync::Arc};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType,
    date_time_ymd,
};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::*;

/// Who signs, and where its certificate is.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: TempDir,
}

/// How a server behaves.
#[derive(Debug, Clone, Copy)]
enum Manners {
    Fine,
    /// Its certificate has expired.
    Expired,
    /// It begins to speak only after so long; never, where there is none.
    Silent(Option<Duration>),
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let issuer = CertifiedIssuer::self_signed(params, key).unwrap();
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { issuer, folder }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// Serves with a certificate that this authority signed.
    async fn serve(&self, tasks: &Tasks, manners: Manners) -> String {
        let mut params = CertificateParams::default();
        let loopback = SanType::IpAddress(Ipv4Addr::LOCALHOST.into());
        params.subject_alt_names.push(loopback);
        if matches!(manners, Manners::Expired) {
            params.not_after = date_time_ymd(2020, 1, 1);
        }
        let key = KeyPair::generate().unwrap();
        let chain = vec![params.signed_by(&key, &self.issuer).unwrap().into()];
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let stopping = tasks.stopping();
        let serving = async move {
            while let Ok((stream, _)) = listener.accept().await {
                match manners {
                    Manners::Silent(Some(pause)) => time::sleep(pause).await,
                    Manners::Silent(None) => std::future::pending().await,
                    Manners::Fine | Manners::Expired => {}
                }
                if let Ok(stream) = acceptor.accept(stream).await {
                    answer(stream).await;
                }
            }
        };
        tasks.spawn("outside", async move {
            stopping.run_until_cancelled(serving).await;
        });
        format!("https://{addr}/health?deep=1")
    }
}

async fn answer(mut stream: tokio_rustls::server::TlsStream<TcpStream>) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        if stream.read_buf(&mut request).await.unwrap_or(0) == 0 {
            return;
        }
    }
    let text = String::from_utf8(request).unwrap();
    assert!(
        text.starts_with("GET /health?deep=1 HTTP/1.1\r\n"),
        "{text}"
    );
    let answer = b"HTTP/1.1 204 No Content\r\n\r\n";
    stream.write_all(answer).await.unwrap();
    stream.shutdown().await.unwrap();
}

async fn probe(url: &str, roots: Roots, latency_max: Duration) -> Result<(), String> {
    let target = Target::parse(url, roots).unwrap();
    let found = super::super::probe(target, latency_max).await;
    found.map_err(|error| chain(error.as_ref()))
}

/// Goal: who proves itself to the certificates given passes, run after run; who does not, does
/// not, and the reason is told.
/// Method: the right file, another authority's, this machine's own, and a certificate that expired.
#[tokio::test]
async fn only_who_proves_itself_passes() {
    let patient = Duration::from_secs(30);
    let tasks = Tasks::new(Journal::new());
    let (authority, other) = (Authority::new("one"), Authority::new("other"));
    let url = authority.serve(&tasks, Manners::Fine).await;
    let file = |authority: &Authority| Roots::File(authority.file());
    for _ in 0..2 {
        assert_eq!(Ok(()), probe(&url, file(&authority), patient).await);
    }

    let error = probe(&url, file(&other), patient).await.unwrap_err();
    let greeted = url
        .strip_prefix("https://")
        .and_then(|it| it.split_once('/'));
    let (addr, _) = greeted.unwrap();
    assert!(
        error.starts_with(&format!("greet {addr} by TLS: ")),
        "{error}"
    );
    assert!(error.contains("UnknownIssuer"), "{error}");
    let error = probe(&url, Roots::Machine, patient).await.unwrap_err();
    let unknown = error.contains("UnknownIssuer") || error.contains("no root certificates");
    assert!(unknown, "{error}");

    let url = authority.serve(&tasks, Manners::Expired).await;
    let error = probe(&url, file(&authority), patient).await.unwrap_err();
    assert!(error.contains("certificate expired"), "{error}");
    tasks.stop().await;
}

/// Goal: a certificate of another name passes for nobody, and who does not speak TLS is told apart.
/// Method: ask by a name that is not in the certificate; ask a plain server.
#[tokio::test]
async fn another_name_does_not_pass() {
    let patient = Duration::from_secs(30);
    let tasks = Tasks::new(Journal::new());
    let authority = Authority::new("one");
    let url = authority.serve(&tasks, Manners::Fine).await;
    let named = url.replace("127.0.0.1", "localhost");
    let roots = Roots::File(authority.file());
    let error = probe(&named, roots.clone(), patient).await.unwrap_err();
    assert!(error.contains("not valid for name"), "{error}");

    let plain = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", plain.local_addr().unwrap());
    tasks.spawn("plain", async move {
        let (mut stream, _) = plain.accept().await.unwrap();
        stream
            .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            .await
            .unwrap();
    });
    let error = probe(&url, roots, patient).await.unwrap_err();
    assert!(error.starts_with("greet "), "{error}");
    tasks.stop().await;
}

/// Goal: the handshake counts towards the latency, and the bound of a run ends one that hangs.
/// Method: a server that waits before it greets, and one that never does.
#[tokio::test]
async fn a_slow_handshake_is_slow() {
    let tasks = Tasks::new(Journal::new());
    let authority = Authority::new("one");
    let (pause, latency_max) = (Duration::from_millis(200), Duration::from_millis(100));
    let slow = Manners::Silent(Some(pause));
    let url = authority.serve(&tasks, slow).await;
    let roots = Roots::File(authority.file());
    let error = probe(&url, roots, latency_max).await.unwrap_err();
    assert!(error.ends_with("more than 100 ms"), "{error}");

    let url = authority.serve(&tasks, Manners::Silent(None)).await;
    let health = Health::new(Journal::new(), Config::default());
    let check = Check::https_with_ca("bank", &url, authority.file(), latency_max);
    let check = check.unwrap().within(pause).fall(1);
    health.check(check, &tasks);
    while health.report().checks[0].verdict == Verdict::Pending {
        time::sleep(Duration::from_millis(1)).await;
    }
    let report = &health.report().checks[0];
    assert_eq!(Verdict::Failing, report.verdict);
    assert_eq!("no answer within 200 ms", report.reason);
    tasks.stop().await;
}
