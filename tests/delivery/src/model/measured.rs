//! What one process of the model counts, kept apart from the others.

use std::{
    collections::BTreeMap,
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};

use crate::{evidence::Measure, metrics as pages};

/// The metrics of a process.
#[derive(Clone)]
pub(super) struct Metrics(Arc<PrometheusRecorder>);

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    pub(super) fn new() -> Self {
        // Of times and sizes nothing is asked here.
        let recorder = PrometheusBuilder::new().set_buckets(&[1.0]);
        let recorder = recorder.expect("there is a bucket").build_recorder();
        Self(Arc::new(recorder))
    }

    /// Makes something whose metrics these are.
    pub(super) fn of<T>(&self, make: impl FnOnce() -> T) -> T {
        metrics::with_local_recorder(&*self.0, make)
    }

    /// What they say of the process and of its consumer `group`. What is pending is looked at now and
    /// then, and says nothing at once.
    pub(super) fn told(&self, group: &str) -> BTreeMap<Measure, u64> {
        let mut told = pages::read(&self.0.handle().render(), group);
        told.remove(&Measure::Backlog);
        told
    }
}

/// Work whose metrics are those of its process, wherever in it they are made.
pub(super) struct Measured<F> {
    work: Pin<Box<F>>,
    metrics: Metrics,
}

impl<F> Measured<F> {
    pub(super) fn new(work: F, metrics: &Metrics) -> Self {
        Self {
            work: Box::pin(work),
            metrics: metrics.clone(),
        }
    }
}

impl<F: Future> Future for Measured<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let metrics = self.metrics.clone();
        metrics.of(|| self.work.as_mut().poll(context))
    }
}
