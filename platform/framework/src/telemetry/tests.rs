//! Declarations and settings, as a service uses them.

use std::{sync::Arc, time::Duration};

use super::{
    Config,
    db::{Database, Outcome},
    event::Event as _,
    platform::{
        Check, Configurations, Connections, EndpointState, Endpoints, RefusedConnection, Reload,
    },
};
use crate::{
    config::{self, Sources},
    names::{Kind, Metric},
    testing::telemetry::{Capture, capture},
};

super::label! {
    /// Why a login failed.
    enum Failure {
        /// There is no such account.
        UnknownAccount = "unknown_account",
        /// The password is another.
        WrongPassword = "wrong_password",
    }
}

super::label! {
    /// Where from.
    enum Door {
        /// The front.
        Front = "front",
        /// The back.
        Back = "back",
    }
}

super::metrics! {
    /// How logins go.
    struct AuthMetrics {
        /// Logins asked for,
        /// however they ended.
        requests: counter "auth_requests_total";
        /// Logins refused.
        failures: counter "auth_failure_total" { reason: Failure, door: Door };
        /// How long a login takes.
        duration: histogram "auth_duration_seconds" seconds { reason: Failure };
        /// Hashes computed now.
        hashing: gauge "auth_hashes_in_flight";
        /// How large a token is.
        size: histogram "auth_token_bytes" bytes;
    }
}

super::event! {
    /// Someone was refused.
    struct Refused: WARN "login refused" {
        /// Why.
        reason: Failure,
        /// How often in a row.
        times: u64,
        /// How long it took.
        taken: Duration,
        /// From where, if known.
        door: Option<Door>,
        /// For which account.
        account_id: String,
    }
}

/// Goal: a declaration becomes handles whose series appear at zero, labelled by closed values, with
/// the declared description.
/// Method: each kind of metric, without a label, with one and with two.
#[test]
fn declared_metrics_are_there_from_the_start() {
    let capture = capture();
    let metrics = AuthMetrics::register();
    assert_eq!(4, capture.series("auth_failure_total").len());
    assert_eq!(Some(0.0), capture.value("auth_requests_total", &[]));

    metrics.requests.add(3);
    metrics
        .failures
        .with((Failure::WrongPassword, Door::Back))
        .increment();
    let slow = metrics.duration.with(Failure::UnknownAccount);
    slow.record_duration(Duration::from_millis(60));
    metrics.size.record(300.0);
    let held = metrics.hashing.hold();

    let failures =
        |reason, door| capture.value("auth_failure_total", &[("reason", reason), ("door", door)]);
    assert_eq!(Some(3.0), capture.value("auth_requests_total", &[]));
    assert_eq!(Some(1.0), failures("wrong_password", "back"));
    assert_eq!(Some(0.0), failures("wrong_password", "front"));
    assert_eq!(Some(1.0), capture.value("auth_hashes_in_flight", &[]));
    drop(held);
    assert_eq!(Some(0.0), capture.value("auth_hashes_in_flight", &[]));
    let bucket = |name, bound| capture.value(name, &[("le", bound)]);
    assert_eq!(Some(0.0), bucket("auth_token_bytes_bucket", "256"));
    assert_eq!(Some(1.0), bucket("auth_token_bytes_bucket", "1024"));

    let Metric {
        kind, description, ..
    } = AuthMetrics::ALL[0];
    assert_eq!(Kind::Counter, kind);
    assert_eq!("Logins asked for, however they ended.", description);
    assert_eq!(["reason", "door"], AuthMetrics::ALL[1].labels);
}

/// Goal: a declared event is a log line with typed fields and an event of the span around it.
/// Method: one event inside a span, with a field that is absent.
#[test]
fn a_declared_event_is_a_line_and_a_span_event() {
    let capture = capture();
    let event = Refused {
        reason: Failure::WrongPassword,
        times: 3,
        taken: Duration::from_millis(1_500),
        door: None,
        account_id: "a-1".to_owned(),
    };
    tracing::info_span!("login").in_scope(|| event.emit());

    let line = &capture.lines()[0];
    assert_eq!(
        ("WARN", "login refused"),
        (&*line.level(), &*line.message())
    );
    let expected = [
        ("reason", Some("wrong_password")),
        ("times", Some("3")),
        ("taken", Some("1.5")),
        ("door", None),
        ("account_id", Some("a-1")),
    ];
    for (field, value) in expected {
        assert_eq!(value, line.get(field).as_deref(), "{field}");
    }
    assert_eq!(["login refused"], capture.spans()[0].events[..]);
    assert_eq!("Someone was refused.", Refused::DESCRIPTION);
    assert_eq!(("times", "How often in a row."), Refused::FIELDS[1]);
}

fn count(capture: &Capture, name: &str, outcome: &str) -> Option<f64> {
    let labels = [("outcome", outcome)];
    let labels = if outcome.is_empty() {
        &[][..]
    } else {
        &labels[..]
    };
    capture.value(&format!("{name}_count"), labels)
}

