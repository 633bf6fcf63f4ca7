//! What a run measures, as it happens.
//!
//! Everything is bounded: times go into histograms, seconds up to a day, endpoints and error
//! messages up to a number; what is beyond is counted together.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    time::Duration,
};

use hdrhistogram::Histogram;
use tokio::time::Instant;
use tonic::Code;

use super::{
    exchange::{Ended, StepEnded, Volume},
    series::Series,
};

/// A call counts as sent on schedule when it was sent within this after it was due. The timer
/// ticks every millisecond, so that a healthy run stays well below.
pub(crate) const ON_SCHEDULE: Duration = Duration::from_millis(10);

/// A run at most: seconds beyond share one entry.
pub(crate) const DURATION_MAX: Duration = Duration::from_hours(24);

/// Codes of gRPC.
const CODES: usize = 17;
/// Endpoints told apart.
const ENDPOINTS_MAX: usize = 256;
/// Error messages told apart.
const ERRORS_MAX: usize = 20;
/// Characters of an error message that are kept.
const ERROR_LENGTH_MAX: usize = 300;
/// Significant digits of a percentile.
const DIGITS: u8 = 3;
/// No time is counted as longer.
const TIME_MAX: Duration = Duration::from_hours(1);

/// Durations, in microseconds.
#[derive(Debug, Clone)]
pub(crate) struct Times(Histogram<u32>);

impl Default for Times {
    fn default() -> Self {
        Self::with_digits(DIGITS)
    }
}

impl Times {
    /// With up to five significant digits of a percentile.
    pub(crate) fn with_digits(digits: u8) -> Self {
        Self(Histogram::new(digits).expect("five digits are few enough"))
    }

    /// Counts what `other` has, which has as many digits.
    pub(crate) fn add(&mut self, other: &Self) {
        let added = self.0.add(&other.0);
        added.expect("it grows as far as the other");
    }

    pub(crate) fn record(&mut self, time: Duration) {
        let micros = u64::try_from(time.min(TIME_MAX).as_micros()).unwrap_or(u64::MAX);
        let recorded = self.0.record(micros);
        recorded.expect("it grows as far as an hour and further");
    }

    pub(crate) fn len(&self) -> u64 {
        self.0.len()
    }

    pub(crate) fn quantile(&self, quantile: f64) -> Duration {
        Duration::from_micros(self.0.value_at_quantile(quantile))
    }

    pub(crate) fn min(&self) -> Duration {
        Duration::from_micros(self.0.min())
    }

    pub(crate) fn max(&self) -> Duration {
        Duration::from_micros(self.0.max())
    }

    pub(crate) fn mean(&self) -> Duration {
        Duration::try_from_secs_f64(self.0.mean() / 1e6).unwrap_or_default()
    }

    pub(crate) fn clear(&mut self) {
        self.0.reset();
    }
}

/// Calls by the code they ended with.
#[derive(Debug, Clone, Default)]
pub(crate) struct Codes([u32; CODES]);

impl Codes {
    pub(crate) fn count(&mut self, code: Code) {
        let place = usize::try_from(i32::from(code)).unwrap_or_default();
        self.0[place] = self.0[place].saturating_add(1);
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (count, more) in self.0.iter_mut().zip(other.0) {
            *count = count.saturating_add(more);
        }
    }

    pub(crate) fn of(&self, code: Code) -> u64 {
        let place = usize::try_from(i32::from(code)).unwrap_or_default();
        u64::from(self.0[place])
    }

    /// Those that occurred.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Code, u64)> {
        let counted = (0..).zip(self.0).filter(|(_, count)| *count > 0);
        counted.map(|(code, count)| (Code::from_i32(code), u64::from(count)))
    }

    pub(crate) fn total(&self) -> u64 {
        self.0.iter().copied().map(u64::from).sum()
    }
}

/// A part of the calls: those of one method, or to one endpoint.
#[derive(Debug, Default)]
pub(crate) struct Part {
    pub(crate) codes: Codes,
    pub(crate) latency: Times,
    pub(crate) sent: Volume,
    pub(crate) received: Volume,
}

impl Part {
    fn count(&mut self, code: Code, latency: Duration, sent: Volume, received: Volume) {
        self.codes.count(code);
        self.latency.record(latency);
        self.sent.add(sent);
        self.received.add(received);
    }
}

