//! `gantry explain`: what holds for the calls of a method.

use std::time::Duration;

use gantry_api::admin::v1::{
    CallBounds, ExplainPolicyRequest, ExplainPolicyResponse, PolicyValue,
    admin_service_client::AdminServiceClient, call_bounds::Way,
};
use serde::Serialize;

use crate::{
    Outcome,
    args::Explain,
    call::{self, target::Target},
    failure::{Exit, Failure},
    here,
    output::{self, Format},
    supervisor::control,
    wait,
};

/// What is printed for programs.
#[derive(Debug, Serialize)]
struct Explained {
    instance: String,
    method: String,
    patterns: Vec<String>,
    values: Vec<Said>,
    calls: Vec<Bounds>,
    /// The method there is with nearly this name, where none has it.
    meant: Option<String>,
}

/// What calls through one client can come to.
#[derive(Debug, Serialize)]
struct Bounds {
    client: String,
    /// `once`, `retried` or `hedged`.
    way: &'static str,
    /// None where there is no bound, here and below.
    latency_max_seconds: Option<f64>,
    timeout_seconds: Option<f64>,
    attempts_seconds: Option<f64>,
    pauses_seconds: f64,
    waits_seconds: f64,
    attempts_max: u32,
    repeats_max: u32,
    amplification: f64,
    spare_per_second: u32,
}

/// One key of a policy.
#[derive(Debug, Serialize)]
struct Said {
    key: String,
    /// As in a file; none where it is not set.
    value: Option<String>,
    /// Who has the last word; none for a default.
    pattern: Option<String>,
    origin: String,
    description: String,
}

pub(crate) async fn run(args: Explain) -> Outcome {
    let (_, state) = here()?;
    let reports = control::running(&state).await?;
    let chosen = wait::chosen(&args.name, &reports)?;
    let row = chosen.iter().map(|report| &report.row);
    let Some(row) = row.clone().find(|row| !row.side_address.is_empty()) else {
        let text = format!("{} has no process that could be asked", args.name);
        return Err(Failure::failed(text));
    };
    let target = Target::at(&row.side_address, None)?;
    let mut admin = AdminServiceClient::new(target.channel.clone());
    let asked = ExplainPolicyRequest {
        method: args.method.clone(),
    };
    let answer = admin.explain_policy(asked).await;
    target.close().await;
    let answer = answer.map_err(|status| call::failure(&status))?;
    let explained = explained(row.instance.clone(), args.method, answer.into_inner());
    match args.output {
        Format::Json => output::json(&explained),
        Format::Human => output::line(&text(&explained)),
    }
    Ok(Exit::Fine)
}

fn explained(instance: String, method: String, answer: ExplainPolicyResponse) -> Explained {
    let given = |text: String| Some(text).filter(|text| !text.is_empty());
    let value = |value: PolicyValue| Said {
        key: value.key,
        value: given(value.value),
        pattern: given(value.pattern),
        origin: value.origin,
        description: value.description,
    };
    Explained {
        instance,
        method,
        patterns: answer.patterns,
        values: answer.values.into_iter().map(value).collect(),
        calls: answer.calls.into_iter().map(bounds).collect(),
        meant: given(answer.meant),
    }
}

fn bounds(bounds: CallBounds) -> Bounds {
    let way = match bounds.way() {
        Way::Retried => "retried",
        Way::Hedged => "hedged",
        Way::Once | Way::Unspecified => "once",
    };
    let seconds = |duration: Option<prost_types::Duration>| {
        let duration: Duration = duration?.try_into().ok()?;
        Some(duration.as_secs_f64())
    };
    Bounds {
        way,
        latency_max_seconds: seconds(bounds.latency_max),
        timeout_seconds: seconds(bounds.timeout),
        attempts_seconds: seconds(bounds.attempts_time),
        pauses_seconds: seconds(bounds.pauses_time).unwrap_or_default(),
        waits_seconds: seconds(bounds.waits_time).unwrap_or_default(),
        attempts_max: bounds.attempts_max,
        repeats_max: bounds.repeats_max,
        amplification: bounds.amplification,
        spare_per_second: bounds.spare_per_second,
        client: bounds.client,
    }
}

