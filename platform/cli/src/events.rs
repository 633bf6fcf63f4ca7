//! `gantry events tail`: events as they pass; `gantry events status` and `gantry events remove`.

mod remove;
mod status;

use std::{collections::BTreeMap, num::NonZeroU32, pin::pin, time::Duration};

use gantry_events::{
    broker::{Sighting, Tail},
    headers::{ID, SOURCE, TIME, TRACEPARENT},
};
use serde::Serialize;
use tokio::{
    signal, task,
    time::{self, Instant, MissedTickBehavior},
};

use crate::{
    Outcome,
    args::{self, Events, EventsVerb},
    broker::Reached,
    failure::{Exit, Failure},
    output::{self, Format, counted},
};

/// Topics counted by themselves; events of further ones are counted together.
const TOPICS_MAX: usize = 1_000;

/// Widest column of topics; longer ones stick out.
const TOPIC_WIDTH_MAX: usize = 60;

/// How those are called.
const OTHERS: &str = "(others)";

pub(crate) async fn run(args: Events) -> Outcome {
    match args.verb {
        EventsVerb::Status(args) => status::run(args).await,
        EventsVerb::Tail(args) => tail(args).await,
        EventsVerb::Remove(args) => remove::run(&args).await,
    }
}

async fn tail(args: args::Tail) -> Outcome {
    if args.every.is_zero() {
        return Err(Failure::usage("--every: expected more than 0s"));
    }
    let reached = Reached::find(&args.broker).await?;
    let tail = reached.broker.tail(&args.topics).await;
    let outcome = match tail {
        Ok(mut tail) if args.summary => summarise(&mut *tail, &args).await,
        Ok(mut tail) => show(&mut *tail, &args).await,
        Err(error) => Err(reached.failure(&error)),
    };
    reached.close().await;
    outcome
}

/// An event, as it is printed for programs. Empty is what its headers do not say.
#[derive(Debug, Serialize)]
struct Line {
    time: String,
    topic: String,
    source: String,
    bytes: u64,
    trace_id: String,
    id: String,
    /// Events before it that were not seen.
    missed: u64,
}

impl From<Sighting> for Line {
    fn from(seen: Sighting) -> Self {
        let header = |name| seen.headers.get(name).cloned().unwrap_or_default();
        // A W3C trace context: version, trace, span, flags.
        let trace = header(TRACEPARENT);
        let trace_id = trace.split('-').nth(1).unwrap_or_default().to_owned();
        Self {
            time: header(TIME),
            source: header(SOURCE),
            id: header(ID),
            trace_id,
            bytes: seen.body_bytes,
            missed: seen.missed,
            topic: seen.topic,
        }
    }
}

impl Line {
    /// Topics are padded to `width`, that of the longest so far, as what comes is not known.
    fn text(&self, width: usize) -> String {
        let Self {
            time,
            topic,
            source,
            bytes,
            trace_id,
            ..
        } = self;
        let known = |text: &str| if text.is_empty() { "-" } else { text }.to_owned();
        let (time, source, trace) = (known(time), known(source), known(trace_id));
        output::plain(&format!(
            "{time}  {topic:width$}  {source}  {bytes:>5} B  {trace}"
        ))
    }
}

/// A line for each event.
async fn show(tail: &mut dyn Tail, args: &args::Tail) -> Outcome {
    let mut interrupted = pin!(signal::ctrl_c());
    let mut left = args.count.map(NonZeroU32::get);
    let mut width = 0;
    while left != Some(0) {
        let seen = tokio::select! {
            _ = &mut interrupted => return Ok(Exit::Fine),
            seen = tail.next() => seen,
        };
        let line = Line::from(seen.ok_or_else(ended)?);
        let format = args.output;
        width = line
            .topic
            .chars()
            .count()
            .clamp(width, TOPIC_WIDTH_MAX.max(width));
        print(move || match format {
            Format::Json => output::json(&line),
            Format::Human => {
                if line.missed > 0 {
                    output::note(&format!("{} missed", counted(line.missed, "event")));
                }
                output::line(&line.text(width));
            }
        })
        .await;
        left = left.map(|left| left - 1);
    }
    Ok(Exit::Fine)
}

/// What the broker does for us goes on while a slow reader of our output takes its time: what is
/// missed meanwhile is counted.
async fn print(work: impl FnOnce() + Send + 'static) {
    // It does not panic; and if it did, there is nothing more to print.
    drop(task::spawn_blocking(work).await);
}

fn ended() -> Failure {
    Failure::failed("the broker is gone")
}

/// What passed within some time.
#[derive(Debug, Default)]
struct Window {
    topics: BTreeMap<String, Passed>,
    missed: u64,
}

/// Of one topic.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Passed {
    events: u64,
    bytes: u64,
}

/// A window, as it is printed for programs.
#[derive(Debug, Serialize)]
struct Summary {
    seconds: f64,
    missed: u64,
    topics: Vec<Traffic>,
}

#[derive(Debug, Serialize)]
struct Traffic {
    topic: String,
    events: u64,
    events_per_second: f64,
    bytes: u64,
}