/// The calls that were due in one second of the run.
#[derive(Debug, Default)]
pub(crate) struct Second {
    pub(crate) due: u64,
    pub(crate) sent: u64,
    pub(crate) dropped: u64,
    pub(crate) codes: Codes,
    /// Calls by endpoint, in the order of [`Tally::endpoints`].
    pub(crate) endpoints: Vec<u32>,
    pub(crate) latency_total: Duration,
    pub(crate) latency_max: Duration,
}

/// One kind of failure.
#[derive(Debug)]
pub(crate) struct Sample {
    pub(crate) code: Code,
    /// The first message of its kind.
    pub(crate) message: String,
    pub(crate) method: usize,
    pub(crate) endpoint: Option<SocketAddr>,
    pub(crate) count: u64,
}

/// What a call is known by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Due {
    /// Which method of the plan it calls.
    pub(crate) method: usize,
    /// When it should be sent.
    pub(crate) at: Instant,
}

/// Everything a run measures.
#[derive(Debug)]
pub(crate) struct Tally {
    pub(crate) began: Instant,
    pub(crate) due: u64,
    pub(crate) sent: u64,
    pub(crate) on_schedule: u64,
    pub(crate) dropped: u64,
    pub(crate) codes: Codes,
    /// From when a call was due to its end.
    pub(crate) latency: Times,
    /// The same, of calls that went well.
    pub(crate) latency_ok: Times,
    /// From when a call was sent to its end.
    pub(crate) service_time: Times,
    /// From when a call was due to when it was sent.
    pub(crate) send_delay: Times,
    /// From when a call was due to its first message.
    pub(crate) first_message: Times,
    pub(crate) sent_volume: Volume,
    pub(crate) received_volume: Volume,
    pub(crate) methods: Vec<Part>,
    /// Of each method that has several, its steps.
    pub(crate) steps: Vec<Vec<Part>>,
    /// The run over time.
    pub(crate) series: Series,
    /// Of each method, which kind its calls are in the series.
    kinds: Vec<usize>,
    /// By address; none is calls of which no endpoint is known, or beyond those told apart.
    pub(crate) endpoints: Vec<(Option<SocketAddr>, Part)>,
    pub(crate) seconds: Vec<Second>,
    /// Latencies since the last progress line.
    pub(crate) recent: Times,
    samples: BTreeMap<(i32, usize, String), Sample>,
    pub(crate) errors_not_shown: u64,
    places: HashMap<Option<SocketAddr>, usize>,
}

impl Tally {
    /// For a run that begins now. `kinds` says of each method which kind its calls are, from 0.
    pub(crate) fn new(kinds: Vec<usize>) -> Self {
        let methods = kinds.len();
        Self {
            began: Instant::now(),
            due: 0,
            sent: 0,
            on_schedule: 0,
            dropped: 0,
            codes: Codes::default(),
            latency: Times::default(),
            latency_ok: Times::default(),
            service_time: Times::default(),
            send_delay: Times::default(),
            first_message: Times::default(),
            sent_volume: Volume::default(),
            received_volume: Volume::default(),
            methods: (0..methods).map(|_| Part::default()).collect(),
            steps: (0..methods).map(|_| Vec::new()).collect(),
            series: Series::new(kinds.iter().max().map_or(1, |kind| kind + 1)),
            kinds,
            endpoints: Vec::new(),
            seconds: Vec::new(),
            recent: Times::default(),
            samples: BTreeMap::new(),
            errors_not_shown: 0,
            places: HashMap::new(),
        }
    }

    /// A call is due and found no place among those in flight.
    pub(crate) fn dropped(&mut self, at: Instant) {
        self.due += 1;
        self.dropped += 1;
        self.series.dropped(self.since(at));
        let second = self.second(at);
        second.due += 1;
        second.dropped += 1;
    }

    /// A call that was due is sent at this moment.
    pub(crate) fn sent(&mut self, due: Due, now: Instant) {
        let delay = now.saturating_duration_since(due.at);
        self.due += 1;
        self.sent += 1;
        self.on_schedule += u64::from(delay <= ON_SCHEDULE);
        self.send_delay.record(delay);
        self.series.sent(self.since(due.at), self.kind(due));
        let second = self.second(due.at);
        second.due += 1;
        second.sent += 1;
    }

