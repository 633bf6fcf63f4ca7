//! `gantry` on etcds that ask who calls, and on one that is not there.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    process::{Command, Output},
};

use gantry_harness::{
    authority::{Authority, Issued},
    etcd::{Asks, Data, Etcd, Version},
    process::{built, free_address},
    system::System,
    tools,
    wait::{self, SOON},
};

use super::{
    fleet::{WAIT, replica},
    secure::{self, PASSWORD, known},
};

/// A password in a file that its owner alone can read.
fn secret(folder: &tempfile::TempDir, password: &str) -> PathBuf {
    let file = folder.path().join("password");
    fs::write(&file, format!("{password}\n")).expect("write a file");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("set a mode");
    file
}

/// Runs `gantry` with a password in its environment.
fn gantry(arguments: &[&str], password: Option<&str>) -> Output {
    let mut command = Command::new(built("gantry"));
    let password = password.map(|it| ("GANTRY_ETCD__PASSWORD", it));
    tools::output(command.args(arguments).envs(password))
}

/// The one line by which `gantry` refuses.
fn refused(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{output:?}");
    assert_eq!(1, said.lines().count(), "{said}");
    assert!(
        !said.contains("Error(") && !said.contains(PASSWORD),
        "{said}"
    );
    said
}

/// The arguments by which `gantry` lists who is registered, and by which it calls them.
fn both<'a>(access: &[&'a str]) -> [Vec<&'a str>; 2] {
    let load = ["load", "etcd:///probe", WAIT[0], WAIT[1], "--count", "20"];
    [
        [&["ls", "probe", "--output", "json"], access].concat(),
        [
            &load[..],
            &["--concurrency", "2", "--fail-on-error"],
            access,
        ]
        .concat(),
    ]
}

/// Goal: `ls` and `load` work on an etcd with TLS and users, with the password from the environment
/// and from a file.
/// Method: a registered probe; both commands, each way.
#[tokio::test(flavor = "multi_thread")]
async fn it_reads_a_secured_etcd() {
    let authority = Authority::new("one");
    let Some(etcd) = secure::etcd(&authority, Asks::Password).await else {
        return;
    };
    let probe = known(replica(&etcd.url()), &authority, PASSWORD);
    let probe = probe.start().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = secret(&folder, PASSWORD).display().to_string();
    let (url, ca) = (etcd.url(), authority.ca().display().to_string());
    let access = ["--etcd", &url, "--etcd-ca", &ca, "--etcd-user", "gantry"];
    let by_file = [&access[..], &["--etcd-password-file", &file]].concat();
    for (access, password) in [(&access[..], Some(PASSWORD)), (&by_file, None)] {
        let [ls, load] = both(access).map(|arguments| gantry(&arguments, password));
        let rows: serde_json::Value = serde_json::from_slice(&ls.stdout).expect("JSON");
        assert_eq!(probe.address.to_string(), rows[0]["address"], "{ls:?}");
        assert!(load.status.success(), "{load:?}");
    }
}

/// Goal: where etcd asks for a certificate, the one given is shown.
/// Method: an etcd that takes the certificate's name for the user; with it, and without.
#[tokio::test(flavor = "multi_thread")]
async fn it_shows_its_certificate() {
    let authority = Authority::new("one");
    let Some(etcd) = secure::etcd(&authority, Asks::Certificate).await else {
        return;
    };
    let Issued { certificate, key } = authority.issue("gantry");
    let [ca, certificate, key] =
        [authority.ca(), certificate, key].map(|path| path.display().to_string());
    let url = etcd.url();
    let ls = ["ls", "probe", "--etcd", &url, "--etcd-ca", &ca];
    let proof = ["--etcd-cert", &certificate, "--etcd-key", &key];
    let shown = gantry(&[&ls[..], &proof].concat(), None);
    assert!(shown.status.success(), "{shown:?}");
    let said = refused(&gantry(&ls, None));
    assert!(
        secure::UNPROVEN.iter().any(|it| said.contains(it)),
        "{said}"
    );
}

/// Goal: what is wrong is told in one line, with a code that is not 0 and without the password.
/// Method: for both commands: another authority, none, a wrong password, no user, a password in
/// the URL, nobody who listens.
#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_one_clear_line() {
    let (authority, other) = (Authority::new("one"), Authority::new("other"));
    let Some(etcd) = secure::etcd(&authority, Asks::Password).await else {
        return;
    };
    let [ca, wrong] = [&authority, &other].map(|it| it.ca().display().to_string());
    let url = etcd.url();
    let inside = format!("https://gantry:{PASSWORD}@{}", etcd.address);
    let nobody = format!("http://{}", free_address());
    let user = ["--etcd-user", "gantry"];
    let cases: [(Vec<&str>, Option<&str>, &str); 7] = [
        (
            [&["--etcd", &url, "--etcd-ca", &wrong][..], &user].concat(),
            Some(PASSWORD),
            "invalid peer certificate",
        ),
        (vec!["--etcd", &url], None, "--etcd-ca"),
        (
            [&["--etcd", &url, "--etcd-ca", &ca][..], &user].concat(),
            Some("another"),
            "invalid user ID or password",
        ),
        (
            [&["--etcd", &url, "--etcd-ca", &ca][..], &user].concat(),
            None,
            "GANTRY_ETCD__PASSWORD",
        ),
        (
            vec!["--etcd", &url, "--etcd-ca", &ca],
            None,
            "user name is empty",
        ),
        (
            vec!["--etcd", &inside, "--etcd-ca", &ca],
            None,
            "--etcd-user",
        ),
        (vec!["--etcd", &nobody], None, "Connection refused"),
    ];
    for (access, password, words) in cases {
        for arguments in both(&access) {
            let said = refused(&gantry(&arguments, password));
            assert!(said.contains(words), "{words} in {said}");
        }
    }
}