/// Goal: a statement is a span below the work that runs it, with its name and its wait; waits and
/// durations are measured apart, a wait in vain too.
/// Method: a statement of each outcome, one that never got a connection, on a paused clock.
#[tokio::test(start_paused = true)]
async fn statements_are_measured_apart_from_their_wait() {
    let capture = capture();
    let database = Database::new("sqlite");
    let around = tracing::info_span!("handler");
    for outcome in [Outcome::Ok, Outcome::Error] {
        let mut statement = around.in_scope(|| database.statement("orders.place"));
        tokio::time::advance(Duration::from_millis(200)).await;
        statement.connected();
        tokio::time::advance(Duration::from_millis(20)).await;
        statement.end(outcome);
    }
    drop(database.statement("orders.never"));
    drop(around);

    let (duration, wait) = (
        "gantry_db_statement_duration_seconds",
        "gantry_db_pool_wait_seconds",
    );
    let counts = ["ok", "error", "cancelled"].map(|outcome| count(&capture, duration, outcome));
    assert_eq!([Some(1.0), Some(1.0), Some(0.0)], counts);
    assert_eq!(Some(3.0), count(&capture, wait, ""));
    let within = |name: &str, le| capture.value(&format!("{name}_bucket"), &[("le", le)]);
    assert_eq!(
        Some(1.0),
        within(wait, "0.1"),
        "the wait in vain alone is short"
    );
    let ok = [("outcome", "ok"), ("le", "0.025")];
    assert_eq!(Some(1.0), capture.value(&format!("{duration}_bucket"), &ok));

    let spans = capture.spans();
    let [placed, failed, never, around] = &spans[..] else {
        panic!("four spans, not {spans:?}");
    };
    assert_eq!(("orders.place", "client"), (&*placed.name, placed.kind));
    assert_eq!(Some(around.span_id), placed.parent_id);
    assert_eq!("sqlite", placed.attributes["db.system.name"]);
    assert_eq!("orders.place", placed.attributes["db.query.summary"]);
    assert_eq!("0.2", placed.attributes["gantry.db.pool_wait_seconds"]);
    assert_eq!(
        [false, true, true],
        [placed, failed, never].map(|span| span.error)
    );
    assert_eq!("cancelled", never.attributes["error.type"]);
}

/// Goal: the platform's handles move the metrics they say.
/// Method: each handle once, there and back.
#[test]
fn platform_handles_move_their_metrics() {
    let capture = capture();
    let connections = Connections::register();
    connections.accept(2);
    connections.open(2);
    connections.open(1);
    connections.refuse(RefusedConnection::Tls, 1);
    let target: Arc<str> = "catalog".into();
    let endpoints = Endpoints::register(&target);
    let mut endpoint = endpoints.hold(EndpointState::Connecting);
    assert_eq!(
        Some(1.0),
        capture.value("gantry_endpoints", &[("state", "connecting")])
    );
    endpoint = {
        drop(endpoint);
        endpoints.hold(EndpointState::Ready)
    };
    let configurations = Configurations::register();
    configurations.version(7);
    configurations.reload(Reload::Refused);
    Check::register("database").ran(false, Duration::from_millis(1));

    let values = [
        ("gantry_server_connections_open", ("", ""), 1.0),
        ("gantry_server_connections_accepted_total", ("", ""), 2.0),
        (
            "gantry_server_connections_refused_total",
            ("reason", "tls"),
            1.0,
        ),
        (
            "gantry_server_connections_refused_total",
            ("reason", "protocol"),
            0.0,
        ),
        ("gantry_endpoints", ("state", "connecting"), 0.0),
        ("gantry_endpoints", ("state", "ready"), 1.0),
        ("gantry_config_version", ("", ""), 7.0),
        ("gantry_config_reloads_total", ("outcome", "refused"), 1.0),
        ("gantry_health_check_passing", ("check", "database"), 0.0),
        (
            "gantry_health_check_duration_seconds_count",
            ("check", "database"),
            1.0,
        ),
    ];
    for (name, label, value) in values {
        let labels = [label];
        let labels = if label.0.is_empty() {
            &[][..]
        } else {
            &labels[..]
        };
        assert_eq!(Some(value), capture.value(name, labels), "{name} {label:?}");
    }
    drop(endpoint);
    assert_eq!(
        Some(0.0),
        capture.value("gantry_endpoints", &[("state", "ready")])
    );
}

/// Goal: senseless settings are refused with the configuration, each by what is wrong with it.
/// Method: one text per rule; and one that is fine.
#[test]
fn senseless_settings_are_refused() {
    let load = |text: &str| config::load::<Config>(Sources::new().text("telemetry.toml", text));
    let cases = [
        ("log_level = 'inof'", "\"inof\" is none"),
        ("log_level = 'info,h2=loud'", "\"h2=loud\" is none"),
        ("log_format = 'xml'", "\"auto\", \"text\", \"json\""),
        ("sample_ratio = 1.5", "from 0 to 1"),
        ("span_delay_max = '0s'", "more than 0"),
        ("span_queue_max = 0", "1"),
        ("otlp_endpoint = 'ftp://c'", "http://127.0.0.1:4317"),
    ];
    for (text, part) in cases {
        let faults = load(text).unwrap_err().to_string();
        assert!(faults.contains(part), "{text}: {faults}");
    }
    let loaded = load("log_level = 'debug,h2=info'\notlp_endpoint = 'collector:4317'").unwrap();
    assert_eq!("debug,h2=info", loaded.config().log_level.to_string());
}
