//! How requests are refused: `google.rpc.Status` in JSON, under the status of HTTP that it means.

use std::sync::LazyLock;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use gantry::status::{self, Refusal};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage};
use serde_json::{Value, json};
use tonic::{Code, Status, body::Body};
use tonic_types::{StatusExt as _, pb};

use super::{read::Fault, well_known, write};

/// What details are usually made of.
static KNOWN: LazyLock<DescriptorPool> = LazyLock::new(|| {
    DescriptorPool::decode(pb::FILE_DESCRIPTOR_SET).expect("the crate's own descriptors are whole")
});

/// A request that is not answered with what it asked for.
#[derive(Debug)]
pub struct Failure {
    /// What HTTP says of it.
    pub http: StatusCode,
    /// What is said in the body.
    pub status: Box<Status>,
    /// What is said beside it.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self {
            http: http_of(status.code()),
            status: Box::new(status),
            headers: Vec::new(),
        }
    }
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        let field = if fault.field.is_empty() {
            "body".to_owned()
        } else {
            fault.field
        };
        status::invalid_argument([(field, fault.text)]).into()
    }
}

impl Failure {
    /// A request that is wrong as HTTP, said with `http`.
    pub fn of_request(http: StatusCode, code: Code, text: impl Into<String>) -> Self {
        Self {
            http,
            ..Status::new(code, text).into()
        }
    }

    /// A header that cannot be read.
    #[must_use]
    pub fn of_header(name: &str, text: &str) -> Self {
        let fault = Fault {
            field: name.to_owned(),
            text: text.to_owned(),
        };
        fault.into()
    }

    /// A type of body that is not taken.
    #[must_use]
    pub fn media_type(text: String) -> Self {
        let code = Refusal::NotGrpc.code();
        Self::of_request(StatusCode::UNSUPPORTED_MEDIA_TYPE, code, text)
    }

    /// A body, or a line of it, beyond a bound.
    #[must_use]
    pub fn too_large(what: &str, most: usize) -> Self {
        let text = format!("{what} is larger than {most} bytes, the bound http.body_max");
        let code = Refusal::MessageTooLarge.code();
        Self::of_request(StatusCode::PAYLOAD_TOO_LARGE, code, text)
    }

    /// A body that comes too slowly. Nobody waits for the rest of it: over HTTP/1.1 the connection
    /// ends with the answer.
    #[must_use]
    pub fn too_slow(text: String) -> Self {
        let code = Refusal::DeadlineExceeded.code();
        let failure = Self::of_request(StatusCode::REQUEST_TIMEOUT, code, text);
        failure.with_header(header::CONNECTION, "close")
    }

    /// Says `value` in the header `name` as well.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.push((name, value));
        }
        self
    }

    /// The answer; types of details are looked up in `pool` as well.
    #[must_use]
    pub fn answer(&self, pool: Option<&DescriptorPool>) -> Response<Body> {
        let body = in_json(&self.status, pool).to_string();
        let mut response = super::respond(self.http, super::JSON, Body::new(body));
        let headers = response.headers_mut();
        for (name, value) in &self.headers {
            headers.insert(name, value.clone());
        }
        headers.extend(self.hints());
        response
    }

    /// What HTTP has a header for: how to be let in, and when to come back.
    #[must_use]
    pub fn hints(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if self.http == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        let pause = self.status.get_details_retry_info();
        if let Some(pause) = pause.and_then(|it| it.retry_delay) {
            let seconds = pause.as_nanos().div_ceil(1_000_000_000).to_string();
            if let Ok(seconds) = HeaderValue::from_str(&seconds) {
                headers.insert(header::RETRY_AFTER, seconds);
            }
        }
        headers
    }
}

/// The status of HTTP for a code of gRPC, as `google.rpc.Code` has it.
#[must_use]
pub fn http_of(code: Code) -> StatusCode {
    /// The client went away; nobody reads it.
    const CANCELLED: u16 = 499;
    match code {
        Code::Ok => StatusCode::OK,
        Code::Cancelled => {
            StatusCode::from_u16(CANCELLED).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
        }
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => {
            StatusCode::BAD_REQUEST
        }
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::Unknown | Code::Internal | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// `status` as `google.rpc.Status` in JSON. A detail of a type that nobody here knows is its bytes.
#[must_use]
pub fn in_json(status: &Status, pool: Option<&DescriptorPool>) -> Value {
    let details = pb::Status::decode(status.details())
        .unwrap_or_default()
        .details;
    let details = details.into_iter().map(|detail| {
        let known = self::detail(pool.unwrap_or(&KNOWN), &detail.type_url, &detail.value);
        known.unwrap_or_else(|| {
            let bytes = BASE64_STANDARD.encode(&detail.value);
            json!({"@type": detail.type_url, "value": bytes})
        })
    });
    json!({
        "code": i32::from(status.code()),
        "message": status.message(),
        "details": details.collect::<Vec<_>>(),
    })
}

/// A detail in JSON, if its type is in `pool` or is one of the usual ones.
#[must_use]
pub fn detail(pool: &DescriptorPool, url: &str, value: &[u8]) -> Option<Value> {
    known_detail(pool, url, value).or_else(|| known_detail(&KNOWN, url, value))
}

fn known_detail(pool: &DescriptorPool, url: &str, value: &[u8]) -> Option<Value> {
    let (_, name) = url.rsplit_once('/')?;
    let descriptor = pool.get_message_by_name(name)?;
    let is_special = well_known::is_special(&descriptor);
    let message = DynamicMessage::decode(descriptor, value).ok()?;
    let written: Value = serde_json::from_slice(&write::message(&message).ok()?).ok()?;
    match written {
        Value::Object(mut object) if !is_special => {
            object.insert("@type".to_owned(), url.into());
            Some(Value::Object(object))
        }
        other => Some(json!({"@type": url, "value": other})),
    }
}
