//! Every way to be wrong, and how it is said.

use proptest::prelude::*;

use super::*;

/// Goal: every fault comes at once, each with its place, what was given and what is expected.
/// Method: one of each kind.
#[test]
fn every_fault_is_reported_at_once() {
    let toml = "\
format = 'xml'
message_max = '4 bananas'
share = 1.5
names = 'a'
[listen]
adress = '127.0.0.1:80'
address = 'localhost'
connections_max = 0
[peers.catalog.retry]
wait_min = 5
[retries]
wait_max = '1s'
";
    let faults = faults(
        sources(toml)
            .variables([("GANTRY_LISTEN_ADDRESS", "127.0.0.1:80")])
            .set("share=x"),
    );
    assert_eq!(
        vec![
            "a.toml:1: format = \"xml\": expected one of \"text\", \"json\"",
            "a.toml:2: message_max = \"4 bananas\": expected a size such as \"4MiB\", \"64 KiB\" or a number of bytes",
            "a.toml:4: names = \"a\": expected a list, each text",
            "a.toml:6: unknown key listen.adress; did you mean address?",
            "a.toml:7: listen.address = \"localhost\": expected an IP address with a port such as \"127.0.0.1:8080\" or \"[::1]:8080\"",
            "a.toml:8: listen.connections_max = 0: expected a whole number from 1 to 10000",
            "a.toml:10: peers.catalog.retry.wait_min = 5: expected a duration such as \"250ms\", \"5s\" or \"1h 30min\"",
            "a.toml:11: unknown section retries",
            "GANTRY_LISTEN_ADDRESS: unknown key listen_address; did you mean GANTRY_LISTEN__ADDRESS? (every GANTRY_ variable names a key)",
            "--set: share = \"x\": expected a number from 0.0 to 1.0",
        ],
        faults
    );
}

/// Goal: a text that is not TOML is refused with its place, and hides no fault of the others.
/// Method: one broken layer between two that are wrong otherwise.
#[test]
fn a_broken_text_is_refused_with_line_and_column() {
    let sources = Sources::new()
        .text("a.toml", "share = 2.0")
        .text("b.toml", "share = 0.5\nformat = json")
        .text("c.toml", "[retry]\n[peers.x.retry]\nwait_max = '1ms'");
    assert_eq!(
        vec![
            "a.toml:1: share = 2.0: expected a number from 0.0 to 1.0",
            "b.toml:2:10: not TOML: string values must be quoted, expected literal string",
            "c.toml:1: unknown section retry",
        ],
        faults(sources)
    );
}

/// Goal: a section judges its keys together, each fault at the key's own place.
/// Method: one wrong pair from a file and the environment, one from a default.
#[test]
fn keys_that_do_not_go_together_are_refused() {
    let toml = "[peers.x.retry]\nwait_max = '1ms'\n[peers.y.retry]\nwait_min = '5s'";
    let sources = sources(toml).variables([("GANTRY_PEERS__Z__RETRY__WAIT_MAX", "2ms")]);
    assert_eq!(
        vec![
            "default: peers.y.retry.wait_max = \"2s\": expected no less than wait_min",
            "a.toml:2: peers.x.retry.wait_max = \"1ms\": expected no less than wait_min",
            "GANTRY_PEERS__Z__RETRY__WAIT_MAX: peers.z.retry.wait_max = \"2ms\": expected no less than wait_min",
        ],
        faults(sources)
    );
}

/// Goal: a key that is wrong by itself does not make others look wrong.
/// Method: one that cannot be read, beside one that would not go with its default.
#[test]
fn a_wrong_key_is_not_held_against_others() {
    let toml = "[peers.x.retry]\nwait_min = 'soon'\nwait_max = '1ms'";
    assert_eq!(
        vec![
            "a.toml:2: peers.x.retry.wait_min = \"soon\": expected a duration such as \"250ms\", \"5s\" or \"1h 30min\""
        ],
        faults(sources(toml))
    );
}

/// Goal: the environment and the command line are as strict as files.
/// Method: one of each mistake.
#[test]
fn mistakes_in_variables_and_flags_are_named() {
    let cases = [
        (
            "GANTRY_listen__address",
            "GANTRY_listen__address: expected a name in capitals, digits and underscores",
        ),
        (
            "GANTRY_LISTEN",
            "GANTRY_LISTEN: listen: expected a section with keys of its own, not a value",
        ),
        (
            "GANTRY_SHARE__X",
            "GANTRY_SHARE__X: unknown key share.x; did you mean GANTRY_SHARE? (every GANTRY_ variable names a key)",
        ),
        (
            "GANTRY_DATABASE__URL",
            "GANTRY_DATABASE__URL: unknown key database.url (every GANTRY_ variable names a key)",
        ),
    ];
    for (name, expected) in cases {
        let faults = faults(Sources::new().variables([(name, "canary")]));
        assert!(faults.iter().any(|fault| fault == expected), "{faults:#?}");
    }

    let cases = [
        ("share", "--set: expected section.key=value"),
        ("shar=1", "--set: unknown key shar; did you mean share?"),
        (
            "listen.adress=x",
            "--set: unknown key listen.adress; did you mean listen.address?",
        ),
        ("a..b=1", "--set: unknown key a.\"\".b"),
    ];
    for (flag, expected) in cases {
        assert_eq!(vec![expected], faults(Sources::new().set(flag)));
    }
}

#[test]
fn a_key_given_whole_and_in_part_is_refused() {
    let sources = Sources::new().variables([
        ("GANTRY_PASSWORD", "canary"),
        ("GANTRY_PASSWORD__FILE", "canary"),
    ]);
    assert_eq!(
        "GANTRY_PASSWORD: password is given whole here and in part by GANTRY_PASSWORD__FILE; keep one",
        faults(sources)[0]
    );
}

