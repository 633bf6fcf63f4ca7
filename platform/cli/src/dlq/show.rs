//! `gantry dlq show`: all that is known of one dead letter.

use std::fmt::Write as _;

use gantry_events::{
    broker::{DeadLetter, Headers},
    dead::{Chosen, Walk},
    headers::{SOURCE, SUBJECT},
};
use prost_reflect::DynamicMessage;
use serde::Serialize;
use serde_json::Value;

use crate::{
    Outcome,
    args::DlqShow,
    broker::Reached,
    call::{reflection::Reflection, target::Target},
    failure::{Exit, Failure},
    here,
    output::{self, Format},
    supervisor::control,
    wait,
};

/// A letter, as it is printed for programs.
#[derive(Debug, Serialize)]
struct Shown {
    group: String,
    place: u64,
    partition: u16,
    topic: String,
    headers: Headers,
    body_bytes: usize,
    /// Where it is asked for, here and below.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    /// Null where nobody describes its type.
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<Value>,
}

pub(super) async fn run(reached: &Reached, args: &DlqShow) -> Outcome {
    let failed = |error| reached.failure(&error);
    let chosen = Chosen::one(args.letter.clone());
    let walk = Walk::begin(&*reached.broker, &args.group, &chosen).await;
    let letter = walk.map_err(failed)?.next().await.map_err(failed)?;
    let Some(letter) = letter else {
        let (group, name) = (&args.group, &args.letter);
        let text = format!("no dead letter {name} in {group}; see `gantry dlq list {group}`");
        return Err(Failure::usage(text));
    };
    let mut shown = shown(&args.group, &letter, args.key);
    if args.body {
        let body = read(&args.group, &letter).await.unwrap_or_else(|failure| {
            output::note(&format!("the body cannot be read: {failure}"));
            Value::Null
        });
        shown.body = Some(body);
    }
    match args.output {
        Format::Json => output::json(&shown),
        Format::Human => output::line(&text(&shown)),
    }
    Ok(Exit::Fine)
}

fn shown(group: &str, letter: &DeadLetter, with_key: bool) -> Shown {
    let message = &letter.message;
    let mut headers = message.headers.clone();
    // The key once more.
    if !with_key {
        headers.remove(SUBJECT);
    }
    Shown {
        group: group.to_owned(),
        place: letter.place,
        partition: letter.partition,
        topic: message.topic.clone(),
        headers,
        body_bytes: message.body.len(),
        key: with_key.then(|| message.key.clone()),
        body: None,
    }
}

/// The body as JSON, by the description of a running service: of the group's, or else of the source's.
async fn read(group: &str, letter: &DeadLetter) -> Result<Value, Failure> {
    let consumer = group.split('.').next().unwrap_or_default();
    let source = letter.message.headers.get(SOURCE);
    let source = source.map(|source| source.trim_start_matches('/'));
    let mut failure = None;
    for service in [Some(consumer), source].into_iter().flatten() {
        match read_by(service, letter).await {
            Ok(value) => return Ok(value),
            Err(error) => {
                let text = format!("{service}: {error}");
                failure.get_or_insert(Failure::failed(text));
            }
        }
    }
    Err(failure.unwrap_or_else(|| Failure::failed("its headers name no service")))
}

async fn read_by(service: &str, letter: &DeadLetter) -> Result<Value, Failure> {
    let (_, state) = here()?;
    let reports = control::running(&state).await?;
    let reports = wait::chosen(service, &reports)?;
    let row = reports.first().map(|report| &report.row);
    let Some(row) = row.filter(|row| row.pid.is_some()) else {
        return Err(Failure::failed("it has no process that could be asked"));
    };
    let target = Target::at(&row.address, None)?;
    let described = async {
        let (reflection, _) = Reflection::of(target.channel.clone()).await?;
        reflection.pool(&letter.message.topic).await
    };
    let pool = described.await;
    target.close().await;
    let topic = &letter.message.topic;
    let unknown = || Failure::failed(format!("it does not describe {topic}"));
    let descriptor = pool?.get_message_by_name(topic).ok_or_else(unknown)?;
    let unreadable = |error: &dyn std::fmt::Display| Failure::failed(format!("{topic}: {error}"));
    let message = DynamicMessage::decode(descriptor, letter.message.body.clone());
    let message = message.map_err(|error| unreadable(&error))?;
    serde_json::to_value(message).map_err(|error| unreadable(&error))
}

fn text(shown: &Shown) -> String {
    let Shown {
        group,
        place,
        partition,
        topic,
        body_bytes,
        ..
    } = shown;
    // Whoever published it may have called it anything.
    let topic = output::plain(topic);
    let mut text = format!("{topic}\nletter {place} of {group}, from its queue {partition}\n");
    if let Some(key) = &shown.key {
        let _ = writeln!(text, "key: {}", output::plain(key));
    }
    let headers: Vec<_> = shown
        .headers
        .iter()
        .map(|(name, value)| [name.clone(), value.clone()])
        .collect();
    let _ = write!(
        text,
        "\n{}\n\nbody: {body_bytes} bytes",
        output::table(["HEADER", "VALUE"], &headers)
    );
    match &shown.body {
        None | Some(Value::Null) => {}
        Some(body) => {
            let _ = write!(text, "\n{body:#}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use gantry_events::{Message, headers::DEAD_ERROR};

    use super::*;

    /// Goal: neither key nor body is shown to who does not ask for it; what is known is.
    /// Method: one letter, with the key and without.
    #[test]
    fn keys_are_shown_to_who_asks() {
        let headers = [(SUBJECT, "order-1"), (DEAD_ERROR, "no such account")];
        let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        let letter = DeadLetter {
            place: 17,
            partition: 3,
            message: Message {
                topic: "shop.orders.v1.OrderPlaced".to_owned(),
                key: "order-1".to_owned(),
                headers: headers.map(owned).into(),
                body: "order-1".into(),
            },
        };
        let quiet = shown("notifications.notices", &letter, false);
        let expected = "\
shop.orders.v1.OrderPlaced
letter 17 of notifications.notices, from its queue 3

HEADER             VALUE
gantry-dead-error  no such account

body: 7 bytes";
        assert_eq!(expected, text(&quiet));
        assert!(!output::to_json(&quiet).contains("order-1"));
        let mut told = shown("notifications.notices", &letter, true);
        told.body = Some(serde_json::json!({"orderId": "1"}));
        told.topic = "\u{1b}[2J".to_owned();
        let text = text(&told);
        assert!(!text.contains('\u{1b}'), "{text:?}");
        for words in ["key: order-1", "subject", "\"orderId\": \"1\""] {
            assert!(text.contains(words), "{words} in {text}");
        }
    }
}
