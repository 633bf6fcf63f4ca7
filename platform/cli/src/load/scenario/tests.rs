use super::*;

fn parse_text(text: &str) -> Result<Vec<Wanted>, Vec<(usize, String)>> {
    parse(Path::new("load.toml"), text)
}

/// Goal: calls say what they differ in, and have the rest from the file's head.
/// Method: one call that says nothing, one that says everything.
#[test]
fn calls_have_what_the_head_says_unless_they_say_it_themselves() {
    let text = r#"
deadline = "2s"
metadata = { Authorization = "Bearer x", x-a = "1" }

[[calls]]
method = "pkg.S/One"

[[calls]]
name = "second"
method = "pkg.S/Two"
weight = 3
request = '{"a": "{{n}}"}'
metadata = { authorization = "Bearer y" }
deadline = "500ms"
"#;
    let wanted = parse_text(text).unwrap();
    assert_eq!(2, wanted.len());
    let first = &wanted[0];
    assert_eq!(
        ("pkg.S/One", "pkg.S/One", 1),
        (&*first.name, &*first.method, first.weight)
    );
    assert_eq!(Some(Duration::from_secs(2)), first.deadline);
    assert_eq!((None, 2), (first.request.as_deref(), first.headers.len()));
    assert_eq!(Some("load.toml:5"), first.place.as_deref());

    let second = &wanted[1];
    assert_eq!(("second", 3), (&*second.name, second.weight));
    assert_eq!(Some(Duration::from_millis(500)), second.deadline);
    assert_eq!(Some(r#"{"a": "{{n}}"}"#), second.request.as_deref());
    let inline = Origin::Argument("load.toml:12: request".to_owned());
    assert_eq!(inline, second.origin);
    let mut values: Vec<_> = second.headers.iter().map(|(_, value)| &**value).collect();
    values.sort_unstable();
    assert_eq!(vec!["1", "Bearer y"], values);
}

/// Goal: requests of a file lie beside the scenario.
/// Method: a folder with both.
#[test]
fn files_lie_beside_the_scenario() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("one.jsonl"), "{}\n{}").unwrap();
    let path = folder.path().join("load.toml");
    let text = "[[calls]]\nmethod = 'pkg.S/One'\nrequest = '@one.jsonl'\n";
    let wanted = parse(&path, text).unwrap();
    assert_eq!(Some("{}\n{}"), wanted[0].request.as_deref());
    let file = Origin::File(folder.path().join("one.jsonl"));
    assert_eq!(file, wanted[0].origin);
}

/// Goal: every fault is told at once, with its line, and with what was probably meant.
/// Method: a file full of them.
#[test]
fn faults_are_told_at_once_with_their_lines() {
    let text = r#"dedline = "2s"
[[calls]]
metod = "pkg.S/One"
[[calls]]
method = "pkg.S/Two"
weight = 0
deadline = "soon"
request = "@/nowhere.json"
[[calls]]
method = "pkg.S/Two"
metadata = { "a b" = "1", c = 2 }
weight = -1
deadline = "0s"
name = 3
"#;
    let faults = parse_text(text).unwrap_err();
    let expected = [
        (
            1,
            "dedline: no key of a scenario (did you mean \"deadline\"?)",
        ),
        (2, "[[calls]] without a method"),
        (3, "metod: no key of [[calls]] (did you mean \"method\"?)"),
        (6, "weight: a number from 1 to 1000000"),
        (7, "deadline \"soon\""),
        (8, "request: read /nowhere.json"),
        (9, "a second call named \"pkg.S/Two\""),
        (11, "metadata a b"),
        (11, "metadata c: write it as a string"),
        (12, "weight"),
        (13, "deadline \"0s\": it leaves no time"),
        (14, "name: write it as a string"),
    ];
    assert_eq!(expected.len(), faults.len(), "{faults:#?}");
    for ((line, words), fault) in expected.iter().zip(&faults) {
        assert_eq!(*line, fault.0, "{fault:?}");
        assert!(fault.1.contains(words), "{words} in {fault:?}");
    }
    for (text, line, words) in [
        ("", 1, "no [[calls]]"),
        ("[calls]\nmethod = 'a'", 1, "write each as [[calls]]"),
        ("calls = 3", 1, "write each as [[calls]]"),
        ("\n[[calls]\n", 2, ""),
        ("calls = []", 1, "no [[calls]]"),
    ] {
        let faults = parse_text(text).unwrap_err();
        assert_eq!(line, faults[0].0, "{text}: {faults:?}");
        assert!(faults[0].1.contains(words), "{words} in {faults:?}");
    }
}