#[cfg(unix)]
#[test]
fn a_variable_that_is_not_unicode_is_refused() {
    use std::os::unix::ffi::OsStringExt as _;
    let value = std::ffi::OsString::from_vec(vec![0xff]);
    let sources = Sources::new().variables([("GANTRY_FORMAT", value)]);
    assert_eq!(
        vec!["GANTRY_FORMAT: format: expected valid Unicode"],
        faults(sources)
    );
}

/// Goal: what is written where a section or a value belongs is told apart.
/// Method: a value for a section, a section for a value, a name with a dot in it, a misplaced key.
#[test]
fn what_is_written_in_the_wrong_place_is_found() {
    let cases = [
        (
            "listen = 5",
            "a.toml:1: listen: expected a section with keys of its own, not a value",
        ),
        (
            "[peers]\nx = 5",
            "a.toml:2: peers.x: expected a section with keys of its own, not a value",
        ),
        (
            "[format]\ntext = true",
            "a.toml:1: format = {…}: expected one of \"text\", \"json\"",
        ),
        (
            "[listen]\n'a.b' = 1",
            "a.toml:2: unknown key listen.\"a.b\"",
        ),
        (
            "'listen.address' = 1",
            "a.toml:1: unknown key \"listen.address\"",
        ),
        (
            "connections_max = 5",
            "a.toml:1: unknown key connections_max; did you mean listen.connections_max?",
        ),
        (
            "[peers.'a.b']\ntarge = 'x'",
            "a.toml:2: unknown key peers.\"a.b\".targe; did you mean target?",
        ),
        ("'listen[0]' = 1", "a.toml:1: unknown key \"listen[0]\""),
    ];
    for (toml, expected) in cases {
        assert_eq!(vec![expected], faults(sources(toml)), "{toml}");
    }
}

/// Goal: what a higher layer hides is still looked at for names.
/// Method: an unknown key below, and a value where a higher layer has the section.
#[test]
fn a_hidden_mistake_is_found_all_the_same() {
    let sources = Sources::new()
        .text("a.toml", "listen = 5\nshre = 1")
        .text("b.toml", "[listen]\nconnections_max = 5");
    assert_eq!(
        vec![
            "a.toml:1: listen: expected a section with keys of its own, not a value",
            "a.toml:2: unknown key shre; did you mean share?",
        ],
        faults(sources)
    );
}

#[test]
fn one_fault_reads_as_a_line_and_many_as_a_list() {
    let one = load::<Root>(sources("share = 7")).expect_err("at fault");
    assert_eq!(
        "a.toml:1: share = 7: expected a number from 0.0 to 1.0",
        one.to_string()
    );
    let two = load::<Root>(sources("share = 7\nx = 1")).expect_err("at fault");
    assert_eq!(
        "2 faults in the configuration\n  \
         a.toml:1: share = 7: expected a number from 0.0 to 1.0\n  \
         a.toml:2: unknown key x",
        two.to_string()
    );
}

#[test]
fn a_long_value_is_shortened() {
    let toml = format!("format = '{}'", "x".repeat(1_000));
    let faults = faults(sources(&toml));
    assert_eq!(
        format!(
            "a.toml:1: format = \"{}…: expected one of \"text\", \"json\"",
            "x".repeat(79)
        ),
        faults[0]
    );
}

section! {
    /// Has a key that [`Root`] has too.
    struct Overlapping {
        /// How lines look.
        format: Format = Format::Json, live;
    }
}

/// Goal: two structs that share a key are found when the program starts.
/// Method: read both from one root.
#[test]
#[should_panic(expected = "format is declared twice")]
fn structs_that_share_a_key_are_a_mistake_in_the_program() {
    drop(load::<Both<Root, Overlapping>>(Sources::new()));
}

/// Texts that are nearly TOML: what breaks a loader is rarely noise.
fn nearly_toml() -> impl Strategy<Value = String> {
    let word = prop::sample::select(vec![
        "listen",
        "address",
        "peers",
        "password",
        "file",
        "names",
        "share",
        "[",
        "]",
        "[[",
        "]]",
        "{",
        "}",
        "=",
        ".",
        ",",
        "\n",
        "\r",
        "\0",
        "\"",
        "'",
        "'''",
        "\"\"\"",
        "\\u0000",
        "#",
        "é",
        "\u{feff}",
        "5",
        "-1",
        "1e400",
        "0x_f",
        "99999999999999999999999999999999999999999",
        "nan",
        "inf",
        "true",
        "1979-05-27",
        "'5s'",
        "a[-9223372036854775808]",
    ]);
    prop::collection::vec(word, 0..40).prop_map(|words| words.join(" "))
}

proptest! {
    /// Goal: no text, variable or flag makes the loader panic, and no fault is without a reason.
    /// Method: arbitrary text and text that is nearly right, through each layer.
    #[test]
    fn nothing_makes_the_loader_panic(
        noise in ".*",
        toml in nearly_toml(),
        name in "[A-Z_.a-z\\[\\]é0-9]{0,30}",
        value in ".*",
    ) {
        let sources = Sources::new()
            .text("noise", noise)
            .text("toml", toml)
            .variables([(format!("GANTRY_{name}"), value.clone())])
            .set(format!("{name}={value}"))
            .set(value);
        if let Err(faults) = load::<Root>(sources) {
            prop_assert!(faults.iter().all(|fault| !fault.reason.is_empty()));
            prop_assert!(faults.iter().count() > 0);
        }
    }
}