/// An etcd in which the services of the shop may do what they want.
async fn open_to_the_shop(authority: &Authority) -> Option<Etcd> {
    let etcd = secure::etcd(authority, Asks::Password).await?;
    etcd.must(&["user", "grant-role", "gantry", "root"]);
    Some(etcd)
}

/// Goal: under `gantry up` every service registers in an etcd with TLS and users, and other
/// commands know it from there, but for a password in the environment.
/// Method: the shop with options and a password in a file, given by a path of that folder; `ls`
/// and a call by name without options; the arguments of every process.
#[tokio::test(flavor = "multi_thread")]
async fn up_passes_it_on() {
    let authority = Authority::new("one");
    let Some(etcd) = open_to_the_shop(&authority).await else {
        return;
    };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = secret(&folder, PASSWORD).display().to_string();
    let (url, ca) = (etcd.url(), authority.ca().display().to_string());
    let access = ["--etcd", &url, "--etcd-ca", &ca, "--etcd-user", "gantry"];
    let system = System::up(&[&access[..], &["--etcd-password-file", &file]].concat());
    assert_eq!(url, system.etcd());
    assert_eq!(Some(1), etcd.keys("catalog/").map(|keys| keys.len()));
    let listed = system.gantry(&["ls"]);
    let table = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(
        table.contains("catalog") && table.contains("orders"),
        "{listed:?}"
    );
    let call = [
        "call",
        "etcd:///catalog",
        "shop.catalog.v1.CatalogService/ListProducts",
    ];
    let called = system.gantry(&call);
    assert!(called.status.success(), "{called:?}");
    drop(system);

    let system = System::up_with(&[("GANTRY_ETCD__PASSWORD", PASSWORD)], &access);
    for id in system.instances().into_iter().filter_map(|row| row.pid) {
        let line = fs::read_to_string(format!("/proc/{id}/cmdline")).expect("it runs");
        assert!(!line.contains(PASSWORD), "{line}");
    }
    let said = refused(&system.gantry(&["ls"]));
    assert!(said.contains("GANTRY_ETCD__PASSWORD"), "{said}");
}

/// Goal: a pause that etcd cannot hear of is none that nobody can find, and says so; it is made good
/// once etcd is back.
/// Method: the shop in an etcd that is gone; pause, what it and `ps` say, and the keys after its
/// return.
#[tokio::test(flavor = "multi_thread")]
async fn a_pause_without_etcd_says_so() {
    let Some(mut etcd) = Etcd::start(Version::V36).await else {
        return;
    };
    let system = System::up(&["--etcd", &etcd.url()]);
    etcd.kill();
    let paused = system.gantry(&["pause", "catalog"]);
    let said = String::from_utf8_lossy(&paused.stderr).into_owned();
    assert!(paused.status.success(), "{said}");
    let found = "may be found until its lease runs out (≤ 10 s while etcd runs): not taken back: ";
    assert!(said.contains(found), "{said}");
    let error = || {
        let rows = system.gantry(&["ps", "--output", "json"]);
        let rows: Vec<serde_json::Value> = serde_json::from_slice(&rows.stdout).expect("JSON");
        let row = rows.into_iter().find(|row| row["name"] == "catalog");
        let row = row.expect("it runs");
        assert_eq!("PAUSED", row["registration"]);
        row["registration_error"].clone()
    };
    let told = error();
    let told = told.as_str().unwrap_or_default();
    assert!(told.starts_with("not taken back: "), "{told}");
    let table = system.gantry(&["ps"]);
    let table = String::from_utf8_lossy(&table.stdout).into_owned();
    assert!(table.contains("not taken back: "), "{table}");

    etcd.restart(Data::Kept).await;
    wait::until("it to be taken back", SOON, async || {
        error().is_null().then_some(())
    })
    .await;
    assert_eq!(Some(vec![]), etcd.keys("catalog/"));
}

/// Goal: `up` refuses an etcd that no service could use, before it starts any.
/// Method: https without a CA.
#[test]
fn up_refuses_what_services_would() {
    let output = gantry(&["up", "--etcd", "https://127.0.0.1:2379"], None);
    let said = refused(&output);
    assert!(said.contains("--etcd-ca"), "{said}");
    assert_eq!(Some(2), output.status.code());
}
