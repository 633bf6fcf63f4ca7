//! What `gantry load` refuses, and how it says so.

#![allow(clippy::unwrap_used, reason = "a helper that fails, fails its test")]

use std::fs;

#[path = "support/load.rs"]
mod load;
#[path = "support/peer.rs"]
mod peer;

use load::{ECHO, ended, load};
use peer::{Peer, Version};

/// Each of `cases` is refused as wrong usage, with these words and nothing on standard output.
fn refused(cases: &[(&[&str], &str)]) {
    let peer = Peer::start(Version::V1);
    for (arguments, words) in cases {
        let mut command = load(&peer.address.to_string(), arguments);
        let (code, text, notes) = ended(&command.output().unwrap());
        assert_eq!((2, ""), (code, &*text), "{arguments:?}: {notes}");
        assert!(notes.contains(words), "{words} in {notes}");
    }
}

/// Goal: a command line that cannot be run is refused with option, value and what to do.
/// Method: slips of every option; nobody there.
#[test]
fn slips_on_the_command_line_are_refused() {
    refused(&[
        (&[ECHO], "--rate"),
        (&[ECHO, "--rate", "0"], "--rate 0: calls per second"),
        (&[ECHO, "--rate", "fast"], "fast"),
        (&[ECHO, "--rate=1", "--concurrency=1"], "--concurrency"),
        (&[ECHO, "--concurrency=0"], "--concurrency 0: from 1"),
        (
            &[ECHO, "--rate=1", "--in-flight-max=0"],
            "--in-flight-max 0",
        ),
        (&[ECHO, "--rate=1", "--duration=0s"], "--duration"),
        (&[ECHO, "--rate=1", "--count=0"], "--count 0"),
        (&[ECHO, "--rate=1", "--deadline=0s"], "--deadline 0s"),
        (
            &[ECHO, "--rate=1", "--report=/nowhere/x"],
            "write /nowhere/x",
        ),
        (&[ECHO, "--rate=1", "-Hnovalue"], "key: value"),
        (
            &[ECHO, "--rate=1", "-Hx-id: {{uid}}"],
            "did you mean \"uuid\"",
        ),
        (&["--rate=1"], "package.Service/Method"),
        (&[ECHO, "--stage=5"], "--stage 5: write it as RATE:TIME"),
        (&[ECHO, "--stage=5:0s"], "--stage 5:0s: its time"),
        (&[ECHO, "--stage=5..-1:1s"], "-1: calls per second"),
        (&[ECHO, "--stage=5:1s", "--rate=1"], "--rate"),
        (&["--scenario=x", "--plan=y.toml"], "--plan"),
        (&["echo.v1.EchoService/Ecko", "--rate=1"], "mean \"Echo\""),
        (&[ECHO, "{\"txet\": 1}", "--rate=1"], "mean \"text\""),
        (
            &[ECHO, "{\"text\": \"{{uid}}\"}", "--rate=1"],
            "mean \"uuid\"",
        ),
    ]);
    let mut nobody = load("127.0.0.1:1", &[ECHO, "--rate", "1"]);
    let (code, _, notes) = ended(&nobody.output().unwrap());
    assert_eq!(1, code);
    assert!(notes.contains("UNAVAILABLE"), "{notes}");
}

/// Goal: a file that cannot be run is refused with its name and the line.
/// Method: slips in requests and in scenarios.
#[test]
fn slips_in_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let lines = format!("@{}", file("bad.jsonl", "{}\n{\"txet\": 1}\n"));
    let scenario = |name: &str, method: &str, more: &str| {
        let text = format!("[[calls]]\nmethod = '{method}'\n{more}\n");
        format!("--scenario={}", file(name, &text))
    };
    let wrong = scenario("wrong.toml", ECHO, "wieght = 2");
    let unknown = scenario("unknown.toml", "echo.v1.EchoService/Ecko", "");
    let inline = scenario("inline.toml", ECHO, "request = '{\"txet\": 1}'");
    let kept = scenario("kept.toml", ECHO, "keep = { a = 'order.id' }");
    let staged = scenario("staged.toml", ECHO, "[[stages]]\nduration = '1s'\nrate = 1");
    refused(&[
        (&[ECHO, &lines, "--rate=1"], "bad.jsonl:2: txet"),
        (
            &[&wrong, "--rate=1"],
            "wrong.toml:3: wieght: no key of [[calls]] (did you mean \"weight\"?)",
        ),
        (
            &[&unknown, "--rate=1"],
            "unknown.toml:1: echo.v1.EchoService has no method \"Ecko\" (did you mean",
        ),
        (&[&inline, "--rate=1"], "inline.toml:3: request: txet"),
        (
            &[&kept, "--rate=1"],
            "kept.toml:1: order.id: echo.v1.EchoResponse has no field",
        ),
        (
            &[&staged, "--duration=1s"],
            "the stages of the plan say how long it is",
        ),
    ]);
}
