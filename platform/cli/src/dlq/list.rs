//! `gantry dlq list`: who has dead letters, and which.

use std::collections::BTreeSet;

use gantry_events::{
    broker::{BrokerError, DeadLetter, Fill},
    dead::{Chosen, Walk},
    headers::SOURCE,
};
use serde::Serialize;

use crate::{
    Outcome,
    args::{DlqList, Filter},
    ask,
    broker::Reached,
    failure::{Exit, Failure},
    output::{self, Format},
    supervisor::Row,
};

/// A group, as it is printed for programs.
#[derive(Debug, Serialize)]
struct GroupRow {
    group: String,
    dead_letters: u64,
    ready: u64,
    delayed: u64,
    unsettled: u64,
    consumers: u64,
}

/// A letter, likewise.
#[derive(Debug, Serialize)]
struct LetterRow {
    place: u64,
    /// Empty where its headers do not say, here and below.
    id: String,
    topic: String,
    source: String,
    partition: u16,
    attempts: Option<u32>,
    reason: String,
    time: String,
    redriven: u32,
    body_bytes: usize,
}

pub(super) async fn run(reached: &Reached, args: &DlqList) -> Outcome {
    match &args.group {
        Some(group) => letters(reached, group, args).await,
        None => groups(reached, args).await,
    }
}

async fn groups(reached: &Reached, args: &DlqList) -> Outcome {
    if args.filter.topic.is_some() || args.filter.reason.is_some() {
        return Err(Failure::usage(
            "--topic and --reason are for the letters of one group: gantry dlq list GROUP; without one, the number of each group is shown",
        ));
    }
    let failed = |error| reached.failure(&error);
    let (names, told) = match reached.broker.groups().await.map_err(failed)? {
        Some(names) => (names, Ok(Exit::Fine)),
        None => of_instances().await?,
    };
    let mut rows = Vec::new();
    for name in names {
        let fill = match reached.broker.fill(&name).await {
            Ok(fill) => fill,
            // It has just gone, or is one of another broker.
            Err(BrokerError::Missing(_)) => continue,
            Err(error) => return Err(failed(error)),
        };
        if args.all || fill.dead_letters > 0 {
            rows.push(group(name, &fill));
        }
    }
    match args.output {
        Format::Json => output::json(&rows),
        Format::Human if rows.is_empty() => output::note("nobody has dead letters"),
        Format::Human => output::line(&groups_table(&rows)),
    }
    told
}

/// The groups of running instances, for a broker that does not tell its own; and how the verb ends, as an
/// instance may not have answered.
async fn of_instances() -> Result<(Vec<String>, Outcome), Failure> {
    let reports = ask::running().await.map_err(|_| {
        Failure::usage(
            "this broker does not tell its groups, and no `gantry up` runs here that would; name one, as \
             in `gantry dlq list notifications.notices`",
        )
    })?;
    let asked = async |channel, _: &Row| {
        let shown = ask::events(channel).await?;
        let groups = shown.consumers.into_iter().map(|it| it.group);
        Ok(groups.collect())
    };
    let answers = ask::all(&reports, asked).await;
    let names: BTreeSet<_> = answers.rows.iter().cloned().collect();
    Ok((names.into_iter().collect(), answers.exit()))
}

fn group(name: String, fill: &Fill) -> GroupRow {
    GroupRow {
        group: name,
        dead_letters: fill.dead_letters,
        ready: fill.ready.iter().sum(),
        delayed: fill.delayed,
        unsettled: fill.unsettled,
        consumers: fill.consumers,
    }
}

fn groups_table(groups: &[GroupRow]) -> String {
    let heading = [
        "GROUP",
        "DEAD",
        "READY",
        "DELAYED",
        "UNSETTLED",
        "CONSUMERS",
    ];
    let cells = |row: &GroupRow| {
        [
            row.group.clone(),
            row.dead_letters.to_string(),
            row.ready.to_string(),
            row.delayed.to_string(),
            row.unsettled.to_string(),
            row.consumers.to_string(),
        ]
    };
    let rows: Vec<_> = groups.iter().map(cells).collect();
    output::table(heading, &rows)
}

