//! JSON over HTTP: requests become calls by the mappings of `google.api.http`, and answers JSON.
//!
//! ```text
//! request ─▶ binding ─▶ path, query, body ─▶ message ─▶ Calls ─▶ answer, line by line for streams
//! ```

mod body;
pub mod failure;
mod fields;
mod held;
mod node;
mod pace;
mod read;
mod scalar;
mod stream;
mod well_known;
mod write;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use gantry::{
    config::Live,
    deadline,
    server::Calls,
    status::{self, Refusal},
    telemetry::http::Route,
};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header, request};
use prost::Message as _;
use prost_reflect::{DynamicMessage, MessageDescriptor};
use tonic::{Code, Status, Streaming, body::Body};

#[cfg(test)]
pub(crate) use self::body::tests as body_tests;
pub(crate) use self::{
    body::{Faults, Requests},
    well_known::is_text,
};
pub use self::{
    body::{Incoming, whole},
    failure::Failure,
    held::{Allowance, Bodies, Share},
    pace::Pace,
};
use self::{node::Node, read::At};
use crate::{
    backends, call,
    catalogue::{
        Api, Catalogue,
        routes::Found,
        rule::{self, Binding},
    },
    config::Http,
    pages,
    stale::Stale,
};

/// One message.
pub const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// A message in each line.
pub const LINES: HeaderValue = HeaderValue::from_static("application/x-ndjson");

/// How long a caller waits.
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// When a request that came before the services were read is worth another try.
const UNREAD_PAUSE: Duration = Duration::from_secs(1);

/// Answers requests in JSON; clones share everything.
#[derive(Debug, Clone)]
pub struct Json {
    catalogue: Catalogue,
    config: Live<Http>,
    bodies: Bodies,
    stale: Stale,
}

/// An answer with `body` of a type.
#[must_use]
pub fn respond(status: StatusCode, content_type: HeaderValue, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, content_type);
    // Answers belong to whoever asked, and are never anything but what they say.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    response
}

/// Refuses a body of a type that no protocol here has, in words: which form an error would have is
/// not known.
pub(crate) fn unsupported(text: impl Into<String>) -> Response<Body> {
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
    respond(status, plain, Body::new(format!("{}\n", text.into())))
}

impl Json {
    /// Answers for what `catalogue` has, and for what went and `stale` may have answers of.
    #[must_use]
    pub fn new(catalogue: Catalogue, config: Live<Http>, bodies: Bodies, stale: Stale) -> Self {
        Self {
            catalogue,
            config,
            bodies,
            stale,
        }
    }

