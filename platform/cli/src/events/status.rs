//! `gantry events status`: how events fare in running instances.

use std::time::{Duration, SystemTime};

use gantry_api::admin::v1::{
    BrokerConnection, ConsumerTrouble, EventBroker, EventConsumer, EventOutbox, EventRefusal,
    EventWait, GetEventsResponse, QueueFill, RefusedEvents,
};
use prost_types::Timestamp;
use serde::Serialize;

use crate::{
    Outcome, args, ask,
    output::{self, Format, counted},
};

/// How events fare in one instance.
#[derive(Debug, Serialize)]
struct Row {
    instance: String,
    broker: Broker,
    outbox: Outbox,
    consumers: Vec<Consumer>,
}

#[derive(Debug, Serialize)]
struct Broker {
    system: String,
    url: String,
    connections: Vec<Connection>,
}

#[derive(Debug, Serialize)]
struct Connection {
    purpose: String,
    state: String,
    seconds_in_state: Option<f64>,
    error: Option<String>,
    attempts: u64,
}

#[derive(Debug, Serialize)]
struct Outbox {
    pending: u64,
    oldest_age_seconds: Option<f64>,
    in_flight: u32,
    keys_claimed: u32,
    waits: Vec<Wait>,
    refused: Vec<Refused>,
    error: Option<String>,
}

#[derive(Debug, Serialize)]
struct Wait {
    reason: String,
    /// None where everything waits.
    topic: Option<String>,
    keys: u32,
    attempts: u32,
    seconds: Option<f64>,
    /// None while it is tried.
    next_attempt_ms: Option<u64>,
}

#[derive(Debug, Serialize)]
struct Refused {
    reason: String,
    count: u64,
    seconds_since_last: Option<f64>,
    last_topic: String,
    last_error: String,
}

#[derive(Debug, Serialize)]
struct Consumer {
    group: String,
    state: String,
    partitions: Vec<u32>,
    in_flight: u32,
    held: u32,
    held_keys: u32,
    troubles: Vec<Trouble>,
    /// None where the broker was not asked yet.
    queued: Option<Queued>,
}

#[derive(Debug, Serialize)]
struct Trouble {
    reason: String,
    partitions: Vec<u32>,
    seconds: Option<f64>,
    attempts: u64,
    error: String,
}

#[derive(Debug, Serialize)]
struct Queued {
    ready: u64,
    unsettled: u64,
    delayed: u64,
    dead_letters: u64,
    strays: u64,
}

pub(crate) async fn run(args: args::EventsStatus) -> Outcome {
    let reports = ask::running().await?;
    let asked = async |channel, row: &crate::supervisor::Row| {
        let shown = ask::events(channel).await?;
        let row = Row::of(&row.instance, shown, now());
        Ok(row.into_iter().collect())
    };
    let answers = match &args.name {
        Some(name) => ask::each(name, &reports, asked).await?,
        None => ask::all(&reports, asked).await,
    };
    match args.output {
        Format::Json => output::json(&answers.rows),
        Format::Human if answers.rows.is_empty() => answers.note("no events are there"),
        Format::Human => {
            let texts: Vec<_> = answers.rows.iter().map(Row::text).collect();
            output::line(&texts.join("\n\n"));
        }
    }
    answers.exit()
}

/// Wall-clock time, against which the times of others are told.
#[expect(clippy::disallowed_methods, reason = "for people")]
fn now() -> SystemTime {
    SystemTime::now()
}

