//! What both sides of a measurement of events have in common: the same messages, and the same way of
//! telling how it went.

use std::{error::Error, time::Duration};

use gantry::contract::prost::Message as _;
use gantry_events::{Envelope, Message};
use gantry_store::Timestamp;
use rustix::time::{ClockId, clock_gettime};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    time::Instant,
};
use uuid::Uuid;

use crate::{print, proto::Happened};

/// The service that publishes and consumes.
pub const SERVICE: &str = "bench";
/// Its consumer.
pub const CONSUMER: &str = "effects";
/// The group of that.
pub const GROUP: &str = "bench.effects";
/// The topic of all events.
pub const TOPIC: &str = "bench.v1.Happened";
/// Queues of the group.
pub const PARTITIONS: u16 = 8;
/// Messages of one queue that are handed out and not settled.
pub const PREFETCH: u16 = 64;
/// Messages that are published and not confirmed.
pub const WINDOW: usize = 256;
/// Messages that are handled at once, where that writes rows.
pub const HANDLERS: usize = 4;
/// Turns of those that write a row, and of those that write an event down with it.
pub const ADD_TURNS: usize = 10;
/// Bytes of a body.
const BODY: usize = 256;
/// Events a second where it is measured how long each takes.
const PACE: u32 = 50;

/// Any error of a measurement.
pub type Failed = Box<dyn Error + Send + Sync>;

/// The event of that number, always as long.
#[must_use]
pub fn event(number: usize) -> Happened {
    let mut event = Happened {
        payload: Vec::new(),
        number: number as u64 + 1,
    };
    // Its field, and two bytes of length.
    let payload = BODY.saturating_sub(event.encoded_len() + 3);
    event.payload = vec![7; payload];
    event
}

/// The key of the event of that number, where there are so many.
#[must_use]
pub fn key(number: usize, keys: usize) -> String {
    format!("key-{}", number % keys.max(1))
}

/// The message that a relay makes of that event.
#[must_use]
pub fn message(number: usize, keys: usize) -> Message {
    let key = key(number, keys);
    let envelope = Envelope {
        id: Uuid::now_v7(),
        source: format!("/{SERVICE}"),
        sequence: (number / keys.max(1)) as u64 + 1,
        time: Timestamp::now(),
        traceparent: None,
        tracestate: None,
    };
    Message {
        topic: TOPIC.to_owned(),
        headers: envelope.headers(TOPIC, &key),
        key,
        body: event(number).encode_to_vec().into(),
    }
}

/// Tells the runner that all is prepared, and waits until it says that the measurement begins.
///
/// # Errors
///
/// If the runner is gone.
pub async fn begins() -> Result<Begun, Failed> {
    print("ready");
    let mut line = String::new();
    BufReader::new(tokio::io::stdin())
        .read_line(&mut line)
        .await?;
    Ok(Begun::now())
}

/// A measurement that has begun.
#[derive(Debug, Clone, Copy)]
pub struct Begun {
    at: Instant,
    cpu: Duration,
}

impl Begun {
    /// One that begins now.
    #[must_use]
    pub fn now() -> Self {
        Self {
            at: Instant::now(),
            cpu: cpu(),
        }
    }

    /// The same, had it begun at another time.
    #[must_use]
    pub fn at(self, at: Instant) -> Self {
        Self { at, ..self }
    }

    /// Tells the runner that it has ended: seconds, and seconds of CPU time of this process.
    pub fn ended(self) {
        let took = self.at.elapsed().as_secs_f64();
        let cpu = cpu().saturating_sub(self.cpu).as_secs_f64();
        print(format!("{took} {cpu}"));
    }
}

/// CPU time of all threads of this process so far.
fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    let nanos = u64::try_from(time.tv_nsec).unwrap_or_default();
    Duration::from_secs(seconds) + Duration::from_nanos(nanos)
}

/// Tells the runner the median and the 99th of a hundred of what was measured, in microseconds.
pub fn tell(mut took: Vec<Duration>) {
    took.sort_unstable();
    let of = |share: usize| {
        let place = (took.len() * share / 100).min(took.len().saturating_sub(1));
        took.get(place).map_or(0, Duration::as_micros)
    };
    print(format!("{} {}", of(50), of(99)));
}

/// A moment after another, as often as events come where it is measured how long each takes.
#[must_use]
pub fn pace() -> tokio::time::Interval {
    tokio::time::interval(Duration::from_secs(1) / PACE)
}