    /// Answers one request.
    pub async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let is_head = request.method() == http::Method::HEAD;
        let response = self.answer_whole(request).await;
        if is_head {
            response.map(|_| Body::empty())
        } else {
            response
        }
    }

    async fn answer_whole(&self, request: Request<Incoming>) -> Response<Body> {
        let Some(api) = self.catalogue.api().await else {
            let text = "the services have not been read yet";
            let status = Refusal::NoEndpoint.status_with_pause(text, UNREAD_PAUSE);
            return Failure::from(status).answer(None);
        };
        let (method, path) = (request.method(), request.uri().path());
        let mut found = api.routes.find(method, path);
        if matches!(found, Found::Nothing)
            && let Some(api) = self.catalogue.completed(&api).await
        {
            found = api.routes.find(method, path);
        }
        let binding = match found {
            Found::Binding(binding) => binding,
            Found::OtherMethods(methods) => return not_allowed(method, path, &methods),
            Found::Nothing => {
                if let Some(page) = self.page(&api, &request) {
                    return page;
                }
                if let Found::Binding(binding) = api.gone.routes.find(method, path) {
                    if self.stale.is_wanted(binding.method.path.path()) {
                        return self.answer_bound(&binding, request).await;
                    }
                    let service = binding.method.descriptor.parent_service();
                    return Failure::from(backends::gone(service.full_name())).answer(None);
                }
                let text = format!("nothing answers {method} {path}");
                let not_found = StatusCode::NOT_FOUND;
                return Failure::of_request(not_found, Code::NotFound, text).answer(None);
            }
        };
        self.answer_bound(&binding, request).await
    }

    /// Calls what a request is bound to.
    async fn answer_bound(
        &self,
        binding: &Arc<Binding>,
        request: Request<Incoming>,
    ) -> Response<Body> {
        let answer = self.run(binding, request).await;
        let mut response = answer.unwrap_or_else(|failure| {
            let pool = binding.method.descriptor.parent_pool();
            failure.answer(Some(pool))
        });
        let route = Route(Arc::clone(&binding.route));
        response.extensions_mut().insert(route);
        response
    }

    /// What there is to ask, where that is asked for and may be told.
    fn page(&self, api: &Api, request: &Request<Incoming>) -> Option<Response<Body>> {
        let shown = self.config.load().pages;
        pages::answer(api, request).filter(|_| shown)
    }

    async fn run(
        &self,
        binding: &Arc<Binding>,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Failure> {
        let (head, body) = request.into_parts();
        let calls = head.extensions.get::<Calls>().cloned();
        let calls = calls.ok_or_else(|| status::broken("the request cannot make calls"))?;
        let metadata = metadata(&head.headers)?;
        let mut timeout = timeout(&head.headers)?;
        let config = self.config.load();
        let method = &binding.method;
        if !method.descriptor.is_server_streaming() {
            // Beyond it the process would answer in our place, and not in JSON.
            let longest = config.timeout;
            timeout = Some(timeout.map_or(longest, |it| it.min(longest)));
        }
        let allowance = self.bodies.allow(&head);
        let requests = if method.descriptor.is_client_streaming() {
            check_lines(&head)?;
            Requests::lines(body, allowance, method.descriptor.input())
        } else {
            let binding = Arc::clone(binding);
            Requests::single(async move { single_request(&binding, &head, body, allowance).await })
        };
        let Requests {
            messages,
            faults,
            begun,
        } = requests;
        let path = method.path.clone();
        let call = Box::pin(call::begin(calls, path, metadata, timeout, messages));
        stream::answer(binding, call, faults, begun).await
    }
}

/// The only answer of a call.
async fn unary(
    binding: &Binding,
    mut answers: Streaming<Bytes>,
) -> Result<Response<Body>, Failure> {
    let answer = answers.message().await?;
    let answer = answer.ok_or_else(|| status::broken("the service gave no answer"))?;
    // The call has not ended well before its trailers say so.
    if answers.message().await?.is_some() {
        return Err(status::broken("the service gave more than one answer").into());
    }
    let output = binding.method.descriptor.output();
    let json = write::answer(&output, binding.answer.as_ref(), &answer)?;
    Ok(respond(
        StatusCode::OK,
        JSON,
        Body::new(http_body_util::Full::from(json)),
    ))
}

/// The only message of a call, encoded, with what its body holds.
async fn single_request(
    binding: &Binding,
    head: &request::Parts,
    body: Incoming,
    allowance: Allowance,
) -> Result<(Bytes, Option<Share>), Failure> {
    let (body, share) = body::whole(&head.headers, body, allowance).await?;
    let input = binding.method.descriptor.input();
    let mut message = DynamicMessage::new(input.clone());
    if !body.is_empty() {
        if matches!(binding.body, rule::Body::None) {
            let text = "this method takes no body; its fields go into the query";
            return Err(Failure::of_header("body", text));
        }
        check_json(&head.headers)?;
        let node = Node::read(&body).map_err(|text| Failure::of_header("body", &text))?;
        match &binding.body {
            rule::Body::Field(field) => {
                let at = At::WHOLE;
                let at = at.field(field.name());
                if let Some(value) = read::field(field, node, &at)? {
                    message.set_field(field, value);
                }
            }
            _ => message = read::message(&input, node, At::WHOLE)?,
        }
    }
    fields::from_query(binding, head.uri.query().unwrap_or_default(), &mut message)?;
    fields::from_path(binding, head.uri.path(), &mut message)?;
    Ok((message.encode_to_vec().into(), Some(share)))
}

