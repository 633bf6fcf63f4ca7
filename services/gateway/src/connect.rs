//! Connect, for calls of one message each way: a POST, or a GET where it changes nothing, at the
//! path of the method, with the message as the body.

use std::{sync::Arc, time::Duration};

use base64::{
    Engine as _,
    prelude::{BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE, BASE64_URL_SAFE_NO_PAD},
};
use bytes::Bytes;
use gantry::{
    config::Live,
    contract::Idempotency,
    server::Calls,
    status::{self, Refusal},
};
use http::{
    HeaderMap, HeaderValue, Method as Verb, Request, Response, StatusCode, header, request,
};
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage};
use serde_json::json;
use tokio::time::{self, Instant};
use tonic::{Code, Status, Streaming, body::Body, metadata::MetadataMap};
use tonic_types::pb;

use crate::{
    backends, call,
    catalogue::{Method, percent},
    config::Http,
    headers,
    json::{self, Allowance, Bodies, Failure, Incoming, Requests, Share, unsupported},
    stale,
};

/// What the only version of the protocol is called.
const VERSION: (&str, &str) = ("connect-protocol-version", "1");
/// Whether a request says itself that it is Connect.
pub(crate) fn is_said(headers: &HeaderMap) -> bool {
    headers.contains_key(VERSION.0)
}

/// The answer for a path that is no method's.
pub(crate) fn unknown(path: &str) -> Response<Body> {
    let text = format!("no service that is registered and described has {path}");
    let code = Code::Unimplemented;
    let failure = Failure::of_request(StatusCode::NOT_FOUND, code, text);
    refusal(failure.into(), &DescriptorPool::new())
}

/// The answer for a `method` whose service went a little while ago.
pub(crate) fn gone(method: &Method) -> Response<Body> {
    let descriptor = &method.descriptor;
    let status = backends::gone(descriptor.parent_service().full_name());
    refusal(status.into(), descriptor.parent_pool())
}

/// How long the caller waits, in milliseconds of up to ten digits.
const TIMEOUT: &str = "connect-timeout-ms";
const TIMEOUT_DIGITS: usize = 10;

/// How a message is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Codec {
    Proto,
    Json,
}

impl Codec {
    fn named(name: &str) -> Option<Self> {
        match name {
            "proto" => Some(Self::Proto),
            "json" => Some(Self::Json),
            _ => None,
        }
    }

    fn content_type(self) -> HeaderValue {
        match self {
            Self::Proto => HeaderValue::from_static("application/proto"),
            Self::Json => json::JSON,
        }
    }
}

/// Answers Connect; clones share everything.
#[derive(Debug, Clone)]
pub(crate) struct Connect {
    config: Live<Http>,
    bodies: Bodies,
}

/// A call that failed: what the service said before, and how it ended.
struct Failed {
    leading: MetadataMap,
    failure: Failure,
}

impl<F: Into<Failure>> From<F> for Failed {
    fn from(failure: F) -> Self {
        Self {
            leading: MetadataMap::new(),
            failure: failure.into(),
        }
    }
}

impl Connect {
    pub(crate) fn new(config: Live<Http>, bodies: Bodies) -> Self {
        Self { config, bodies }
    }

    /// Answers a request for `method`.
    pub(crate) async fn answer(
        &self,
        method: &Arc<Method>,
        request: Request<Incoming>,
    ) -> Response<Body> {
        let (head, body) = request.into_parts();
        let is_get = head.method == Verb::GET;
        if !(head.method == Verb::POST
            || is_get && method.idempotency() == Idempotency::NoSideEffects)
        {
            let mut response = empty(StatusCode::METHOD_NOT_ALLOWED);
            let allowed = if method.idempotency() == Idempotency::NoSideEffects {
                "GET, POST"
            } else {
                "POST"
            };
            let allowed = HeaderValue::from_static(allowed);
            response.headers_mut().insert(header::ALLOW, allowed);
            return response;
        }
        let codec = if is_get {
            query_codec(&head)
        } else {
            body_codec(&head.headers)
        };
        let Some(codec) = codec.filter(|_| method.is_unary()) else {
            let mut response = wrong_type(method, &head);
            let taken = HeaderValue::from_static("application/json, application/proto");
            response.headers_mut().insert("accept-post", taken);
            return response;
        };
        match self.run(method, codec, head, body).await {
            Ok(response) => response,
            Err(failed) => refusal(failed, method.descriptor.parent_pool()),
        }
    }

