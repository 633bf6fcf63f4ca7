//! Handles to metrics: looked up once, then a few atomic operations per use.
//!
//! A metric without labels is one handle; one with labels is a [`Family`], an array of handles
//! indexed by a closed [`Label`] type, so the number of series is fixed when the program is
//! compiled. This is the one place that talks to the recorder; the platform's metrics are declared
//! in [`names::metric`](crate::names::metric), a service's own with [`metrics!`](crate::telemetry::metrics).

use std::{
    fmt,
    sync::{Arc, OnceLock},
    time::Duration,
};

use metrics::{Key, Level, Metadata};

/// The text of a label: out of the program or its configuration, never out of a call.
pub use metrics::{SharedString as Value, Unit};

use crate::{
    caller::Criticality,
    names::{Kind, Metric},
};

/// Where handles come from, for the recorder.
const SOURCE: Metadata<'static> = Metadata::new("gantry", Level::INFO, None);

/// A handle to one series of a metric.
pub trait Handle: Sized {
    /// The kind of metric it belongs to.
    const KIND: Kind;

    /// Makes the series known to the recorder, at zero.
    fn with_key(key: &Key) -> Self;
}

/// Something that only grows.
#[derive(Clone)]
pub struct Counter(metrics::Counter);

impl Counter {
    /// Adds one.
    pub fn increment(&self) {
        self.0.increment(1);
    }

    /// Adds `amount`.
    pub fn add(&self, amount: u64) {
        self.0.increment(amount);
    }
}

impl Handle for Counter {
    const KIND: Kind = Kind::Counter;

    fn with_key(key: &Key) -> Self {
        Self(metrics::with_recorder(|recorder| {
            recorder.register_counter(key, &SOURCE)
        }))
    }
}

/// Something that is what it is now.
#[derive(Clone)]
pub struct Gauge(metrics::Gauge);

impl Gauge {
    /// Sets the value.
    pub fn set(&self, value: f64) {
        self.0.set(value);
    }

    /// Adds one.
    pub fn increment(&self) {
        self.0.increment(1.0);
    }

    /// Takes one away.
    pub fn decrement(&self) {
        self.0.decrement(1.0);
    }

    /// Counts one for as long as the answer lives.
    #[must_use]
    pub fn hold(&self) -> Held {
        self.increment();
        Held(self.clone())
    }
}

impl Handle for Gauge {
    const KIND: Kind = Kind::Gauge;

    fn with_key(key: &Key) -> Self {
        Self(metrics::with_recorder(|recorder| {
            recorder.register_gauge(key, &SOURCE)
        }))
    }
}

/// One counted in a [`Gauge`], until dropped.
#[derive(Debug)]
pub struct Held(Gauge);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.decrement();
    }
}

/// Observations, counted by size.
#[derive(Clone)]
pub struct Histogram(metrics::Histogram);

impl Histogram {
    /// Counts one observation, in the metric's unit.
    pub fn record(&self, value: f64) {
        self.0.record(value);
    }

    /// Counts one duration; for metrics in seconds.
    pub fn record_duration(&self, duration: Duration) {
        self.0.record(duration.as_secs_f64());
    }
}

impl Handle for Histogram {
    const KIND: Kind = Kind::Histogram;

    fn with_key(key: &Key) -> Self {
        Self(metrics::with_recorder(|recorder| {
            recorder.register_histogram(key, &SOURCE)
        }))
    }
}

macro_rules! opaque_debug {
    ($($handle:ident)*) => {$(
        impl fmt::Debug for $handle {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($handle)).finish_non_exhaustive()
            }
        }
    )*};
}

opaque_debug!(Counter Gauge Histogram);

/// A label whose values are known when the program is compiled.
///
/// Declare one with [`label!`](crate::telemetry::label). A pair of labels is a label too.
pub trait Label: Copy + 'static {
    /// How many values there are.
    const COUNT: usize;

    /// Position of this value, below [`Label::COUNT`].
    fn index(self) -> usize;

    /// Appends the value as text, one per label name.
    fn write(self, values: &mut Vec<Value>);

    /// Every value, in the order of their positions.
    fn all() -> Vec<Self>;
}

impl<A: Label, B: Label> Label for (A, B) {
    const COUNT: usize = A::COUNT * B::COUNT;

