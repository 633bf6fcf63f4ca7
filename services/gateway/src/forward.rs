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
    streams::{Awaited, Streams},
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
}

impl Forward {
    /// Hands calls on to `backends`, as far as `access`, `limiter` and `streams` let them. Clients are
    /// told apart by `limiter`.
    #[must_use]
    pub fn new(backends: Backends, access: Access, limiter: Limiter, streams: Streams) -> Self {
        let shared = Shared {
            backends,
            access,
            limiter,
            streams,
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

    fn backend(&self, path: &str) -> Result<Channel, Status> {
        let Some(service) = service_of(path) else {
            let text = format!("{path} is not the path of a method");
            return Err(Refusal::Unimplemented.status(text));
        };
        self.backends.of(service)
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
            let checked = shared.access.check(path.path(), &head.headers).await;
            let streams = &shared.streams;
            let client = Key::of(address);
            let open = checked.and_then(|(known, identity)| {
                counted.identified(&Caller {
                    address,
                    headers: &head.headers,
                    identity: identity.as_ref().map(|it| it.subject.as_str()),
                })?;
                // So that it knows whether it may try again.
                channel.assume(known.idempotency);
                let open = known.is_stream.then(|| streams.open(client));
                open.transpose()
            });
            let (open, body) = match open {
                Ok(None) => (None, Body::new(Awaited::new(body, streams.clone(), client))),
                Ok(open) => (open, Body::new(body)),
                Err(status) => return Ok(status.into_http()),
            };
            let body = match call::whole(&mut head.extensions, body).await {
                Ok(body) => body,
                Err(status) => return Ok(status.into_http()),
            };
            // Within: the channel takes the trace and the deadline of the call that it runs in.
            let answer = channel.call(Request::from_parts(head, body));
            Ok(match answer.await {
                Ok(response) => response.map(|body| {
                    Body::new(body.map_err(move |status| {
                        // Open for as long as the answer is.
                        let _open = &open;
                        outside(path.path(), status)
                    }))
                }),
                Err(status) => outside(path.path(), status).into_http(),
            })
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