    async fn run(
        &self,
        method: &Arc<Method>,
        codec: Codec,
        head: request::Parts,
        body: Incoming,
    ) -> Result<Response<Body>, Failed> {
        let calls = head.extensions.get::<Calls>().cloned();
        let calls = calls.ok_or_else(|| status::broken("the request cannot make calls"))?;
        check_head(&head)?;
        let longest = self.config.load().timeout;
        let timeout = timeout(&head.headers)?.map(|it| it.min(longest));
        let allowance = self.bodies.allow(&head);
        let metadata = headers::metadata(&head.headers);
        let asked = Arc::clone(method);
        let requests =
            Requests::single(async move { message(&asked, codec, &head, body, allowance).await });
        let Requests {
            messages,
            mut faults,
            ..
        } = requests;
        let path = method.path.clone();
        let begun = call::begin(calls, path, metadata, timeout, messages);
        // What was wrong with the request explains how the call ended, so it is asked first.
        let answered = tokio::select! {
            biased;
            failure = faults.next() => return Err(failure.into()),
            answered = answered(method, codec, begun, Instant::now() + longest) => answered,
        };
        let (leading, answer, trailing) = answered?;
        let body = Body::new(http_body_util::Full::from(answer));
        let mut response = json::respond(StatusCode::OK, codec.content_type(), body);
        let age = stale::age(&leading);
        headers::answer(leading, "", response.headers_mut());
        stale::tell(age, response.headers_mut());
        headers::answer(trailing, "trailer-", response.headers_mut());
        Ok(response)
    }
}

/// The message of a request, with what its body holds.
async fn message(
    method: &Method,
    codec: Codec,
    head: &request::Parts,
    body: Incoming,
    allowance: Allowance,
) -> Result<(Bytes, Option<Share>), Failure> {
    let (message, share) = if head.method == Verb::GET {
        let query = head.uri.query().unwrap_or_default();
        (query_message(query)?, None)
    } else {
        let (body, share) = json::whole(&head.headers, body, allowance).await?;
        (body, Some(share))
    };
    let input = method.descriptor.input();
    let message = match codec {
        // Else the backend would say that it is itself to blame.
        Codec::Proto => match DynamicMessage::decode(input.clone(), message.clone()) {
            Ok(_) => message,
            Err(error) => {
                let text = format!("is no {}: {error}", input.full_name());
                return Err(Failure::of_header("body", &text));
            }
        },
        Codec::Json => json::read_message(&input, &message)?,
    };
    Ok((message, share))
}

/// The only answer of a call, with the metadata before and after it.
async fn answered(
    method: &Method,
    codec: Codec,
    begun: impl Future<Output = Result<(MetadataMap, Streaming<Bytes>), Status>>,
    over: Instant,
) -> Result<(MetadataMap, Bytes, MetadataMap), Failed> {
    let (leading, mut answers) = time::timeout_at(over, begun).await.map_err(|_| late())??;
    let answered = async {
        let answer = answers.message().await?;
        let answer = answer.ok_or_else(|| status::broken("the service gave no answer"))?;
        if answers.message().await?.is_some() {
            return Err(status::broken("the service gave more than one answer"));
        }
        let trailing = answers.trailers().await?.unwrap_or_default();
        match codec {
            Codec::Proto => Ok((answer, trailing)),
            Codec::Json => json::write_message(&method.descriptor.output(), &answer)
                .map(|json| (json, trailing)),
        }
    };
    let answered = time::timeout_at(over, answered).await;
    match answered.unwrap_or_else(|_| Err(late())) {
        Ok((answer, trailing)) => Ok((leading, answer, trailing)),
        Err(status) => {
            let failure = status.into();
            Err(Failed { leading, failure })
        }
    }
}

/// A request whose messages are in a form that is not spoken, or are more than one.
fn wrong_type(method: &Method, head: &request::Parts) -> Response<Body> {
    let text = if method.is_unary() {
        let found = head.headers.get(header::CONTENT_TYPE);
        format!("content-type: expected application/json or application/proto, found {found:?}")
    } else {
        let path = &method.path;
        format!(
            "{path} is a stream, which is to be had by gRPC and gRPC-Web, and as JSON by its rule"
        )
    };
    unsupported(text)
}

fn late() -> Status {
    Refusal::DeadlineExceeded.status("no answer within http.timeout")
}

fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

fn body_codec(headers: &HeaderMap) -> Option<Codec> {
    let content_type = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    let media = content_type.split(';').next().unwrap_or_default().trim();
    let media = media.to_ascii_lowercase();
    Codec::named(media.strip_prefix("application/")?)
}

fn query_codec(head: &request::Parts) -> Option<Codec> {
    let name = parameter(head.uri.query().unwrap_or_default(), "encoding").ok()??;
    Codec::named(&name)
}

