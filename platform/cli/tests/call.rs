//! `gantry call` as people run it, against a server in this process that describes itself.

#![allow(clippy::unwrap_used, reason = "a helper that fails, fails its test")]

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, Command, Output, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

#[path = "support/peer.rs"]
mod peer;

use peer::{Peer, Version};

impl Peer {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gantry"));
        command.arg("call").arg(self.address.to_string());
        command.args(arguments).stdin(Stdio::null());
        command
    }

    fn call(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// A call that works; its answers.
    fn answers(&self, arguments: &[&str]) -> Vec<Value> {
        let output = self.call(arguments);
        assert!(output.status.success(), "{output:?}");
        lines(&output.stdout)
    }

    /// A call that fails: its exit code and what it says.
    fn refusal(&self, arguments: &[&str]) -> (i32, String) {
        let output = self.call(arguments);
        let text = String::from_utf8(output.stderr).unwrap();
        (output.status.code().unwrap(), text)
    }
}

fn lines(text: &[u8]) -> Vec<Value> {
    let text = str::from_utf8(text).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

const ECHO: &str = "echo.v1.EchoService/Echo";
const REPEAT: &str = "echo.v1.EchoService/Repeat";
const GATHER: &str = "echo.v1.EchoService/Gather";
const CHAT: &str = "echo.v1.EchoService/Chat";

/// Goal: a unary call takes canonical JSON of every shape, sends metadata, and prints the answer.
/// Method: an echo of everything, by both versions of reflection and both spellings.
#[test]
fn a_unary_call_is_made_by_reflection_alone() {
    let request = json!({
        "text": "hé",
        "mood": "MOOD_CALM",
        "pause": "1.500s",
        "counts": { "a": "9007199254740993" },
        "parts": [{ "number": 0 }, {}],
        "raw": "AAE=",
    });
    for version in [Version::V1, Version::V1Alpha] {
        let peer = Peer::start(version);
        for method in [ECHO, "echo.v1.EchoService.Echo"] {
            let header = ["-H", "x-who: me"];
            let answers = peer.answers(&[method, &request.to_string(), header[0], header[1]]);
            assert_eq!(1, answers.len());
            assert_eq!(request, answers[0]["request"]);
            assert_eq!("me", answers[0]["metadata"]["x-who"]);
            let deadline = &answers[0]["metadata"]["grpc-timeout"];
            assert!(deadline.is_string(), "unary calls have a deadline");
        }
    }
}

/// Goal: a request comes from an argument, a file or standard input.
/// Method: the same text by each.
#[test]
fn a_request_comes_from_a_file_or_standard_input_too() {
    let peer = Peer::start(Version::V1);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("request.json");
    std::fs::write(&file, "{\n \"text\": \"from a file\"\n}").unwrap();
    let argument = format!("@{}", file.display());
    assert_eq!("from a file", peer.answers(&[ECHO, &argument])[0]["text"]);
    assert_eq!(
        Value::Null,
        peer.answers(&[ECHO])[0]["text"],
        "an empty message"
    );

    let mut child = piped(peer.command(&[ECHO, "-"]));
    child
        .stdin
        .take()
        .unwrap()
        .write_all(b"{\"text\":\n\"piped\"}")
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!("piped", lines(&output.stdout)[0]["text"]);
}

/// Goal: the three kinds of streams work, from values one after another or an array.
/// Method: each kind once.
#[test]
fn streams_go_both_ways() {
    let peer = Peer::start(Version::V1);
    let repeated = peer.answers(&[REPEAT, r#"{"text": "r", "count": 3}"#]);
    assert_eq!(3, repeated.len());

    for requests in [
        r#"{"text":"a"} {"text":"b"}"#,
        "{\"text\":\"a\"}\n{\"text\":\"b\"}",
        r#"[{"text":"a"}, {"text":"b"}]"#,
    ] {
        let gathered = peer.answers(&[GATHER, requests]);
        assert_eq!(vec![json!({ "texts": ["a", "b"] })], gathered);
        let texts: Vec<_> = peer.answers(&[CHAT, requests]);
        assert_eq!(
            ("a", "b"),
            (
                texts[0]["text"].as_str().unwrap(),
                texts[1]["text"].as_str().unwrap()
            )
        );
    }
    assert_eq!(vec![json!({})], peer.answers(&[GATHER]), "an empty stream");
}

/// Goal: standard input is sent line by line as it comes, and answers are shown as they come.
/// Method: a conversation: the second line is written only after the first was answered.
#[test]
fn a_conversation_is_held_line_by_line() {
    let peer = Peer::start(Version::V1);
    let mut child = piped(peer.command(&[CHAT, "-"]));
    let mut to = child.stdin.take().unwrap();
    let mut from = BufReader::new(child.stdout.take().unwrap());
    for word in ["one", "two"] {
        writeln!(to, "{{\"text\":\"{word}\"}}").unwrap();
        let mut line = String::new();
        from.read_line(&mut line).unwrap();
        assert_eq!(word, serde_json::from_str::<Value>(&line).unwrap()["text"]);
    }
    drop(to);
    assert!(child.wait().unwrap().success());
}

/// Goal: a bad line cuts the call, so that the server never takes half a stream for the whole.
/// Method: one good line, one bad; the exit code, the line's number, and no answer.
#[test]
fn a_bad_line_cuts_the_call() {
    let peer = Peer::start(Version::V1);
    let mut child = piped(peer.command(&[GATHER, "-"]));
    child
        .stdin
        .take()
        .unwrap()
        .write_all(b"{\"text\":\"a\"}\n{\"txt\":\"b\"}\n")
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(Some(2), output.status.code());
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("line 2") && text.contains("txt"), "{text}");
    assert!(output.stdout.is_empty());
}

/// Goal: a failed call says its code, message and details, and exits with 1.
/// Method: a failure with two kinds of details, for people and for programs.
#[test]
fn failures_are_decoded() {
    let peer = Peer::start(Version::V1);
    let call = ["echo.v1.EchoService/Fail", r#"{"text": "too long"}"#];
    let (code, text) = peer.refusal(&call);
    assert_eq!(1, code);
    for part in [
        "FAILED_PRECONDITION: too long",
        "BadRequest",
        "must be shorter",
        "CROWDED",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let (code, text) = peer.refusal(&[call[0], call[1], "--output", "json"]);
    let status: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (1, "FAILED_PRECONDITION"),
        (code, status["status"].as_str().unwrap())
    );
    assert_eq!(2, status["details"].as_array().unwrap().len());
}

/// Goal: a deadline ends a call that hangs, a stream included.
/// Method: a method that never answers, and a stream without end.
#[test]
fn a_deadline_ends_what_hangs() {
    let peer = Peer::start(Version::V1);
    for call in ["echo.v1.EchoService/Hang", REPEAT] {
        let (code, text) = peer.refusal(&[call, "{}", "--deadline", "100ms"]);
        assert_eq!(1, code);
        assert!(text.contains("DEADLINE_EXCEEDED"), "{text}");
    }
}

/// Goal: Ctrl-C ends a stream and says so by the exit code.
/// Method: interrupt an endless stream after its first answer.
#[test]
fn an_interrupt_ends_a_stream() {
    let peer = Peer::start(Version::V1);
    let mut child = piped(peer.command(&[REPEAT, r#"{"text": "again"}"#]));
    let mut line = String::new();
    let mut from = BufReader::new(child.stdout.take().unwrap());
    from.read_line(&mut line).unwrap();
    assert!(line.contains("again"));

    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    kill_process(pid, Signal::INT).unwrap();
    // What is in the pipe has to be read, or the child waits for us.
    std::io::copy(&mut from, &mut std::io::sink()).unwrap();
    assert_eq!(Some(130), child.wait().unwrap().code());
}

/// Goal: a server's services, methods and messages can be looked up.
/// Method: the list, one service and one message; for programs too.
#[test]
fn what_can_be_called_is_listed_and_described() {
    let peer = Peer::start(Version::V1);
    let text = |arguments: &[&str]| {
        let output = peer.call(arguments);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let list = text(&[]);
    assert!(list.contains("service echo.v1.EchoService {"), "{list}");
    assert!(
        list.contains("  rpc Chat(stream EchoRequest) returns (stream EchoResponse);"),
        "{list}"
    );
    let message = text(&["echo.v1.EchoRequest"]);
    for line in [
        "  string text = 1;",
        "  Mood mood = 2;",
        "  google.protobuf.Duration pause = 3;",
        "  map<string, int64> counts = 4;",
        "  repeated Part parts = 5;",
        "  bytes raw = 6;  // oneof more",
    ] {
        assert!(message.contains(line), "{line} in {message}");
    }
    assert!(text(&["echo.v1.Part"]).contains("  optional uint32 number = 1;"));
    assert!(text(&["echo.v1.Mood"]).contains("  MOOD_CALM = 1;"));
    let service = peer.answers(&["echo.v1.EchoService", "--output", "json"]);
    assert_eq!("Echo", service[0]["methods"][0]["name"]);
}

/// Goal: what cannot be called is refused with what was probably meant.
/// Method: wrong names, wrong JSON, wrong headers, nobody there.
#[test]
fn mistakes_are_refused_with_what_was_meant() {
    let peer = Peer::start(Version::V1);
    let cases: [(&[&str], i32, &str); 8] = [
        (&["echo.v1.EchoService/Ecko"], 2, "did you mean \"Echo\""),
        (
            &["echo.v1.EchoServise/Echo"],
            2,
            "did you mean \"echo.v1.EchoService\"",
        ),
        (
            &["echo.v1.EchoServise"],
            2,
            "did you mean \"echo.v1.EchoService\"",
        ),
        (&[ECHO, r#"{"txet": 1}"#], 2, "txet"),
        (&[ECHO, "{} {}"], 2, "2 values"),
        (&[ECHO, "@/nowhere.json"], 2, "/nowhere.json"),
        (&[ECHO, "-H", "novalue"], 2, "key: value"),
        (&[ECHO, "--deadline", "soon"], 2, "soon"),
    ];
    for (arguments, expected, words) in cases {
        let (code, text) = peer.refusal(arguments);
        assert_eq!(expected, code, "{text}");
        assert!(text.contains(words), "{words} in {text}");
    }
    let nobody = Command::new(env!("CARGO_BIN_EXE_gantry"))
        .args(["call", "127.0.0.1:1", ECHO])
        .output()
        .unwrap();
    let text = String::from_utf8(nobody.stderr).unwrap();
    assert_eq!(Some(1), nobody.status.code());
    assert!(
        text.contains("UNAVAILABLE") && text.contains("refused"),
        "{text}"
    );
}

fn piped(mut command: Command) -> Child {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}
