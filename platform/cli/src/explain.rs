//! `gantry explain`: what holds for the calls of a method.

use gantry_api::admin::v1::{
    ExplainPolicyRequest, ExplainPolicyResponse, PolicyValue,
    admin_service_client::AdminServiceClient,
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
    }
}

/// The explanation for people.
fn text(explained: &Explained) -> String {
    let heading = ["POLICY", "VALUE", "SAID BY", "ORIGIN"];
    let rows: Vec<_> = explained.values.iter().map(cells).collect();
    let table = output::table(heading, &rows);
    format!("{} in {}\n\n{table}", explained.method, explained.instance)
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

    /// Goal: people see each value, who says it and where, in columns.
    /// Method: one value that is set and one that is not.
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
            values: vec![
                value("timeout", "\"4s\"", "*", "config/orders.toml:7"),
                value("other", "", "", "default"),
            ],
        };
        let explained = explained("orders-1".to_owned(), "a.B/C".to_owned(), answer);
        let expected = "a.B/C in orders-1\n\n\
                        POLICY   VALUE  SAID BY  ORIGIN\n\
                        timeout  \"4s\"   *        config/orders.toml:7\n\
                        other    -      -        default";
        assert_eq!(expected, text(&explained));
    }
}
