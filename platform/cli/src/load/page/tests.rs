use super::{
    super::{
        exchange::Volume,
        report::{
            EndpointReport, ErrorReport, FaultReport, MethodReport, PartReport, Spread,
            StageReport, StepReport, Traffic,
        },
    },
    *,
};

const HOSTILE: &str = "</text><script>alert('x')</script>\"&amp;\u{202e}\u{0}<svg onload=x>";

fn spread() -> Spread {
    Spread {
        count: 10,
        min: 0.001,
        mean: 0.002,
        p50: 0.002,
        p90: 0.003,
        p95: 0.003,
        p99: 0.004,
        p999: 0.005,
        max: 1.25,
    }
}

fn traffic() -> Traffic {
    Traffic::messages(Volume::default(), Volume::default())
}

fn some_calls() -> Calls {
    Calls {
        ended: 90,
        status: BTreeMap::from([("OK", 80), ("UNAVAILABLE", 10)]),
        latency_seconds: spread(),
        messages: traffic(),
        bytes: traffic(),
    }
}

fn slice(number: u64, codes: &[&'static str]) -> SliceReport {
    // Long numbers, as a busy service has them.
    let ok = 123_456 + number * 7;
    let mut status = BTreeMap::from([("OK", ok)]);
    status.extend(codes.iter().map(|code| (*code, 1_234 + number)));
    SliceReport {
        sent: ok,
        ok,
        status,
        latency_p50_seconds: 0.012_345,
        latency_p99_seconds: 0.123_456,
        latency_max_seconds: 1.234_567,
    }
}

fn interval(number: u32, parts: usize, codes: &[&'static str]) -> IntervalReport {
    let of = u64::from(number);
    let part = |_| PartReport {
        target: HOSTILE.to_owned(),
        criticality: Some("SHEDDABLE_PLUS"),
        calls: slice(of, codes),
    };
    IntervalReport {
        from_seconds: f64::from(number),
        seconds: 1.0,
        due: 150_000 + of * 11,
        dropped: of,
        all: slice(of, codes),
        parts: (0..parts).map(part).collect(),
    }
}

fn method() -> MethodReport {
    MethodReport {
        name: HOSTILE.to_owned(),
        method: HOSTILE.to_owned(),
        weight: 1,
        target: HOSTILE.to_owned(),
        criticality: None,
        calls: some_calls(),
        steps: vec![StepReport {
            method: HOSTILE.to_owned(),
            calls: some_calls(),
        }],
    }
}

fn error() -> ErrorReport {
    ErrorReport {
        status: "INTERNAL",
        message: HOSTILE.repeat(5),
        method: HOSTILE.to_owned(),
        endpoint: None,
        count: 3,
    }
}

fn fault(number: u32) -> FaultReport {
    FaultReport {
        whom: HOSTILE.to_owned(),
        what: HOSTILE.to_owned(),
        from_seconds: Some(f64::from(number)),
        until_seconds: (number != 1).then_some(f64::from(number) + 0.5),
        error: Some(HOSTILE.to_owned()),
    }
}

fn endpoint(number: usize) -> EndpointReport {
    EndpointReport {
        address: (number > 0).then(|| format!("127.0.0.1:{number}")),
        calls: some_calls(),
    }
}

/// A report with names as bad as can be, of so many intervals and parts.
fn report(intervals: u32, parts: usize, codes: &[&'static str]) -> Report {
    let mut status = BTreeMap::from([("OK", 80)]);
    status.extend(codes.iter().map(|code| (*code, 10)));
    Report {
        target: HOSTILE.to_owned(),
        mode: "open",
        rate: None,
        stages: vec![StageReport {
            from: 0.0,
            to: 50.0,
            duration_seconds: 10.0,
        }],
        in_flight_max: Some(10),
        concurrency: None,
        duration_seconds: f64::from(intervals),
        interrupted: true,
        void: true,
        void_reasons: vec![HOSTILE.to_owned()],
        sent_on_schedule_ratio: 0.5,
        on_schedule_seconds: 0.01,
        final_status_ratio: 1.0,
        due: 100,
        sent: 90,
        dropped: 10,
        ended: 90,
        cut: 0,
        sent_per_second: 9.0,
        status,
        latency_seconds: spread(),
        latency_ok_seconds: spread(),
        service_time_seconds: spread(),
        send_delay_seconds: spread(),
        first_message_seconds: spread(),
        messages: traffic(),
        bytes: traffic(),
        methods: (0..parts).map(|_| method()).collect(),
        endpoints: (0..100).map(endpoint).collect(),
        seconds: Vec::new(),
        interval_seconds: 1.0,
        intervals: (0..intervals)
            .map(|it| interval(it, parts, codes))
            .collect(),
        faults: (0..3).map(fault).collect(),
        errors: (0..20).map(|_| error()).collect(),
        errors_not_shown: 0,
    }
}

/// How often each element is in a page; panics where it is not well formed.
fn elements(page: &str) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    let mut open = Vec::new();
    let mut rest = page.strip_prefix("<!doctype html>").unwrap();
    while let Some(start) = rest.find('<') {
        check_text(&rest[..start]);
        let tag = &rest[start + 1..];
        let end = tag.find('>').expect("a tag has an end");
        let (inner, after) = (&tag[..end], &tag[end + 1..]);
        rest = after;
        if let Some(name) = inner.strip_prefix('/') {
            assert_eq!(Some(name), open.pop());
            continue;
        }
        let alone = inner.ends_with('/');
        let inner = inner.trim_end_matches('/');
        let (name, attributes) = inner.split_once(' ').unwrap_or((inner, ""));
        assert!(name.chars().all(char::is_alphanumeric), "{name}");
        check_attributes(attributes);
        *counts.entry(name).or_insert(0) += 1;
        if name == "style" {
            // What is in it is no text.
            let (style, after) = rest.split_once("</style>").unwrap();
            assert!(!style.contains('<') && !style.contains("url"), "{style}");
            rest = after;
        } else if !alone {
            open.push(name);
        }
    }
    check_text(rest);
    assert!(open.is_empty(), "{open:?}");
    counts
}

fn check_attributes(attributes: &str) {
    let mut rest = attributes.trim();
    while !rest.is_empty() {
        let (name, value) = rest.split_once("=\"").expect("values are quoted");
        let harmless = |c: char| c.is_ascii_alphanumeric() || c == '-';
        assert!(
            name.chars().all(harmless) && !name.starts_with("on"),
            "{name}"
        );
        let (value, after) = value.split_once('"').expect("a quote has an end");
        check_text(value);
        rest = after.trim_start();
    }
}

/// That every ampersand begins a known reference, and no character is one that no page may hold.
fn check_text(text: &str) {
    for after in text.split('&').skip(1) {
        let known = ["amp;", "lt;", "gt;", "quot;", "#39;"];
        assert!(known.iter().any(|it| after.starts_with(it)), "&{after}");
    }
    assert!(
        text.chars().all(|c| c == '\n' || !c.is_control()),
        "{text:?}"
    );
}

/// Goal: a page is well formed whatever services call themselves, and needs nothing from elsewhere.
/// Method: names full of markup, read by a small parser.
#[test]
fn a_page_is_well_formed_and_holds_names_as_text() {
    let page = of(&report(10, 3, &["UNAVAILABLE", "INTERNAL"]));
    let elements = elements(&page);
    assert_eq!(None, elements.get("script"));
    assert!(
        elements["polyline"] > 20 && elements["table"] == 6,
        "{elements:?}"
    );
    // One band for each fault in each chart.
    assert_eq!(5 * 3, elements["rect"]);
    assert!(page.contains("&lt;script&gt;alert(&#39;x&#39;)"), "{page}");
    for word in ["http", "src=", "href", "@import", "url("] {
        assert!(!page.contains(word), "{word}");
    }
    assert!(page.contains("<strong>VOID</strong>"), "{page}");
    assert!(page.contains("prefers-color-scheme: dark"), "{page}");
}

/// Goal: the largest page there is can be mailed.
/// Method: as many intervals, kinds, codes, endpoints and errors as there may be.
#[test]
fn the_largest_page_is_bounded() {
    let codes = [
        "ABORTED",
        "CANCELLED",
        "DEADLINE_EXCEEDED",
        "INTERNAL",
        "NOT_FOUND",
        "OUT_OF_RANGE",
        "RESOURCE_EXHAUSTED",
        "UNAVAILABLE",
        "UNKNOWN",
    ];
    let page = of(&report(240, 8, &codes));
    elements(&page);
    assert!(page.len() < 200_000, "{} bytes", page.len());
}

/// Goal: a run of which there is little to show has a page all the same.
/// Method: no interval; one; a valid run without faults and failures.
#[test]
fn an_empty_run_has_a_page() {
    elements(&of(&report(0, 0, &[])));
    let mut one = report(1, 1, &[]);
    (one.void, one.interrupted) = (false, false);
    one.faults.clear();
    one.errors.clear();
    let page = of(&one);
    let elements = elements(&page);
    assert!(
        !page.contains("VOID") && !page.contains("<b>interrupted"),
        "{page}"
    );
    assert_eq!(None, elements.get("rect"));
}
