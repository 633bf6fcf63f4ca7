//! Writes lines from a thread of its own, so that nobody waits for whoever reads them.
//!
//! Lines wait in a buffer of bounded size. While the reader of standard output stands still, the
//! buffer fills up and further lines are dropped and counted; once it reads again, a line says how
//! many are missing.

use std::{
    io::{self, Write},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use crate::{
    names::metric,
    telemetry::metric::{Counter, series},
};

/// Bytes of lines that wait at most.
const WAITING_MAX: usize = 1_024 * 1_024;

/// How long [`Writer::flush`] waits at most.
const FLUSH_MAX: Duration = Duration::from_millis(500);

/// Takes lines without waiting; clones write to the same output.
#[derive(Debug, Clone)]
pub(crate) struct Writer {
    open: Arc<Open>,
}

/// Keeps the thread running; the last clone's end is its end.
#[derive(Debug)]
struct Open {
    shared: Arc<Shared>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.changed.notify_all();
    }
}

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
    dropped: Counter,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: Vec<u8>,
    writing: bool,
    dropped: u64,
    closed: bool,
}

impl Writer {
    /// Starts the thread that writes to standard output.
    ///
    /// # Errors
    ///
    /// If the system has no thread left.
    pub(crate) fn stdout() -> io::Result<Self> {
        Self::to(io::stdout())
    }

    /// Starts a thread that writes to `output`, and ends when the last clone is gone.
    pub(crate) fn to(output: impl Write + Send + 'static) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            changed: Condvar::new(),
            dropped: series(&metric::LOG_LINES_DROPPED, &[]),
        });
        let writing = Arc::clone(&shared);
        thread::Builder::new()
            .name("log-writer".to_owned())
            .spawn(move || {
                let mut output = output;
                let mut lines = Vec::new();
                while writing.write_waiting(&mut lines, &mut output) {}
            })?;
        Ok(Self {
            open: Arc::new(Open { shared }),
        })
    }

    /// Queues a line, or drops and counts it where too much waits already.
    pub(crate) fn write(&self, line: &[u8]) {
        let shared = &self.open.shared;
        let mut queue = shared.lock();
        if queue.waiting.len() + line.len() > WAITING_MAX {
            queue.dropped += 1;
            drop(queue);
            shared.dropped.increment();
            return;
        }
        queue.waiting.extend_from_slice(line);
        drop(queue);
        shared.changed.notify_all();
    }

    /// Waits until all lines so far are written, [`FLUSH_MAX`] at most. Blocks the thread.
    pub(crate) fn flush(&self) {
        let shared = &self.open.shared;
        let waited = shared
            .changed
            .wait_timeout_while(shared.lock(), FLUSH_MAX, |queue| {
                queue.writing || !queue.waiting.is_empty()
            });
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for lines and writes them; false once there will be no more.
    fn write_waiting(&self, lines: &mut Vec<u8>, output: &mut impl Write) -> bool {
        let waited = self.changed.wait_while(self.lock(), |queue| {
            queue.waiting.is_empty() && !queue.closed
        });
        let mut queue = waited.unwrap_or_else(PoisonError::into_inner);
        if queue.waiting.is_empty() {
            return false;
        }
        // The two buffers change places, so that steady logging allocates nothing.
        std::mem::swap(&mut queue.waiting, lines);
        let dropped = std::mem::take(&mut queue.dropped);
        queue.writing = true;
        drop(queue);

        // Nobody is left to tell that the output is gone.
        drop(output.write_all(lines).and_then(|()| output.flush()));
        lines.clear();

        self.lock().writing = false;
        self.changed.notify_all();
        if dropped > 0 {
            tracing::warn!(lines = dropped, "log lines dropped: nobody read them");
        }
        true
    }
}