    /// A call that was sent has ended at this moment.
    pub(crate) fn ended(&mut self, due: Due, began: Instant, now: Instant, ended: Ended) {
        let latency = now.saturating_duration_since(due.at);
        self.codes.count(ended.code);
        self.latency.record(latency);
        self.recent.record(latency);
        if ended.code == Code::Ok {
            self.latency_ok.record(latency);
        }
        self.service_time
            .record(now.saturating_duration_since(began));
        if let Some(first) = ended.first_message {
            let wait = first.saturating_duration_since(due.at);
            self.first_message.record(wait);
        }
        self.sent_volume.add(ended.sent);
        self.received_volume.add(ended.received);
        let (code, sent, received) = (ended.code, ended.sent, ended.received);
        if let Some(part) = self.methods.get_mut(due.method) {
            part.count(code, latency, sent, received);
        }
        self.count_steps(due, latency, &ended.steps);
        let place = self.place(ended.endpoint);
        self.endpoints[place].1.count(code, latency, sent, received);
        self.series
            .ended(self.since(due.at), self.kind(due), code, latency);
        let second = self.second(due.at);
        second.codes.count(ended.code);
        second.latency_total += latency;
        second.latency_max = second.latency_max.max(latency);
        if second.endpoints.len() <= place {
            second.endpoints.resize(place + 1, 0);
        }
        second.endpoints[place] += 1;
        if ended.code != Code::Ok {
            self.sample(due.method, ended);
        }
    }

    /// The first step counts from when the call was due, and each other from the end of the one before,
    /// which is when it was due.
    fn count_steps(&mut self, due: Due, latency: Duration, made: &[StepEnded]) {
        let Some(parts) = self.steps.get_mut(due.method) else {
            return;
        };
        if parts.len() < made.len() {
            parts.resize_with(made.len(), Part::default);
        }
        let all: Duration = made.iter().map(|step| step.time).sum();
        let mut late = latency.saturating_sub(all);
        for (part, step) in parts.iter_mut().zip(made) {
            let late = std::mem::take(&mut late);
            part.count(step.code, late + step.time, step.sent, step.received);
        }
    }

    /// Calls that were sent and have not ended.
    pub(crate) fn open(&self) -> u64 {
        self.sent - self.codes.total()
    }

    /// The kinds of failures, the most frequent first.
    pub(crate) fn errors(&self) -> Vec<&Sample> {
        let mut samples: Vec<_> = self.samples.values().collect();
        samples.sort_by_key(|sample| std::cmp::Reverse(sample.count));
        samples
    }

    /// How long after the beginning.
    fn since(&self, at: Instant) -> Duration {
        at.saturating_duration_since(self.began).min(DURATION_MAX)
    }

    fn kind(&self, due: Due) -> usize {
        self.kinds.get(due.method).copied().unwrap_or_default()
    }

    fn second(&mut self, at: Instant) -> &mut Second {
        let number = usize::try_from(self.since(at).as_secs()).unwrap_or_default();
        if self.seconds.len() <= number {
            self.seconds.resize_with(number + 1, Second::default);
        }
        &mut self.seconds[number]
    }

    fn place(&mut self, endpoint: Option<SocketAddr>) -> usize {
        if let Some(place) = self.places.get(&endpoint) {
            return *place;
        }
        if self.endpoints.len() >= ENDPOINTS_MAX && endpoint.is_some() {
            return self.place(None);
        }
        self.endpoints.push((endpoint, Part::default()));
        let place = self.endpoints.len() - 1;
        self.places.insert(endpoint, place);
        place
    }

    fn sample(&mut self, method: usize, ended: Ended) {
        let mut message = ended.message;
        if let Some((end, _)) = message.char_indices().nth(ERROR_LENGTH_MAX) {
            message.truncate(end);
        }
        let key = (i32::from(ended.code), method, without_numbers(&message));
        if let Some(sample) = self.samples.get_mut(&key) {
            sample.count += 1;
        } else if self.samples.len() < ERRORS_MAX {
            let sample = Sample {
                code: ended.code,
                message,
                method,
                endpoint: ended.endpoint,
                count: 1,
            };
            self.samples.insert(key, sample);
        } else {
            self.errors_not_shown += 1;
        }
    }
}

/// What messages of one kind have in common: ports, times and ids differ from call to call.
fn without_numbers(message: &str) -> String {
    let mut text = String::with_capacity(message.len());
    for c in message.chars() {
        match c {
            '0'..='9' if text.ends_with('#') => {}
            '0'..='9' => text.push('#'),
            c => text.push(c),
        }
    }
    text
}

#[cfg(test)]
mod tests;