/// What of the headers the call is given: who calls, for the service to verify. Nothing else comes
/// from strangers.
fn metadata(headers: &HeaderMap) -> Result<HeaderMap, Failure> {
    let name = header::AUTHORIZATION;
    let mut found = headers.get_all(&name).iter();
    let mut metadata = HeaderMap::new();
    if let Some(authorization) = found.next() {
        metadata.insert(&name, authorization.clone());
    }
    match found.next() {
        None => Ok(metadata),
        Some(_) => Err(Failure::of_header(
            name.as_str(),
            "is there twice; send one",
        )),
    }
}

/// The message that the JSON in `body` stands for, encoded; none at all is an empty one.
///
/// # Errors
///
/// The first thing that is wrong.
pub fn read_message(descriptor: &MessageDescriptor, body: &[u8]) -> Result<Bytes, Failure> {
    if body.is_empty() {
        return Ok(Bytes::new());
    }
    let node = Node::read(body).map_err(|text| Failure::of_header("body", &text))?;
    let message = read::message(descriptor, node, At::WHOLE)?;
    Ok(message.encode_to_vec().into())
}

/// The message in `bytes` as JSON.
///
/// # Errors
///
/// If it is none, or has no form in JSON.
pub fn write_message(descriptor: &MessageDescriptor, bytes: &[u8]) -> Result<Bytes, Status> {
    write::answer(descriptor, None, bytes).map(Bytes::from)
}

/// How long the caller waits, as gRPC spells it.
fn timeout(headers: &HeaderMap) -> Result<Option<Duration>, Failure> {
    let timeout = headers.get(&GRPC_TIMEOUT).map(deadline::parse_timeout);
    timeout.transpose().map_err(|error| {
        let text = format!("{error}; send a number and a unit, as 500m or 10S");
        Failure::of_header(GRPC_TIMEOUT.as_str(), &text)
    })
}

fn not_allowed(method: &http::Method, path: &str, methods: &[String]) -> Response<Body> {
    let methods = methods.join(", ");
    let text = format!("{path} is not answered for {method}, but for {methods}");
    let http = StatusCode::METHOD_NOT_ALLOWED;
    let failure = Failure::of_request(http, Code::Unimplemented, text);
    failure.with_header(header::ALLOW, &methods).answer(None)
}

/// Refuses a body that is not JSON.
fn check_json(headers: &HeaderMap) -> Result<(), Failure> {
    check_type(headers, &["application/json"])
}

/// Refuses a stream of requests that is not lines of JSON.
fn check_lines(head: &request::Parts) -> Result<(), Failure> {
    if let Some(query) = head.uri.query().filter(|it| !it.is_empty()) {
        let field = scalar::shown(query);
        let text = "is in the query; this method takes everything in its body";
        return Err(Failure::of_header(field, text));
    }
    check_type(
        &head.headers,
        &[
            "application/x-ndjson",
            "application/ndjson",
            "application/json",
        ],
    )
}

fn check_type(headers: &HeaderMap, taken: &[&str]) -> Result<(), Failure> {
    let encoding = headers.get(header::CONTENT_ENCODING);
    if let Some(encoding) = encoding.filter(|it| *it != "identity") {
        let text = format!("content-encoding: expected none, found {encoding:?}");
        return Err(Failure::media_type(text));
    }
    let content_type = headers.get(header::CONTENT_TYPE);
    let found = content_type.map(|it| it.to_str().unwrap_or_default());
    let (media, parameters) = found
        .unwrap_or_default()
        .split_once(';')
        .unwrap_or((found.unwrap_or_default(), ""));
    let is_utf8 = parameters.split(';').all(|parameter| {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let value = value.trim().trim_matches('"');
        !name.trim().eq_ignore_ascii_case("charset") || value.eq_ignore_ascii_case("utf-8")
    });
    if is_utf8 && taken.iter().any(|it| media.trim().eq_ignore_ascii_case(it)) {
        return Ok(());
    }
    let (taken, found) = (taken[0], found.unwrap_or("none"));
    let text = format!("content-type: expected {taken} in UTF-8, found {found}");
    Err(Failure::media_type(text))
}
