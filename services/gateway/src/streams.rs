//! How many calls each client has open that may stay so for as long as they like: connections to a
//! backend have room for so many calls at once, and one client must not have all of it.

use std::{
    collections::{HashMap, hash_map::Entry},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use gantry::{config::Live, limit::client::Key, status::Refusal};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tonic::Status;

use crate::config;

/// When a call beyond them is worth another try.
const PAUSE: Duration = Duration::from_secs(5);

/// Streams that are open; clones count together.
#[derive(Debug, Clone)]
pub struct Streams {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    // As many as there are clients with a stream at most.
    open: Mutex<HashMap<Key, u32>>,
    config: Live<config::Streams>,
}

/// One of them, until dropped.
#[derive(Debug)]
pub struct Open {
    streams: Streams,
    client: Key,
}

impl Streams {
    /// As many for each as `config` says.
    #[must_use]
    pub fn new(config: Live<config::Streams>) -> Self {
        let shared = Shared {
            open: Mutex::default(),
            config,
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// One more of `client`.
    ///
    /// # Errors
    ///
    /// `RESOURCE_EXHAUSTED`, with when to come back, where it has as many as it may.
    pub fn open(&self, client: Key) -> Result<Open, Status> {
        let most = self.shared.config.read(|config| config.per_client_max);
        let mut open = self.lock();
        let of_client = open.entry(client).or_default();
        if *of_client >= most {
            let text = format!(
                "{most} streams or unsent requests are open, the bound streams.per_client_max"
            );
            return Err(Refusal::Streams.status_with_pause(text, PAUSE));
        }
        *of_client += 1;
        Ok(Open {
            streams: self.clone(),
            client,
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, u32>> {
        let open = self.shared.open.lock();
        open.unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Entry::Occupied(mut of_client) = self.streams.lock().entry(self.client) {
            *of_client.get_mut() -= 1;
            if *of_client.get() == 0 {
                of_client.remove();
            }
        }
    }
}

pin_project! {
    /// The request of a call with one message. While its client does not send that, it is as a stream: it
    /// has room at a backend that others want. One that comes with its head, as nearly all do, is not
    /// counted.
    pub struct Awaited<B> {
        #[pin]
        body: B,
        streams: Streams,
        client: Key,
        open: Option<Open>,
    }
}

impl<B> Awaited<B> {
    /// `body`, from `client`.
    pub fn new(body: B, streams: Streams, client: Key) -> Self {
        Self {
            body,
            streams,
            client,
            open: None,
        }
    }
}

impl<B: Body<Data = Bytes, Error = Status>> Body for Awaited<B> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let mut this = self.project();
        let frame = this.body.as_mut().poll_frame(cx);
        if frame.is_pending() {
            if this.open.is_none() {
                match this.streams.open(*this.client) {
                    Ok(open) => *this.open = Some(open),
                    Err(refused) => return Poll::Ready(Some(Err(refused))),
                }
            }
        } else if this.open.is_some() && this.body.is_end_stream() {
            *this.open = None;
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
