//! How slowly a body may come: whoever sends a byte now and then holds a place as long as it likes.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use gantry::status;
use tokio::time::{self, Sleep};
use tonic::{Code, Status};

use super::{Incoming, failure::Failure};

/// What is progress.
const STEP_BYTES: usize = 1_024;

/// Reads one body, as long as it comes on.
#[derive(Debug)]
pub struct Pace {
    stall_max: Duration,
    /// Bytes since the last step.
    brought: usize,
    /// Set when a step is first waited for.
    alarm: Option<Pin<Box<Sleep>>>,
}

impl Pace {
    /// Steps may take as long as `stall_max`.
    #[must_use]
    pub(super) fn new(stall_max: Duration) -> Self {
        Self {
            stall_max,
            brought: 0,
            alarm: None,
        }
    }

    /// The next piece of `body`, none at its end. While nothing `is_owed` it may take any time: a
    /// stream of messages rests between them.
    pub(crate) fn poll_data(
        &mut self,
        body: &mut Incoming,
        is_owed: bool,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Bytes>, Failure>> {
        while let Poll::Ready(frame) = http_body::Body::poll_frame(Pin::new(body), cx) {
            let Some(frame) = frame else {
                return Poll::Ready(Ok(None));
            };
            let frame = frame.map_err(|error| {
                let text = format!("the body breaks off: {}", status::chain(&*error));
                Failure::from(Status::new(Code::InvalidArgument, text))
            })?;
            // There is no place for trailers in a request.
            if let Ok(data) = frame.into_data() {
                self.brought += data.len();
                if self.brought >= STEP_BYTES {
                    self.rest();
                }
                return Poll::Ready(Ok(Some(data)));
            }
        }
        if !is_owed {
            self.rest();
            return Poll::Pending;
        }
        let stall_max = self.stall_max;
        let alarm = self
            .alarm
            .get_or_insert_with(|| Box::pin(time::sleep(stall_max)));
        ready!(alarm.as_mut().poll(cx));
        let text = format!(
            "the body brought less than {STEP_BYTES} bytes in {stall_max:?}, the bound \
             http.body_stall_max"
        );
        Poll::Ready(Err(Failure::too_slow(text)))
    }

    /// Begins a step anew.
    fn rest(&mut self) {
        self.brought = 0;
        self.alarm = None;
    }
}