async fn letters(reached: &Reached, group: &str, args: &DlqList) -> Outcome {
    let failed = |error| reached.failure(&error);
    let chosen = of(&args.filter);
    let walk = Walk::begin(&*reached.broker, group, &chosen).await;
    let mut walk = walk.map_err(failed)?;
    let (mut rows, mut further) = (Vec::new(), false);
    let count_max = usize::try_from(args.count.get()).unwrap_or(usize::MAX);
    while let Some(letter) = walk.next().await.map_err(failed)? {
        if rows.len() == count_max {
            further = true;
            break;
        }
        rows.push(self::letter(&letter));
    }
    match args.output {
        Format::Json => output::json(&rows),
        Format::Human if rows.is_empty() => output::note("no such dead letters"),
        Format::Human => output::line(&letters_table(&rows)),
    }
    if further {
        output::note(&format!(
            "there are further ones; --count shows more than {count_max}"
        ));
    }
    Ok(Exit::Fine)
}

/// All letters that a filter lets through.
pub(super) fn of(filter: &Filter) -> Chosen {
    Chosen {
        topic: filter.topic.clone(),
        reason: filter.reason,
        ..Chosen::default()
    }
}

fn letter(letter: &DeadLetter) -> LetterRow {
    let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
    let headers = &letter.message.headers;
    LetterRow {
        place: letter.place,
        id: text(letter.id()),
        topic: letter.message.topic.clone(),
        source: headers.get(SOURCE).cloned().unwrap_or_default(),
        partition: letter.partition,
        attempts: letter.attempts(),
        reason: text(letter.reason()),
        time: text(letter.time()),
        redriven: letter.redriven(),
        body_bytes: letter.message.body.len(),
    }
}

fn letters_table(letters: &[LetterRow]) -> String {
    let heading = [
        "PLACE", "TOPIC", "ATTEMPTS", "REASON", "WHEN", "REDRIVEN", "ID",
    ];
    let rows: Vec<_> = letters.iter().map(cells).collect();
    output::table(heading, &rows)
}

fn cells(letter: &LetterRow) -> [String; 7] {
    let known = |text: &str| if text.is_empty() { "-" } else { text }.to_owned();
    [
        letter.place.to_string(),
        letter.topic.clone(),
        letter
            .attempts
            .map_or_else(|| "-".to_owned(), |count| count.to_string()),
        known(&letter.reason),
        known(&letter.time),
        letter.redriven.to_string(),
        known(&letter.id),
    ]
}

#[cfg(test)]
mod tests {
    use gantry_events::{Message, headers::*};

    use super::*;

    /// Goal: people see where a letter is, why it is one and how often it went back, and nothing of
    /// what is in it; what is not known is a dash.
    /// Method: one that says all, and one that says nothing.
    #[test]
    fn letters_are_a_table() {
        let headers = [
            (ID, "0193"),
            (SUBJECT, "order-1"),
            (DEAD_REASON, "rejected"),
            (DEAD_ERROR, "no such order-1"),
            (DEAD_ATTEMPTS, "5"),
            (DEAD_TIME, "2026-01-02T03:04:05Z"),
            (REDRIVEN, "2"),
        ];
        let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        let message = Message {
            topic: "shop.orders.v1.OrderPlaced".to_owned(),
            key: "order-1".to_owned(),
            headers: headers.map(owned).into(),
            body: "order-1".into(),
        };
        let told = DeadLetter {
            place: 17,
            partition: 3,
            message: message.clone(),
        };
        let silent = DeadLetter {
            place: 18,
            partition: 0,
            message: Message {
                headers: std::collections::BTreeMap::default(),
                ..message
            },
        };
        let rows = [letter(&told), letter(&silent)];
        let expected = "\
PLACE  TOPIC                       ATTEMPTS  REASON    WHEN                  REDRIVEN  ID
17     shop.orders.v1.OrderPlaced  5         rejected  2026-01-02T03:04:05Z  2         0193
18     shop.orders.v1.OrderPlaced  -         -         -                     0         -";
        assert_eq!(expected, letters_table(&rows));
        assert!(!output::to_json(&rows).contains("order-1"));
    }
}
