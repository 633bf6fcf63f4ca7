//! A certificate that is replaced while the service runs.

use std::{fs, path::Path, time::Duration};

use tokio::time;

use super::probe::running;
use crate::journal::{Entry, Kind};

fn write(folder: &Path, certificate: &str, key: &str) {
    fs::write(folder.join("certificate.pem"), certificate).unwrap();
    fs::write(folder.join("key.pem"), key).unwrap();
}

fn issued() -> (String, String) {
    let issued = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    (issued.cert.pem(), issued.signing_key.serialize_pem())
}

/// Goal: a certificate that is replaced on disk is loaded while the service runs, and one that
/// cannot be used is refused and leaves the old one in place.
/// Method: replace it by garbage, then by another one, and read the journal.
#[tokio::test]
async fn a_replaced_certificate_is_loaded_and_a_broken_one_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = issued();
    write(folder.path(), &certificate, &key);
    let toml = format!(
        "[listen]\ncertificate = '{0}/certificate.pem'\nkey = '{0}/key.pem'",
        folder.path().display()
    );
    let service = running(&toml).await;
    let (_, mut journal) = service.journal().watch();
    let mut next = async || -> Entry {
        loop {
            let entry = time::timeout(Duration::from_secs(20), journal.recv()).await;
            let entry = entry.expect("the files are looked at").unwrap();
            if entry.kind == Kind::Certificate {
                return entry;
            }
        }
    };

    fs::write(folder.path().join("certificate.pem"), "garbage").unwrap();
    let refused = next().await;
    assert!(refused.detail.starts_with("refused: "), "{refused:?}");

    let (certificate, key) = issued();
    write(folder.path(), &certificate, &key);
    // The two files are not replaced in one step, so the first look may find half of it.
    while next().await.detail != "loaded" {}
    service.stop().await;
}
