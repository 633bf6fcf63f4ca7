//! What the tokio runtime tells of itself.

use tokio::runtime::Handle;

use super::write_value;
use crate::names::metric;

/// Writes the runtime's numbers; outside a runtime there are none.
#[allow(clippy::cast_precision_loss)]
pub(super) fn write(text: &mut String) {
    let Ok(handle) = Handle::try_current() else {
        return;
    };
    let runtime = handle.metrics();
    write_value(text, &metric::RUNTIME_WORKERS, runtime.num_workers() as f64);
    write_value(
        text,
        &metric::RUNTIME_TASKS,
        runtime.num_alive_tasks() as f64,
    );
    write_value(
        text,
        &metric::RUNTIME_QUEUE,
        runtime.global_queue_depth() as f64,
    );
}
