//! What of a request nobody read when it was refused.
//!
//! Over HTTP/1.1 a connection whose request was not read to its end is closed, and a client that is
//! still writing may see that before it sees why.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::stream;
use gantry::BoxError;
use http::{Request, Version};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt as _, StreamBody};
use tokio::time;
use tonic::body::Body as AnswerBody;

use crate::json::Incoming;

/// Bytes that are read for a client to hear what it is refused with.
const BYTES_MAX: usize = 1 << 20;
/// How long they are waited for.
const WAIT_MAX: Duration = Duration::from_secs(1);

/// A body that may be taken back.
struct Lent(Arc<Mutex<Incoming>>);

/// What is left of a body once its request is answered.
pub(crate) struct Unread(Option<Arc<Mutex<Incoming>>>);

/// Gives `request` away, and keeps hold of its body.
pub(crate) fn lend(request: Request<Incoming>) -> (Request<Incoming>, Unread) {
    if request.version() >= Version::HTTP_2 || request.body().is_end_stream() {
        return (request, Unread(None));
    }
    let (head, body) = request.into_parts();
    let body = Arc::new(Mutex::new(body));
    let lent = Lent(Arc::clone(&body)).boxed_unsync();
    (Request::from_parts(head, lent), Unread(Some(body)))
}

impl Unread {
    /// `answer`, whose end waits for the rest where there is one: an answer under a good status may be
    /// a refusal, too, and its caller in the midst of a stream.
    pub(crate) fn before_end_of(self, answer: AnswerBody) -> AnswerBody {
        let is_over = self
            .0
            .as_ref()
            .is_none_or(|it| Lent(Arc::clone(it)).is_end_stream());
        if is_over {
            return answer;
        }
        let frames = stream::unfold((answer, self), |(mut answer, unread)| async move {
            if let Some(frame) = answer.frame().await {
                return Some((frame, (answer, unread)));
            }
            unread.take().await;
            None
        });
        AnswerBody::new(StreamBody::new(frames))
    }

    /// Reads the rest, within bounds.
    pub(crate) async fn take(self) {
        let Some(body) = self.0 else {
            return;
        };
        let mut body = Lent(body);
        let rest = async {
            let mut bytes = 0;
            while let Some(Ok(frame)) = body.frame().await {
                bytes += frame.data_ref().map_or(0, Bytes::len);
                if bytes > BYTES_MAX {
                    return;
                }
            }
        };
        // Whoever is slower hears of a connection that is closed.
        drop(time::timeout(WAIT_MAX, rest).await);
    }
}

impl Body for Lent {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let mut body = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Pin::new(&mut *body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        let body = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let body = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        body.size_hint()
    }
}