fn given(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

/// How long ago that is, in seconds.
fn ago(time: Option<Timestamp>, now: SystemTime) -> Option<f64> {
    let time = SystemTime::try_from(time?).ok()?;
    let age = now.duration_since(time).unwrap_or(Duration::ZERO);
    Some(age.as_secs_f64())
}

impl Row {
    /// None where the instance has no events.
    fn of(instance: &str, shown: GetEventsResponse, now: SystemTime) -> Option<Self> {
        Some(Self {
            instance: instance.to_owned(),
            broker: Broker::of(shown.broker?, now),
            outbox: Outbox::of(shown.outbox.unwrap_or_default(), now),
            consumers: {
                let consumers = shown.consumers.into_iter();
                consumers.map(|it| Consumer::of(it, now)).collect()
            },
        })
    }

    /// For people: a line for the instance, and one for each thing that there is to say.
    fn text(&self) -> String {
        let broker = &self.broker;
        let url = if broker.url.is_empty() { "" } else { " at " };
        let head = format!("{}: {}{url}{}", self.instance, broker.system, broker.url);
        let lines = broker.connections.iter().map(Connection::text);
        let lines = lines.chain(self.outbox.lines());
        let lines = lines.chain(self.consumers.iter().flat_map(Consumer::lines));
        let lines = lines.map(|line| format!("  {}", output::plain(&line)));
        let all: Vec<_> = std::iter::once(head).chain(lines).collect();
        all.join("\n")
    }
}

impl Broker {
    fn of(broker: EventBroker, now: SystemTime) -> Self {
        let connections = broker.connections.into_iter();
        Self {
            system: broker.system,
            url: broker.url,
            connections: connections.map(|it| Connection::of(it, now)).collect(),
        }
    }
}

impl Connection {
    fn of(connection: BrokerConnection, now: SystemTime) -> Self {
        let state = connection.state().as_str_name();
        Self {
            state: state.trim_start_matches("STATE_").to_owned(),
            purpose: connection.purpose,
            seconds_in_state: ago(connection.state_time, now),
            error: given(connection.error),
            attempts: connection.attempts,
        }
    }

    fn text(&self) -> String {
        let mut text = format!("{:<11} {}", self.purpose, self.state);
        if let Some(seconds) = self.seconds_in_state {
            text = format!("{text} for {}", time(seconds));
        }
        if let Some(error) = &self.error {
            text = format!("{text}, {}: {error}", counted(self.attempts, "attempt"));
        }
        text
    }
}

fn word(reason: i32) -> String {
    let reason = EventRefusal::try_from(reason).unwrap_or_default();
    let word = reason.as_str_name();
    word.trim_start_matches("EVENT_REFUSAL_").to_lowercase()
}

impl Outbox {
    fn of(outbox: EventOutbox, now: SystemTime) -> Self {
        Self {
            pending: outbox.pending,
            oldest_age_seconds: ago(outbox.oldest_time, now),
            in_flight: outbox.in_flight,
            keys_claimed: outbox.keys_claimed,
            waits: {
                let waits = outbox.waits.into_iter();
                waits.map(|it| Wait::of(it, now)).collect()
            },
            refused: {
                let refused = outbox.refused.into_iter();
                refused.map(|it| Refused::of(it, now)).collect()
            },
            error: given(outbox.error),
        }
    }

    fn lines(&self) -> Vec<String> {
        let oldest = self.oldest_age_seconds.map(time);
        let oldest = oldest.map_or_else(String::new, |age| format!(", the oldest for {age}"));
        let mut lines = vec![format!(
            "outbox      {} pending{oldest}; {} in flight",
            self.pending, self.in_flight
        )];
        if let Some(error) = &self.error {
            lines.push(format!("  not read and written: {error}"));
        }
        lines.extend(self.waits.iter().map(Wait::text));
        lines.extend(self.refused.iter().map(Refused::text));
        lines
    }
}

impl Wait {
    fn of(wait: EventWait, now: SystemTime) -> Self {
        let next = wait.next_attempt.and_then(|it| Duration::try_from(it).ok());
        let millis = next.map(|it| u64::try_from(it.as_millis()).unwrap_or(u64::MAX));
        Self {
            reason: word(wait.reason),
            topic: given(wait.topic),
            keys: wait.keys,
            attempts: wait.attempts,
            seconds: ago(wait.begin_time, now),
            next_attempt_ms: millis,
        }
    }

    fn text(&self) -> String {
        let what = match &self.topic {
            Some(topic) => format!("{topic} ({})", counted(self.keys.into(), "key")),
            None => "everything".to_owned(),
        };
        let since = self
            .seconds
            .map_or_else(String::new, |seconds| format!(" for {}", time(seconds)));
        let next = self.next_attempt_ms.map(Duration::from_millis);
        let next = next.map_or_else(
            || "now".to_owned(),
            |it| format!("in {}", time(it.as_secs_f64())),
        );
        format!(
            "  waits, {}: {what}{since}, {}, the next {next}",
            self.reason,
            counted(self.attempts.into(), "attempt")
        )
    }
}

impl Refused {
    fn of(refused: RefusedEvents, now: SystemTime) -> Self {
        Self {
            reason: word(refused.reason),
            count: refused.count,
            seconds_since_last: ago(refused.last_time, now),
            last_topic: refused.last_topic,
            last_error: refused.last_error,
        }
    }

    fn text(&self) -> String {
        let last = self.seconds_since_last.map_or_else(String::new, |seconds| {
            format!(", the last {} ago", time(seconds))
        });
        format!(
            "  not taken, {}: {}{last}, {}: {}",
            self.reason,
            counted(self.count, "time"),
            self.last_topic,
            self.last_error
        )
    }
}

impl Consumer {
    fn of(consumer: EventConsumer, now: SystemTime) -> Self {
        let state = consumer.state().as_str_name();
        Self {
            state: state.trim_start_matches("STATE_").to_owned(),
            group: consumer.group,
            partitions: consumer.partitions,
            in_flight: consumer.in_flight,
            held: consumer.held,
            held_keys: consumer.held_keys,
            troubles: {
                let troubles = consumer.troubles.into_iter();
                troubles.map(|it| Trouble::of(it, now)).collect()
            },
            queued: consumer.fill.as_ref().map(Queued::of),
        }
    }

    fn lines(&self) -> Vec<String> {
        let which = partitions(&self.partitions);
        let mut text = format!("{} {}", self.group, self.state);
        text = format!("{text}, {which}; {} in flight", self.in_flight);
        if self.held > 0 {
            let keys = counted(self.held_keys.into(), "key");
            text = format!("{text}, {} held of {keys}", self.held);
        }
        let queues = self.queued.iter().map(Queued::text);
        let troubles = self.troubles.iter().map(Trouble::text);
        std::iter::once(text)
            .chain(queues)
            .chain(troubles)
            .collect()
    }
}

impl Queued {
    fn of(fill: &QueueFill) -> Self {
        Self {
            ready: fill.ready,
            unsettled: fill.unsettled,
            delayed: fill.delayed,
            dead_letters: fill.dead_letters,
            strays: fill.strays,
        }
    }

    fn text(&self) -> String {
        format!(
            "  queues, of all instances: {} ready, {} unsettled, {} delayed, {} dead, {} stray",
            self.ready, self.unsettled, self.delayed, self.dead_letters, self.strays
        )
    }
}

impl Trouble {
    fn of(trouble: ConsumerTrouble, now: SystemTime) -> Self {
        Self {
            seconds: ago(trouble.begin_time, now),
            reason: trouble.reason,
            partitions: trouble.partitions,
            attempts: trouble.attempts,
            error: trouble.error,
        }
    }

    fn text(&self) -> String {
        let since = self
            .seconds
            .map_or_else(String::new, |seconds| format!(" for {}", time(seconds)));
        let of = match self.partitions.len() {
            0 => String::new(),
            _ => format!(" with {}", partitions(&self.partitions)),
        };
        format!(
            "  held up, {}{of}{since}, {}: {}",
            self.reason,
            counted(self.attempts, "attempt"),
            self.error
        )
    }
}

/// Which ones, as in `partitions 0-3, 7`.
fn partitions(all: &[u32]) -> String {
    let mut spans: Vec<(u32, u32)> = Vec::new();
    for &partition in all {
        match spans.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(partition) => *last = partition,
            _ => spans.push((partition, partition)),
        }
    }
    let spans = spans.iter().map(|&(first, last)| match last - first {
        0 => first.to_string(),
        _ => format!("{first}-{last}"),
    });
    let which = spans.collect::<Vec<_>>().join(", ");
    match all.len() {
        0 => "no partitions".to_owned(),
        1 => format!("partition {which}"),
        _ => format!("partitions {which}"),
    }
}

/// A time for people.
fn time(seconds: f64) -> String {
    let whole = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
    if whole < Duration::from_secs(10) {
        format!("{seconds:.1}s")
    } else {
        humantime::format_duration(Duration::from_secs(whole.as_secs())).to_string()
    }
}

#[cfg(test)]
mod tests;