/// The value of `name` in a query.
fn parameter(query: &str, name: &str) -> Result<Option<String>, percent::Broken> {
    let mut parts = query.split('&').filter_map(|part| part.split_once('='));
    let found = parts.find(|(found, _)| *found == name);
    found
        .map(|(_, value)| percent::decode_query(value))
        .transpose()
}

fn query_message(query: &str) -> Result<Bytes, Failure> {
    let parameter = |name: &'static str| {
        parameter(query, name)
            .map_err(|error| Failure::of_header(name, &format!("in the query {error}")))
    };
    if let Some(compression) = parameter("compression")?.filter(|it| it != "identity") {
        return Err(uncompressed(&compression));
    }
    let Some(message) = parameter("message")? else {
        return Err(Failure::of_header(
            "message",
            "is not in the query; send the request in it",
        ));
    };
    if parameter("base64")?.as_deref() != Some("1") {
        return Ok(message.into());
    }
    let decoded = BASE64_URL_SAFE_NO_PAD
        .decode(&message)
        .or_else(|_| BASE64_URL_SAFE.decode(&message));
    let decoded = decoded.map_err(|error| {
        Failure::of_header("message", &format!("is not base64 for URLs: {error}"))
    })?;
    Ok(decoded.into())
}

fn uncompressed(found: &str) -> Failure {
    let text = format!("expected no compression, found {found}; send identity");
    Status::new(Code::Unimplemented, text).into()
}

fn check_head(head: &request::Parts) -> Result<(), Failure> {
    let version = head.headers.get(VERSION.0);
    if let Some(found) = version.filter(|it| *it != VERSION.1) {
        let text = format!("expected {}, found {found:?}", VERSION.1);
        return Err(Failure::of_header(VERSION.0, &text));
    }
    let version = parameter(head.uri.query().unwrap_or_default(), "connect");
    if head.method == Verb::GET
        && let Ok(Some(found)) = version
        && found != "v1"
    {
        let text = format!("expected v1, found {found}");
        return Err(Failure::of_header("connect", &text));
    }
    let encoding = head.headers.get(header::CONTENT_ENCODING);
    match encoding.filter(|it| *it != "identity" && head.method == Verb::POST) {
        Some(found) => Err(uncompressed(found.to_str().unwrap_or("something else"))),
        None => Ok(()),
    }
}

fn timeout(headers: &HeaderMap) -> Result<Option<Duration>, Failure> {
    let Some(value) = headers.get(TIMEOUT) else {
        return Ok(None);
    };
    let text = value.to_str().unwrap_or_default();
    let is_number = (1..=TIMEOUT_DIGITS).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_digit());
    let millis = text.parse().ok().filter(|_| is_number);
    let millis = millis.ok_or_else(|| {
        let expected =
            format!("expected milliseconds in up to {TIMEOUT_DIGITS} digits, found {value:?}");
        Failure::of_header(TIMEOUT, &expected)
    })?;
    Ok(Some(Duration::from_millis(millis)))
}

/// An error as Connect spells it.
fn refusal(failed: Failed, pool: &DescriptorPool) -> Response<Body> {
    let Failed { leading, failure } = failed;
    let hints = failure.hints();
    let beside = failure.headers.clone();
    let status = *failure.status;
    let details = pb::Status::decode(status.details())
        .unwrap_or_default()
        .details;
    let details = details.into_iter().map(|detail| {
        let name = detail
            .type_url
            .rsplit_once('/')
            .map_or("", |(_, name)| name);
        let mut said = json!({
            "type": name,
            "value": BASE64_STANDARD_NO_PAD.encode(&detail.value),
        });
        if let Some(debug) = json::failure::detail(pool, &detail.type_url, &detail.value) {
            said["debug"] = debug;
        }
        said
    });
    let details: Vec<_> = details.collect();
    let mut error = json!({"code": code_name(status.code()), "message": status.message()});
    if !details.is_empty() {
        error["details"] = details.into();
    }
    let body = Body::new(error.to_string());
    let mut response = json::respond(failure.http, json::JSON, body);
    response.headers_mut().extend(hints);
    response.headers_mut().extend(beside);
    headers::answer(leading, "", response.headers_mut());
    headers::answer(
        status.metadata().clone(),
        "trailer-",
        response.headers_mut(),
    );
    response
}

fn code_name(code: Code) -> String {
    match code {
        Code::Cancelled => "canceled".to_owned(),
        code => status::code_name(code).to_ascii_lowercase(),
    }
}
