//! What must never be seen.

use crate::journal::Journal;

use super::*;

const CANARY: &str = "canary-7d1f";

fn assert_unseen(what: &str, text: &str) {
    assert!(!text.contains("canary"), "{what}: {text}");
}

/// Goal: a secret is in no text that the module makes of a configuration.
/// Method: a canary from a file and from the environment; search everything that shows something.
#[tokio::test(start_paused = true)]
async fn a_secret_is_never_shown() {
    let by_file = Sources::new().text("a.toml", format!("password = '{CANARY}'"));
    let by_variable = Sources::new().variables([("GANTRY_PASSWORD", CANARY)]);
    for sources in [by_file, by_variable] {
        assert_unseen("sources", &format!("{sources:?}"));
        let loaded = load::<Root>(sources).expect("valid");
        assert_eq!(CANARY, loaded.config().password.expose());
        assert!(loaded.print().contains("password = \"***"));
        assert_unseen("print", &loaded.print());
        assert_unseen("display", &loaded.config().password.to_string());
        assert_unseen("loaded", &format!("{loaded:?}"));
        assert_unseen("entries", &format!("{:?}", loaded.entries()));
        let (watcher, live, handle) = loaded.watcher(Journal::new());
        assert_unseen("watcher", &format!("{watcher:?} {live:?} {handle:?}"));
        assert_unseen("status", &format!("{:?}", *handle.status().borrow()));
    }
}

/// Goal: a mistake around a secret does not tell it either.
/// Method: the canary as an unknown key's value, in the wrong type, in a text that breaks off, on
/// the command line.
#[test]
fn no_fault_repeats_a_secret() {
    let texts = [
        format!("passwrod = '{CANARY}'"),
        format!("password = ['{CANARY}']"),
        format!("password = '{CANARY}"),
        format!("password = {CANARY}"),
        format!("password = \"{CANARY}\\q\""),
        format!("password = '{CANARY}' '{CANARY}'"),
        format!("password = '{CANARY}'\npassword = '{CANARY}'"),
        format!("[password]\nfil = '{CANARY}'"),
    ];
    for text in texts {
        for fault in faults(sources(&text)) {
            assert_unseen(&text, &fault);
        }
    }
    let flag = Sources::new().set(format!("password={CANARY}"));
    assert_unseen("sources", &format!("{flag:?}"));
    assert_eq!(
        vec![
            "--set: password: expected a secret as text or as { file = \"path\" }; \
             every user of the machine can read a command line"
        ],
        faults(flag)
    );
    assert_unseen("flag", &faults(Sources::new().set(CANARY))[0]);
}

/// Goal: a secret comes from a file that it names, and not from one that everybody reads.
/// Method: one file, private, then open; one that is not there; by file and by variable.
#[cfg(unix)]
#[test]
fn a_secret_is_read_from_a_private_file() {
    use std::{fs, os::unix::fs::PermissionsExt as _};
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("password");
    let shown = path.display();
    let by_file = || sources(&format!("password = {{ file = '{shown}' }}"));
    let by_variable =
        || Sources::new().variables([("GANTRY_PASSWORD__FILE", path.display().to_string())]);

    assert_eq!(
        vec![format!(
            "a.toml:1: password: expected a secret as text or as {{ file = \"path\" }}; \
             {shown} cannot be read: No such file or directory (os error 2)"
        )],
        faults(by_file())
    );
    fs::write(&path, format!("{CANARY}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    assert_eq!(CANARY, good(by_file()).password.expose());
    assert_eq!(CANARY, good(by_variable()).password.expose());

    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(
        vec![format!(
            "GANTRY_PASSWORD__FILE: password: expected a secret as text or as {{ file = \"path\" }}; \
             {shown} is open to every user (mode 0644); use 0600"
        )],
        faults(by_variable())
    );
}

#[test]
fn equal_secrets_show_the_same_digits_and_others_do_not() {
    let [one, same, other] = ["a", "a", "b"].map(Secret::new);
    assert_eq!(one.to_string(), same.to_string());
    assert_ne!(one.to_string(), other.to_string());
    assert_eq!("***ca978112", one.to_string());
    assert_eq!("", Secret::default().to_string());
}
