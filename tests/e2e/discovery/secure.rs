//! An etcd that serves TLS and asks who calls.

use std::time::Duration;

use gantry_harness::{
    authority::{Authority, Issued},
    etcd::{Asks, Etcd, LOGIN},
    process::{Builder, Service},
    wait::{self, SOON},
};

use super::{
    fleet::{self, registers, registration, replica},
    registry::{call, caller},
};

/// The password of `gantry`, as etcd has it.
pub(super) const PASSWORD: &str = "s3cret-of-the-test";

/// How long one has after its key was taken, or after what stood in its way has gone.
const SOON_AGAIN: Duration = Duration::from_secs(10);

/// A secured etcd that knows the user `gantry`, who may write what its tests register and no more.
pub(super) async fn etcd(authority: &Authority, asks: Asks) -> Option<Etcd> {
    let etcd = Etcd::secured(authority, asks).await?;
    etcd.must(&["role", "add", "registers"]);
    for prefix in ["probe/", "front/"] {
        let granted = ["role", "grant-permission", "registers", "readwrite", prefix];
        etcd.must(&[&granted[..], &["--prefix=true"]].concat());
    }
    etcd.must(&["user", "add", &format!("gantry:{PASSWORD}")]);
    etcd.must(&["user", "grant-role", "gantry", "registers"]);
    Some(etcd)
}

/// Tells a service whom to trust, and who it is.
pub(super) fn known(service: Builder, authority: &Authority, password: &str) -> Builder {
    trusting(service, authority)
        .set("ETCD__USER", "gantry")
        .set("ETCD__PASSWORD", password)
}

fn trusting(service: Builder, authority: &Authority) -> Builder {
    service.set("ETCD__TLS__CA", authority.ca().display())
}

/// What is said of a client without a certificate: etcd may have closed the connection before it
/// was read why.
pub(super) const UNPROVEN: [&str; 2] = ["CertificateRequired", "closed before HTTP/2 SETTINGS"];

/// Waits until `/readyz` says what is in the way of the registration, in one of these ways, and in the
/// log, too; neither may name the password.
async fn complains(service: &Service, words: &[&str], secret: &str) {
    let told = wait::until("a reason in /readyz", SOON, async || {
        let answer = service.get("/readyz").await?;
        let told = answer.contains("REGISTERING: ") && !answer.contains("under way");
        told.then_some(answer)
    });
    let ready = told.await;
    let says = |text: &str| words.iter().any(|it| text.contains(it));
    assert!(says(&ready), "{words:?}: {ready}");
    assert!(ready.starts_with("HTTP/1.1 503"), "{ready}");
    let log = service.output();
    assert!(says(&log), "{log}");
    assert!(!log.contains(secret) && !ready.contains(secret), "{log}");
}

/// Goal: services register and find each other in an etcd with TLS and users, also after it has
/// forgotten their logins.
/// Method: a user with rights for two prefixes; a probe, and one that calls it by name; then wait
/// for longer than a login lasts, and take a key and a lease.
#[tokio::test(flavor = "multi_thread")]
async fn services_meet_in_a_secured_etcd() {
    let authority = Authority::new("one");
    let Some(etcd) = etcd(&authority, Asks::Password).await else {
        return;
    };
    let probe = known(replica(&etcd.url()), &authority, PASSWORD);
    let mut probe = probe.start().await;
    let front = known(caller(&etcd.url()), &authority, PASSWORD);
    let front = front.start().await;
    assert_eq!(Some(vec![fleet::key(&probe)]), etcd.keys("probe/"));
    call(&front).await;

    // Only time makes a login old.
    tokio::time::sleep(LOGIN * 4).await;
    etcd.must(&["del", &fleet::key(&probe)]);
    registers(&probe, 2, SOON_AGAIN).await;
    tokio::time::sleep(LOGIN * 4).await;
    let lease = format!("{:x}", registration(&probe).await.lease_id);
    etcd.must(&["lease", "revoke", &lease]);
    registers(&probe, 3, SOON_AGAIN).await;
    assert_eq!(Some(vec![fleet::key(&probe)]), etcd.keys("probe/"));
    call(&front).await;

    tokio::time::sleep(LOGIN * 4).await;
    probe.signal(rustix::process::Signal::TERM);
    probe.ended(SOON).await;
    assert_eq!(Some(Vec::new()), etcd.keys("probe/"));
    assert!(!front.output().contains(PASSWORD));
}

/// Goal: a wrong password is told in words, without the password, and is no reason to give up.
/// Method: start with another password than etcd has; then change it there.
#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_told_and_survived() {
    let authority = Authority::new("one");
    let Some(etcd) = etcd(&authority, Asks::Password).await else {
        return;
    };
    let mine = "not-the-one-etcd-has";
    let mut probe = known(replica(&etcd.url()), &authority, mine).spawn();
    complains(&probe, &["invalid user ID or password"], mine).await;

    // To change one the command asks a terminal.
    etcd.must(&["user", "delete", "gantry"]);
    etcd.must(&["user", "add", &format!("gantry:{mine}")]);
    etcd.must(&["user", "grant-role", "gantry", "registers"]);
    probe.ready().await;
    assert_eq!(Some(vec![fleet::key(&probe)]), etcd.keys("probe/"));
}

/// Goal: what else can be wrong between a service and such an etcd is told in words, too.
/// Method: another authority, no user, a user without rights.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_told() {
    let (authority, other) = (Authority::new("one"), Authority::new("other"));
    let Some(etcd) = etcd(&authority, Asks::Password).await else {
        return;
    };
    let url = etcd.url();
    let untrusted = known(replica(&url), &other, PASSWORD).spawn();
    let nobody = trusting(replica(&url), &authority).spawn();
    let elsewhere = known(replica(&url), &authority, PASSWORD)
        .set("REGISTRATION__NAME", "elsewhere")
        .spawn();
    complains(
        &untrusted,
        &["invalid peer certificate: UnknownIssuer"],
        PASSWORD,
    )
    .await;
    complains(&nobody, &["user name is empty"], PASSWORD).await;
    complains(&elsewhere, &["permission denied"], PASSWORD).await;
}

/// Goal: where etcd asks for a certificate, ours is shown, and is enough to say who we are; who
/// shows none is told so.
/// Method: an etcd that takes the certificate's name for the user; with it, and without.
#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_says_who_we_are() {
    let authority = Authority::new("one");
    let Some(etcd) = etcd(&authority, Asks::Certificate).await else {
        return;
    };
    let Issued { certificate, key } = authority.issue("gantry");
    let proven = |service| {
        trusting(service, &authority)
            .set("ETCD__TLS__CERTIFICATE", certificate.display())
            .set("ETCD__TLS__KEY", key.display())
    };
    let probe = proven(replica(&etcd.url())).start().await;
    let front = proven(caller(&etcd.url())).start().await;
    assert_eq!(Some(vec![fleet::key(&probe)]), etcd.keys("probe/"));
    call(&front).await;

    let unproven = known(replica(&etcd.url()), &authority, PASSWORD).spawn();
    complains(&unproven, &UNPROVEN, PASSWORD).await;
}
