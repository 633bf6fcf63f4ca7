//! Lines as they come out.

use std::{
    io::{self, Write},
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, sync_channel},
    },
};

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use tracing::{Subscriber as _, callsite::Callsite as _};
use tracing_subscriber::{layer::SubscriberExt as _, registry};

use super::*;
use crate::{
    contract::{Access, Idempotency, Method},
    telemetry::level::{self, ByPattern, Level, LogLevel},
};

static PLACE: Method = Method {
    path: "/shop.orders.v1.OrdersService/PlaceOrder",
    client_streaming: false,
    server_streaming: false,
    idempotency: Idempotency::Idempotent,
    access: Access::Public,
    role: None,
};

/// A JSON object as strict readers see it: an error where a key comes twice.
#[derive(Debug)]
struct Strict(Vec<(String, serde_json::Value)>);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;

        impl<'de> Visitor<'de> for Entries {
            type Value = Strict;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Strict, A::Error> {
                let mut entries: Vec<(String, serde_json::Value)> = Vec::new();
                while let Some((key, value)) = map.next_entry::<String, _>()? {
                    if entries.iter().any(|(seen, _)| *seen == key) {
                        return Err(serde::de::Error::custom(format!("{key} twice")));
                    }
                    entries.push((key, value));
                }
                Ok(Strict(entries))
            }
        }

        deserializer.deserialize_map(Entries)
    }
}

#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What `log` writes in `shape` at `level`.
fn written(shape: Shape, level: &LogLevel, log: impl FnOnce()) -> String {
    let sink = Sink::default();
    let writer = Writer::to(sink.clone()).unwrap();
    let layer = LogLayer::new(shape, "orders", writer.clone()).with_filter(level.filter());
    tracing::subscriber::with_default(registry().with(layer), log);
    writer.flush();
    let bytes = sink.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}

fn info() -> LogLevel {
    LogLevel::new("info".parse().unwrap())
}

fn in_call<R>(run: impl FnOnce() -> R) -> R {
    let context = call::Context {
        method: &PLACE,
        peer: None,
        deadline: None,
        trace: TraceContext {
            trace_id: 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c,
            span_id: 0xb7ad_6b71_6920_3331,
            sampled: false,
            state: None,
        },
        previous_attempts: 0,
        criticality: None,
        ended: call::Ended::default(),
    };
    let _entered = call::enter(Arc::new(context));
    run()
}