/// The explanation for people.
fn text(explained: &Explained) -> String {
    let heading = ["POLICY", "VALUE", "SAID BY", "ORIGIN"];
    let rows: Vec<_> = explained.values.iter().map(cells).collect();
    let table = output::table(heading, &rows);
    let head = format!("{} in {}\n\n{table}", explained.method, explained.instance);
    let calls = explained.calls.iter().map(in_words);
    let meant = explained.meant.iter().map(|meant| {
        let method = &explained.method;
        format!("\n{method} is neither served nor called there; did you mean {meant}?\n")
    });
    std::iter::once(head).chain(calls).chain(meant).collect()
}

/// What calls through one client can come to, for people.
fn in_words(bounds: &Bounds) -> String {
    let time = |seconds: f64| format!("{:?}", Duration::from_secs_f64(seconds));
    let Bounds { client, way, .. } = bounds;
    let latency = bounds
        .latency_max_seconds
        .map_or_else(|| "none that is known".to_owned(), time);
    let mut parts = Vec::new();
    if let Some(attempts) = bounds.attempts_seconds {
        parts.push(format!("attempts {}", time(attempts)));
    }
    parts.push(format!("pauses {}", time(bounds.pauses_seconds)));
    parts.push(format!(
        "waits for an instance {}",
        time(bounds.waits_seconds)
    ));
    parts.push(match bounds.timeout_seconds {
        Some(timeout) => format!("ended after {}", time(timeout)),
        None => "no timeout".to_owned(),
    });
    let parts = parts.join(", ");
    let mut many = format!("{} for each of many", bounds.amplification);
    if bounds.spare_per_second > 0 {
        many = format!("{many} and {} a second", bounds.spare_per_second);
    }
    format!(
        "\n\ncalled through {client}, {way}\n  worst-case latency  {latency} ({parts})\n  \
         amplification       {} attempts for one call, and {} that reach no handler; {many}",
        bounds.attempts_max, bounds.repeats_max
    )
}

fn cells(value: &Said) -> [String; 4] {
    let or = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    [
        value.key.clone(),
        or(&value.value),
        or(&value.pattern),
        value.origin.clone(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: people see each value, who says it and where, in columns, and below what it comes to.
    /// Method: one value that is set and one that is not; one client.
    #[test]
    fn an_explanation_is_a_table() {
        let value = |key: &str, value: &str, pattern: &str, origin: &str| PolicyValue {
            key: key.to_owned(),
            value: value.to_owned(),
            pattern: pattern.to_owned(),
            origin: origin.to_owned(),
            description: "what it is for".to_owned(),
        };
        let answer = ExplainPolicyResponse {
            patterns: vec!["*".to_owned()],
            meant: String::new(),
            values: vec![
                value("timeout", "\"4s\"", "*", "config/orders.toml:7"),
                value("other", "", "", "default"),
            ],
            calls: vec![CallBounds {
                client: "payments".to_owned(),
                way: Way::Retried.into(),
                latency_max: Some(Duration::from_millis(2_280).try_into().unwrap()),
                timeout: Some(Duration::from_secs(4).try_into().unwrap()),
                attempts_time: Some(Duration::from_millis(1_400).try_into().unwrap()),
                pauses_time: Some(Duration::from_millis(180).try_into().unwrap()),
                waits_time: Some(Duration::from_millis(700).try_into().unwrap()),
                attempts_max: 3,
                repeats_max: 4,
                amplification: 1.2,
                spare_per_second: 10,
            }],
        };
        let explained = explained("orders-1".to_owned(), "a.B/C".to_owned(), answer);
        let expected = "a.B/C in orders-1\n\n\
                        POLICY   VALUE  SAID BY  ORIGIN\n\
                        timeout  \"4s\"   *        config/orders.toml:7\n\
                        other    -      -        default\n\n\
                        called through payments, retried\n  \
                        worst-case latency  2.28s (attempts 1.4s, pauses 180ms, \
                        waits for an instance 700ms, ended after 4s)\n  \
                        amplification       3 attempts for one call, and 4 that reach no handler; \
                        1.2 for each of many and 10 a second";
        assert_eq!(expected, text(&explained));
    }
}