impl Window {
    fn count(&mut self, seen: Sighting) {
        self.missed += seen.missed;
        let full = self.topics.len() >= TOPICS_MAX && !self.topics.contains_key(&seen.topic);
        let topic = if full { OTHERS.to_owned() } else { seen.topic };
        let passed = self.topics.entry(topic).or_default();
        passed.events += 1;
        passed.bytes += seen.body_bytes;
    }

    fn summary(self, took: Duration) -> Summary {
        let seconds = took.as_secs_f64();
        #[allow(clippy::cast_precision_loss, reason = "nobody counts events by 2^53")]
        let rate = |events: u64| {
            if seconds > 0.0 {
                events as f64 / seconds
            } else {
                0.0
            }
        };
        let topic = |(topic, passed): (String, Passed)| Traffic {
            topic,
            events: passed.events,
            events_per_second: rate(passed.events),
            bytes: passed.bytes,
        };
        Summary {
            seconds,
            missed: self.missed,
            topics: self.topics.into_iter().map(topic).collect(),
        }
    }
}

impl Summary {
    fn text(&self) -> String {
        let heading = ["TOPIC", "EVENTS", "PER SECOND", "BYTES"];
        let cells = |row: &Traffic| {
            [
                row.topic.clone(),
                row.events.to_string(),
                format!("{:.1}", row.events_per_second),
                row.bytes.to_string(),
            ]
        };
        let rows: Vec<_> = self.topics.iter().map(cells).collect();
        let mut text = if rows.is_empty() {
            format!("nothing within {:.1} s", self.seconds)
        } else {
            output::table(heading, &rows)
        };
        if self.missed > 0 {
            text = format!(
                "{text}\n{} missed, of whatever topic",
                counted(self.missed, "event")
            );
        }
        text
    }
}

/// A table for each window, and one for what is left at the end.
async fn summarise(tail: &mut dyn Tail, args: &args::Tail) -> Outcome {
    let mut interrupted = pin!(signal::ctrl_c());
    let mut windows = time::interval_at(Instant::now() + args.every, args.every);
    windows.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut left = args.count.map(NonZeroU32::get);
    let (mut window, mut since) = (Window::default(), Instant::now());
    let outcome = loop {
        if left == Some(0) {
            break Ok(Exit::Fine);
        }
        // Each is cancel-safe.
        tokio::select! {
            biased;
            _ = &mut interrupted => break Ok(Exit::Fine),
            _ = windows.tick() => {
                tell(std::mem::take(&mut window).summary(since.elapsed()), args.output).await;
                since = Instant::now();
            }
            seen = tail.next() => match seen {
                Some(seen) => {
                    window.count(seen);
                    left = left.map(|left| left - 1);
                }
                None => break Err(ended()),
            },
        }
    };
    tell(window.summary(since.elapsed()), args.output).await;
    outcome
}

async fn tell(summary: Summary, format: Format) {
    print(move || match format {
        Format::Json => output::json(&summary),
        Format::Human => output::line(&format!("{}\n", summary.text())),
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sighting(topic: &str, bytes: u64) -> Sighting {
        let headers = [
            (ID, "0193"),
            (SOURCE, "/orders"),
            (TIME, "2026-01-02T03:04:05Z"),
            (
                TRACEPARENT,
                "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            ),
        ];
        let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        Sighting {
            topic: topic.to_owned(),
            headers: headers.map(owned).into(),
            body_bytes: bytes,
            missed: 0,
        }
    }

    /// Goal: an event is a line; what is not known of it is a dash.
    /// Method: one that says all, and one without headers.
    #[test]
    fn an_event_is_a_line() {
        let told = Line::from(sighting("a.v1.Placed", 12));
        let expected = "2026-01-02T03:04:05Z  a.v1.Placed   /orders     12 B  \
                        4bf92f3577b34da6a3ce929d0e0e4736";
        assert_eq!(expected, told.text(12));
        assert_eq!("0193", told.id);
        let silent = Line::from(Sighting {
            headers: BTreeMap::default(),
            ..sighting("a.v1.Placed", 0)
        });
        assert_eq!("-  a.v1.Placed  -      0 B  -", silent.text(0));
    }

    /// Goal: a summary counts by topic, tells what was missed, and stays small however many topics
    /// there are.
    /// Method: two topics; then more than there may be.
    #[test]
    fn a_summary_counts_by_topic() {
        let mut window = Window::default();
        for bytes in [1, 2, 3] {
            window.count(sighting("a.v1.Placed", bytes));
        }
        window.count(Sighting {
            missed: 7,
            ..sighting("a.v1.Cancelled", 4)
        });
        let expected = "\
TOPIC           EVENTS  PER SECOND  BYTES
a.v1.Cancelled  1       0.5         4
a.v1.Placed     3       1.5         6
7 events missed, of whatever topic";
        assert_eq!(expected, window.summary(Duration::from_secs(2)).text());
        let empty = Window::default().summary(Duration::from_secs(2));
        assert_eq!("nothing within 2.0 s", empty.text());
        let mut window = Window::default();
        for number in 0..TOPICS_MAX + 5 {
            window.count(sighting(&format!("topic-{number}"), 1));
        }
        assert_eq!(TOPICS_MAX + 1, window.topics.len());
        assert_eq!(5, window.topics[OTHERS].events);
    }
}