/// Goal: a JSON line is one strict object with the call's ids, whatever a library logs.
/// Method: an event in a call with names that clash, values that forge, overlong and not JSON;
/// every entry compared.
#[test]
fn a_json_line_has_each_key_once_and_no_raw_control_character() {
    let long = "é".repeat(600);
    let error = io::Error::other("disk\nfull");
    let text = in_call(|| {
        written(Shape::Json, &info(), || {
            tracing::warn!(
                target: "orders::handler",
                level = 7_u64,
                { "message" } = "from a library",
                forged = "a\u{1b}[31m\n{\"x\":1}\u{2028}",
                ratio = f64::NAN,
                share = 0.5,
                ok = true,
                debt = -3,
                cause = &error as &(dyn std::error::Error + 'static),
                long = long.as_str(),
                debug = ?long,
                "order {}", "placed"
            );
        })
    });

    assert_eq!(1, text.lines().count(), "{text}");
    let line = text.strip_suffix('\n').unwrap();
    assert!(
        !line.contains(|c: char| c.is_control() || c == '\u{2028}'),
        "{line}"
    );
    let Strict(entries) = serde_json::from_str(line).unwrap();
    let cut = |text: &str| format!("{text}…");
    let expected = serde_json::json!([
        ["level", "WARN"],
        ["service", "orders"],
        ["target", "orders::handler"],
        ["rpc_method", "shop.orders.v1.OrdersService/PlaceOrder"],
        ["trace_id", "0af7651916cd43dd8448eb211c80319c"],
        ["span_id", "b7ad6b7169203331"],
        ["message", "order placed"],
        ["level#2", 7],
        ["message#2", "from a library"],
        ["forged", "a\u{1b}[31m\n{\"x\":1}\u{2028}"],
        ["ratio", "NaN"],
        ["share", 0.5],
        ["ok", true],
        ["debt", -3],
        ["cause", "disk\nfull"],
        ["long", cut(&"é".repeat(512))],
        ["debug", cut(&format!("\"{}", "é".repeat(511)))],
    ]);
    let (time, rest) = entries.split_first().unwrap();
    assert_eq!("timestamp", time.0);
    humantime::parse_rfc3339(time.1.as_str().unwrap()).unwrap();
    assert_eq!(expected, serde_json::json!(rest));
}

/// Goal: a text line is one line in columns, and nothing a caller sends moves the cursor.
/// Method: a forged field, with and without colours.
#[test]
fn a_text_line_cannot_be_forged() {
    let log = || {
        tracing::error!(target: "orders", user = "eve\n\u{1b}[2J", note = "two words", "declined");
    };
    let plain = in_call(|| written(Shape::Text { colour: false }, &info(), log));
    let (time, rest) = plain.split_at(12);
    assert!(
        time.bytes()
            .all(|byte| byte.is_ascii_digit() || b":.".contains(&byte)),
        "{time}"
    );
    let message = format!("{:<40}", "declined");
    assert_eq!(
        format!(
            " ERROR {message} orders user=eve\\n\\u{{1b}}[2J note=\"two words\" \
             rpc_method=shop.orders.v1.OrdersService/PlaceOrder \
             trace_id=0af7651916cd43dd8448eb211c80319c\n"
        ),
        rest
    );

    let coloured = written(Shape::Text { colour: true }, &info(), log);
    assert!(
        coloured.contains("\u{1b}[31mERROR\u{1b}[0m"),
        "{coloured:?}"
    );
    assert!(!coloured.contains("\u{1b}[2J"), "{coloured:?}");
}

/// Goal: a change of level holds from the next line on, for one module too.
/// Method: the same two events under three levels.
#[test]
fn a_new_level_holds_from_the_next_line_on() {
    let level = info();
    let text = written(Shape::Text { colour: false }, &level, || {
        let log = |round| {
            tracing::debug!(target: "orders::domain", "domain {round}");
            tracing::debug!(target: "orders::store", "store {round}");
        };
        log(1);
        level.set("info,orders::domain=debug").unwrap();
        log(2);
        level.set("debug").unwrap();
        log(3);
        level.set("nonsense").unwrap_err();
        log(4);
        level.set("off").unwrap();
        log(5);
    });
    let lines: Vec<_> = text
        .lines()
        .filter_map(|line| line.split_whitespace().nth(3))
        .collect();
    assert_eq!(vec!["2", "3", "3", "4", "4"], lines, "{text}");
}

/// Goal: spans cost one cached check while nobody exports them, at any log level.
/// Method: what the most talkative log says of the place of a call's span. Whether the span is
/// there depends on all subscribers of the process, and so on tests beside this one.
#[test]
fn no_span_is_enabled_by_the_log() {
    let level = LogLevel::new("trace".parse().unwrap());
    let writer = Writer::to(Sink::default()).unwrap();
    let layer = LogLayer::new(Shape::Json, "orders", writer).with_filter(level.filter());
    let log = registry().with(layer);
    let place = tracing::callsite! {
        name: "rpc.server",
        kind: tracing::metadata::Kind::SPAN,
        target: crate::names::span::RPC,
        level: tracing::Level::INFO,
        fields:
    };
    assert!(log.register_callsite(place.metadata()).is_never());

    let text = written(Shape::Json, &level, || tracing::trace!("a line"));
    assert!(text.contains("a line"));
}

/// Blocks its first write until told.
struct Stuck {
    began: std::sync::mpsc::SyncSender<()>,
    go_on: Receiver<()>,
    written: Sink,
}

impl Write for Stuck {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Both fail once the test is over; then nothing waits any more.
        let _ = self.began.send(());
        let _ = self.go_on.recv();
        self.written.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Goal: while nobody reads the log, logging does not wait, memory is bounded, losses are counted.
/// Method: an output that hangs; three megabytes of lines; then it goes on.
#[test]
fn a_stuck_output_costs_lines_and_no_time() {
    let recorder = crate::telemetry::prometheus::recorder();
    let metrics = recorder.handle();
    let sink = Sink::default();
    let (began, has_begun) = sync_channel(1);
    let (go_on, wait) = sync_channel(1);
    let stuck = Stuck {
        began,
        go_on: wait,
        written: sink.clone(),
    };
    let writer = metrics::with_local_recorder(&recorder, || Writer::to(stuck).unwrap());

    writer.write(b"first\n");
    has_begun.recv().unwrap();
    let line = [b'x'; 1_024];
    for _ in 0..3 * 1_024 {
        writer.write(&line);
    }
    drop(go_on);
    writer.flush();

    let written = sink.0.lock().unwrap().len();
    assert_eq!("first\n".len() + 1_024 * 1_024, written);
    let dropped = format!("gantry_log_lines_dropped_total {}\n", 2 * 1_024);
    assert!(metrics.render().contains(&dropped), "{}", metrics.render());
}

/// Goal: while a call is served whose method has a level of its own, that holds in place of the general
/// one, more or less; modules that are named keep theirs, and it ends when it is taken back, or goes on
/// where the general level is set anew.
/// Method: one line of each level in a call, outside of any and of a call that ends, for levels that are
/// set one after the other in one process.
#[test]
fn a_method_has_a_level_of_its_own() {
    fn lines() {
        tracing::debug!(target: "orders", "debug");
        tracing::warn!(target: "orders", "warn");
        tracing::debug!(target: "orders::store", "stored");
    }
    let level = LogLevel::new("info,orders::store=warn".parse().unwrap());
    let sink = Sink::default();
    let writer = Writer::to(sink.clone()).unwrap();
    let shape = Shape::Text { colour: false };
    let layer = LogLayer::new(shape, "orders", writer.clone()).with_filter(level.filter());
    let said = || {
        writer.flush();
        let bytes = std::mem::take(&mut *sink.0.lock().unwrap());
        let text = String::from_utf8(bytes).unwrap();
        let words = ["debug", "warn", "stored"];
        let lines = text.lines();
        let word = |line: &str| words.into_iter().find(|word| line.ends_with(word));
        // In a call, the method stands behind the message.
        let found = lines.map(|line| {
            let message = line.split("  ").find_map(word);
            message.or_else(|| {
                words
                    .into_iter()
                    .find(|word| line.contains(&format!(" {word}")))
            })
        });
        found.flatten().collect::<Vec<_>>()
    };
    let of = |said| ByPattern::from([("shop.orders.v1.OrdersService/*".to_owned(), said)]);
    tracing::subscriber::with_default(registry().with(layer), || {
        let three = || {
            lines();
            let outside = said();
            in_call(lines);
            let inside = said();
            level::while_serving(&"shop.orders.v1.OrdersService/Get".into(), lines);
            (outside, inside, said())
        };
        assert_eq!((vec!["warn"], vec!["warn"], vec!["warn"]), three());
        level.set_methods(&of(Some(Level::Debug)));
        let both = vec!["debug", "warn"];
        assert_eq!((vec!["warn"], both.clone(), both.clone()), three());
        level.set("error,orders::store=debug").unwrap();
        let all = vec!["debug", "warn", "stored"];
        assert_eq!((vec!["stored"], all.clone(), all), three());
        level.set("info").unwrap();
        level.set_methods(&of(Some(Level::Off)));
        assert_eq!((vec!["warn"], vec![], vec![]), three());
        level.set_methods(&of(None));
        assert_eq!((vec!["warn"], vec!["warn"], vec!["warn"]), three());
    });
}

/// Goal: where no method has a level, no line is looked at but once for its place.
/// Method: how a place is registered without, with one that says the same of it, and with one that does
/// not.
#[test]
fn without_levels_of_methods_no_line_is_looked_at() {
    let level = info();
    let layer = LogLayer::new(Shape::Json, "orders", Writer::to(Sink::default()).unwrap());
    let subscriber = registry().with(layer.with_filter(level.filter()));
    tracing::subscriber::with_default(subscriber, || {
        let place = tracing::callsite!(
            name: "place", kind: tracing::metadata::Kind::EVENT, target: "orders",
            level: tracing::Level::INFO, fields: message
        );
        let asked =
            || tracing::dispatcher::get_default(|it| it.register_callsite(place.metadata()));
        assert!(asked().is_always());
        level.set_methods(&ByPattern::from([("*".to_owned(), Some(Level::Debug))]));
        assert!(asked().is_always());
        level.set_methods(&ByPattern::from([("*".to_owned(), Some(Level::Warn))]));
        assert!(asked().is_sometimes());
        level.set_methods(&ByPattern::new());
        assert!(asked().is_always());
    });
}