    fn index(self) -> usize {
        self.0.index() * B::COUNT + self.1.index()
    }

    fn write(self, values: &mut Vec<Value>) {
        self.0.write(values);
        self.1.write(values);
    }

    fn all() -> Vec<Self> {
        let seconds = B::all();
        A::all()
            .into_iter()
            .flat_map(|first| seconds.iter().map(move |second| (first, *second)))
            .collect()
    }
}

impl Label for tonic::Code {
    const COUNT: usize = 17;

    fn index(self) -> usize {
        self as usize
    }

    fn write(self, values: &mut Vec<Value>) {
        values.push(crate::status::code_name(self).into());
    }

    fn all() -> Vec<Self> {
        (0..17).map(Self::from_i32).collect()
    }
}

impl Label for Criticality {
    const COUNT: usize = Self::ALL.len();

    fn index(self) -> usize {
        self as usize
    }

    fn write(self, values: &mut Vec<Value>) {
        values.push(self.as_str().into());
    }

    fn all() -> Vec<Self> {
        Self::ALL.to_vec()
    }
}

/// The series of one metric, by the values of its last labels.
///
/// A series appears in the exposition with its first use; those before it cost a null pointer.
pub struct Family<H, L> {
    shared: Arc<Series<H>>,
    label: std::marker::PhantomData<fn(L)>,
}

struct Series<H> {
    metric: Metric,
    fixed: Vec<Value>,
    handles: Box<[OnceLock<H>]>,
}

impl<H: Handle, L: Label> Family<H, L> {
    /// The family of `metric` whose first labels have the values `fixed`.
    ///
    /// # Panics
    ///
    /// If `metric` is of another kind: a mistake in a declaration.
    #[must_use]
    pub fn register(metric: &Metric, fixed: &[Value]) -> Self {
        assert_eq!(H::KIND, metric.kind, "{}", metric.name);
        describe(metric);
        Self {
            shared: Arc::new(Series {
                metric: *metric,
                fixed: fixed.to_vec(),
                handles: (0..L::COUNT).map(|_| OnceLock::new()).collect(),
            }),
            label: std::marker::PhantomData,
        }
    }

    /// Makes every series appear at once, at zero: for few values, where the first event must
    /// show as a step.
    #[must_use]
    pub fn visible(self) -> Self {
        for label in L::all() {
            let _: &H = self.with(label);
        }
        self
    }

    /// The series of `label`.
    #[must_use]
    pub fn with(&self, label: L) -> &H {
        let series = &*self.shared;
        series.handles[label.index()].get_or_init(|| {
            let mut values = series.fixed.clone();
            label.write(&mut values);
            H::with_key(&key(&series.metric, values))
        })
    }
}

impl<H, L> Clone for Family<H, L> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            label: std::marker::PhantomData,
        }
    }
}

impl<H, L> fmt::Debug for Family<H, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Family")
            .field(&self.shared.metric.name)
            .finish()
    }
}

/// The one series of `metric` whose labels have these values.
///
/// The values must come from a closed set: a name out of the program or its configuration.
///
/// # Panics
///
/// If `metric` is of another kind: a mistake in a declaration.
#[must_use]
pub fn series<H: Handle>(metric: &Metric, values: &[Value]) -> H {
    assert_eq!(H::KIND, metric.kind, "{}", metric.name);
    describe(metric);
    H::with_key(&key(metric, values.to_vec()))
}

/// Tells the recorder what `metric` means; once is enough, more does no harm.
pub fn describe(metric: &Metric) {
    let (name, unit, text) = (metric.name.into(), Some(metric.unit), metric.description);
    metrics::with_recorder(|recorder| match metric.kind {
        Kind::Counter => recorder.describe_counter(name, unit, text.into()),
        Kind::Gauge => recorder.describe_gauge(name, unit, text.into()),
        Kind::Histogram => recorder.describe_histogram(name, unit, text.into()),
    });
}

fn key(metric: &Metric, values: Vec<Value>) -> Key {
    assert_eq!(metric.labels.len(), values.len(), "{}", metric.name);
    let labels: Vec<_> = metric
        .labels
        .iter()
        .zip(values)
        .map(|(name, value)| metrics::Label::new(*name, value))
        .collect();
    Key::from_parts(metric.name, labels)
}
