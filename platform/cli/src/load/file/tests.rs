use super::*;

use super::super::{harm::Harm, plan::Origin};

fn parse_text(text: &str) -> Result<File, Vec<(usize, String)>> {
    parse(Path::new("load.toml"), text)
}

/// Each of `expected` is the fault of `text` at its place, by line, and there are no others.
#[track_caller]
fn refused(text: &str, expected: &[(usize, &str)]) {
    let faults = parse_text(text).unwrap_err();
    assert_eq!(expected.len(), faults.len(), "{faults:#?}");
    for ((line, words), fault) in expected.iter().zip(&faults) {
        assert_eq!(*line, fault.0, "{fault:?}");
        assert!(fault.1.contains(words), "{words} in {fault:?}");
    }
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
    let wanted = parse_text(text).unwrap().calls;
    assert_eq!(2, wanted.len());
    assert_eq!(("pkg.S/One", 1), (&*wanted[0].name, wanted[0].weight));
    let first = &wanted[0].steps[0];
    assert_eq!("pkg.S/One", first.method);
    assert_eq!(Some(Duration::from_secs(2)), first.deadline);
    assert_eq!((None, 2), (first.request.as_deref(), first.headers.len()));
    assert_eq!(Some("load.toml:5"), first.place.as_deref());

    assert_eq!(("second", 3), (&*wanted[1].name, wanted[1].weight));
    let second = &wanted[1].steps[0];
    assert_eq!(Some(Duration::from_millis(500)), second.deadline);
    assert_eq!(Some(r#"{"a": "{{n}}"}"#), second.request.as_deref());
    let inline = Origin::Argument("load.toml:12: request".to_owned());
    assert_eq!(inline, second.origin);
    let mut values: Vec<_> = second.headers.iter().map(|(_, value)| &**value).collect();
    values.sort_unstable();
    assert_eq!(vec!["1", "Bearer y"], values);
}

/// Goal: requests of a file lie beside the plan.
/// Method: a folder with both.
#[test]
fn files_lie_beside_the_plan() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("one.jsonl"), "{}\n{}").unwrap();
    let path = folder.path().join("load.toml");
    let text = "[[calls]]\nmethod = 'pkg.S/One'\nrequest = '@one.jsonl'\n";
    let step = &parse(&path, text).unwrap().calls[0].steps[0];
    assert_eq!(Some("{}\n{}"), step.request.as_deref());
    let file = Origin::File(folder.path().join("one.jsonl"));
    assert_eq!(file, step.origin);
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
    let expected = [
        (1, "dedline: no key of a plan (did you mean \"deadline\"?)"),
        (2, "[[calls]] without method"),
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
    refused(text, &expected);
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

/// A plan with everything.
const ALL: &str = r#"
description = "all of it"
target = "gateway"
retry = ["UNAVAILABLE", "INTERNAL"]
criticality = "sheddable"

[values]
email = "load-{{uuid}}@example.com"

[[before]]
target = "accounts"
method = "pkg.A/Login"
request = '{"email": "{{email}}"}'
keep = { token = "token" }

[[calls]]
name = "buy"
metadata = { authorization = "Bearer {{token}}" }
criticality = "CRITICAL"
deadline = "3s"
[[calls.steps]]
method = "pkg.O/Place"
keep = { order = "order.order_id" }
[[calls.steps]]
target = "orders"
method = "pkg.O/Watch"
request = '{"orderId": "{{order}}"}'
deadline = "9s"
retry = []
expect = { "order.state" = "DONE" }

[[stages]]
duration = "10s"
rate = 50
[[stages]]
duration = "5s"
to = 200
[[stages]]
duration = "5s"
from = 1e3
to = 0.5

[[faults]]
at = "2s"
for = "3s"
whom = "payments-2"
method = "pkg.P/*"
delay = "200ms"
fail = 12.5
code = "INTERNAL"
[[faults]]
at = "6s"
for = "1s"
whom = "payments-2"
do = "stop"
[[faults]]
at = "0s"
whom = "orders"
do = "kill"
"#;

/// Goal: a plan says how a run goes on, and what is done meanwhile.
/// Method: one with everything.
#[test]
fn a_plan_says_everything() {
    let file = parse_text(ALL).unwrap();
    assert_eq!(Some("gateway"), file.target.as_deref());
    assert_eq!(Some("all of it"), description(ALL).as_deref());
    let email = &file.values()["email"];
    assert!(email.len() == "load-@example.com".len() + 36, "{email}");
    let login = &file.before[0];
    assert_eq!(Some("accounts"), login.target.as_deref());
    // What is for all calls is not for those that learn it.
    assert!(login.headers.is_empty(), "{:?}", login.headers);

    let [place, watch] = &file.calls[0].steps[..] else {
        panic!("{:?}", file.calls);
    };
    let both = [Some(retry::Code::Unavailable), Some(retry::Code::Internal)];
    let codes = |step: &Step| step.retry.clone().unwrap();
    assert_eq!(both.map(Option::unwrap), codes(place)[..]);
    assert_eq!((0, None), (codes(watch).len(), place.target.as_deref()));
    assert_eq!(Some(Duration::from_secs(3)), place.deadline);
    assert_eq!(Some(Duration::from_secs(9)), watch.deadline);
    let criticality = ("gantry-criticality".to_owned(), "CRITICAL".to_owned());
    assert_eq!(2, watch.headers.len());
    assert!(watch.headers.contains(&criticality), "{:?}", watch.headers);
    assert_eq!(
        ("order.state", "DONE"),
        (&*watch.expect[0].0, &*watch.expect[0].1)
    );

    let rates: Vec<_> = file.stages.iter().map(|it| (it.from, it.to)).collect();
    assert_eq!(vec![(50.0, 50.0), (50.0, 200.0), (1_000.0, 0.5)], rates);
    let [first, second, third] = &file.faults[..] else {
        panic!("{:?}", file.faults);
    };
    assert_eq!(
        "100 % 200 ms late, 12.5 % INTERNAL, pkg.P/*",
        first.harm.in_words()
    );
    assert_eq!(
        (Harm::Stop, Harm::Kill),
        (second.harm.clone(), third.harm.clone())
    );
    assert_eq!(Duration::ZERO, third.time);
}

/// Goal: whatever cannot be is refused at its line, with what to write instead.
/// Method: slips in values, steps and stages.
#[test]
fn slips_in_a_plan_are_told_with_their_lines() {
    refused(
        "[values]\nn = 'x'\n'a-b' = 'x'\nc = '{{d}}'\n[[calls]]\nmethod = 'p.S/M'\n\
         metadata = { x = '{{e}}' }\ncriticality = 'high'\nretry = ['UNAVAILABEL']\n",
        &[
            (2, "values n: {{n}} is taken"),
            (3, "values a-b: a name has letters"),
            (4, "values c: no placeholder {{d}}"),
            (7, "metadata x: no placeholder {{e}}"),
            (
                8,
                "criticality \"high\": expected one of SHEDDABLE, SHEDDABLE_PLUS",
            ),
            (9, "retry UNAVAILABEL: expected one of"),
        ],
    );
    refused(
        "[[calls]]\nname = 'a'\nmethod = 'p.S/M'\n[[calls.steps]]\nmetod = 'p.S/M'\n",
        &[
            (3, "method: of a call with steps, each step says it"),
            (4, "[[steps]] without method"),
            (5, "metod: no key of [[steps]]"),
        ],
    );
    let calls = "[[calls]]\nmethod = 'p.S/M'\n";
    refused(
        &format!(
            "{calls}[[stages]]\nrate = 1\n[[stages]]\nduration = '0s'\nrate = -1\n\
             [[stages]]\nduration = '1s'\nfrom = 1\n[[stages]]\nduration = '1s'\nrate = 1\nto = 2\n"
        ),
        &[
            (3, "[[stages]] without duration"),
            (6, "duration: above 0s and up to"),
            (7, "rate: a number from 0 to 1000000"),
            (8, "[[stages]]: give it a rate that stays, or from and to"),
            (11, "[[stages]]: give it a rate that stays"),
        ],
    );
}

/// Goal: a fault that cannot be is refused at its line, with what to write instead.
/// Method: slips in each of its keys; one within the time of another, and one after the end.
#[test]
fn slips_in_faults_are_told_with_their_lines() {
    let calls = "[[calls]]\nmethod = 'p.S/M'\n";
    let fault =
        |text: &str| format!("{calls}[[faults]]\nwhom = 'a'\nat = '1s'\nfor = '2s'\n{text}\n");
    for (text, line, words) in [
        ("", 3, "that does nothing: give it delay, fail"),
        ("fail = 101", 7, "fail: a number from 0 to 100"),
        (
            "fail = 60\ndrop = 50",
            3,
            "fail_percent: expected no more than 100",
        ),
        (
            "fail = 1\ncode = 'OK'",
            8,
            "code OK: expected a gRPC code other than OK",
        ),
        (
            "fail = 1\nmethod = 'x'",
            8,
            "method: expected package.Service/Method",
        ),
        (
            "fail = 1\nmetadata = 'x'",
            8,
            "metadata: expected \"name: value\"",
        ),
        (
            "do = 'stob'",
            7,
            "do \"stob\": expected one of stop, kill, pause (did you mean \"stop\"?)",
        ),
        (
            "do = 'stop'\nfail = 1",
            8,
            "fail: beside `do` it says nothing",
        ),
        ("do = 'kill'", 6, "for: a process that is killed stays so"),
    ] {
        refused(&fault(text), &[(line, words)]);
    }
    refused(
        &format!("{calls}[[faults]]\nfail = 1\n"),
        &[
            (3, "[[faults]] without at"),
            (3, "[[faults]] without for"),
            (3, "[[faults]] without whom"),
        ],
    );
    let twice = fault("fail = 1") + "[[faults]]\nwhom = 'a-2'\nat = '2s'\nfor = '9s'\nfail = 2\n";
    refused(&twice, &[(8, "would end that of load.toml:3")]);
    let later = fault("fail = 1") + "[[stages]]\nduration = '1s'\nrate = 1\n";
    refused(&later, &[(5, "at: the stages are over after 1s")]);
}
