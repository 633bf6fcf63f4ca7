//! Hands calls on to whoever registered their service: all four kinds, bytes untouched.
//!
//! Deadlines and cancellation reach the backend by the channel's own means: what is left of the
//! call's time is written anew, and a caller that goes away drops the call it waits for.

use std::{
    convert::Infallible,
    net::IpAddr,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::future::{Either, FutureExt as _};
use gantry::{
    client::Channel,
    limit::{
        client::Key,
        rate::{Begun, Caller, Limiter},
    },
    server::Inbound,
    status::{self, Refusal},
};
use http::{Request, Response, uri::PathAndQuery};
use http_body_util::BodyExt as _;
use tonic::{Code, Status, body::Body, codegen::BoxFuture};
use tonic_types::StatusExt as _;
use tower::Service;

use crate::{
    access::Access,
    backends::Backends,
    call,
    stale::Stale,
    streams::{Awaited, Open, Streams},
};

/// When a call that a backend may not have seen is worth another try.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Answers every call by another's answer; clones share all.
#[derive(Debug, Clone)]
pub struct Forward {
    // One count for all of it: each call has a clone.
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    backends: Backends,
    access: Access,
    limiter: Limiter,
    streams: Streams,
    stale: Stale,
}

impl Forward {
    /// Hands calls on to `backends`, as far as `access`, `limiter` and `streams` let them. Clients are
    /// told apart by `limiter`. What backends cannot answer, `stale` may.
    #[must_use]
    pub fn new(
        backends: Backends,
        access: Access,
        limiter: Limiter,
        streams: Streams,
        stale: Stale,
    ) -> Self {
        let shared = Shared {
            backends,
            access,
            limiter,
            streams,
            stale,
        };
        Self {
            shared: Arc::new(shared),
        }
    }
}

impl Shared {
    /// Counts the call, as far as that needs no identity; answers where it comes from. In front of all that
    /// costs more, a signature to be checked among it.
    fn count(&self, path: &str, request: &Request<Inbound>) -> Result<(IpAddr, Begun), Status> {
        let headers = request.headers();
        let address = self.limiter.client(request.extensions(), headers);
        let caller = Caller {
            address,
            headers,
            identity: None,
        };
        let method = path.strip_prefix('/').unwrap_or(path);
        Ok((address, self.limiter.begin(method, &caller)?))
    }

    /// Who answers calls of `path`; what they fail with where nobody does at this moment, and an answer
    /// may be there that is stale.
    fn backend(&self, path: &str) -> Result<Result<Channel, Status>, Status> {
        let Some(service) = service_of(path) else {
            let text = format!("{path} is not the path of a method");
            return Err(Refusal::Unimplemented.status(text));
        };
        match self.backends.of(service) {
            Err(gone) if !self.stale.is_wanted(path) || !self.backends.is_gone(service) => {
                Err(gone)
            }
            found => Ok(found),
        }
    }

    /// Makes the call that `request` is of `path`. Where there is an `age_max`, an answer that was
    /// given before and is no older may be given once more.
    ///
    /// Not an `async fn`, and the call begins at once: a request is large, and would be kept to the end.
    fn answer(
        &self,
        age_max: Option<Duration>,
        channel: Result<Channel, Status>,
        path: PathAndQuery,
        request: Request<Body>,
        open: Option<Open>,
    ) -> impl Future<Output = Response<Body>> + use<'_> {
        let call = |request| {
            // Within: the channel takes the trace and the deadline of the call that it runs in.
            let answer = channel.map(|mut channel| channel.call(request));
            async move {
                let answered = match answer {
                    Ok(answer) => answer.await,
                    Err(gone) => Err(gone),
                };
                match answered {
                    Ok(response) => Ok(response.map(|body| {
                        Body::new(body.map_err(move |status| {
                            // Open for as long as the answer is.
                            let _open = &open;
                            outside(path.path(), status)
                        }))
                    })),
                    Err(status) => Err(outside(path.path(), status)),
                }
            }
        };
        let answered = match age_max {
            None => Either::Left(call(request)),
            // In a box: others carry no room for it.
            Some(age_max) => Either::Right(Box::pin(self.stale.answer(age_max, request, call))),
        };
        answered.map(|answered| answered.unwrap_or_else(Status::into_http))
    }
}

impl Service<Request<Inbound>> for Forward {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Response<Body>, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Inbound>) -> Self::Future {
        let path = request.uri().path_and_query().cloned();
        let path = path.unwrap_or_else(|| PathAndQuery::from_static("/"));
        let shared = Arc::clone(&self.shared);
        let channel = shared
            .backends
            .hop()
            .check(path.path(), request.headers())
            .and_then(|()| shared.count(path.path(), &request))
            .and_then(|counted| Ok((counted, shared.backend(path.path())?)));
        let ((address, counted), mut channel) = match channel {
            Ok(found) => found,
            Err(status) => return Box::pin(std::future::ready(Ok(status.into_http()))),
        };
        let (mut head, body) = request.into_parts();
        // Where it goes is the channel's to say.
        head.uri = path.clone().into();
        Box::pin(async move {
            let (access, is_gone) = (&shared.access, channel.is_err());
            let checked = access.check(path.path(), &head.headers, is_gone);
            let checked = checked.await;
            let streams = &shared.streams;
            let client = Key::of(address);
            let open = checked.and_then(|(known, identity)| {
                counted.identified(&Caller {
                    address,
                    headers: &head.headers,
                    identity: identity.as_ref().map(|it| it.subject.as_str()),
                })?;
                if let Ok(channel) = &mut channel {
                    // So that it knows whether it may try again.
                    channel.assume(known.idempotency);
                }
                let open = known.is_stream.then(|| streams.open(client)).transpose()?;
                Ok((open, shared.stale.age_max(path.path(), known)))
            });
            let (open, age_max) = match open {
                Ok(open) => open,
                Err(status) => return Ok(status.into_http()),
            };
            let body = match open {
                None => Body::new(Awaited::new(body, streams.clone(), client)),
                Some(_) => Body::new(body),
            };
            let body = match call::whole(&mut head.extensions, body).await {
                Ok(body) => body,
                Err(status) => return Ok(status.into_http()),
            };
            let request = Request::from_parts(head, body);
            Ok(shared.answer(age_max, channel, path, request, open).await)
        })
    }
}

/// `status` as whoever called `path` is told it. Where a call got no answer of a backend, the message
/// is this process's own, and names addresses that are nobody's business outside.
fn outside(path: &str, status: Status) -> Status {
    let Some(public) = status::public(&status) else {
        return status;
    };
    let service = service_of(path).unwrap_or_default();
    let error = status.message();
    tracing::debug!(rpc.service = service, error, "a call was not answered");
    let text = format!("{service}: {public}");
    let mut details = status.get_error_details();
    if status.code() == Code::Unavailable && details.retry_info().is_none() {
        details.set_retry_info(Some(RETRY_PAUSE));
    }
    let metadata = status.metadata().clone();
    Status::with_error_details_and_metadata(status.code(), text, details, metadata)
}

/// The service that `path` calls.
fn service_of(path: &str) -> Option<&str> {
    let name = path.strip_prefix('/').unwrap_or(path);
    name.rsplit_once('/').map(|(service, _)| service)
}
