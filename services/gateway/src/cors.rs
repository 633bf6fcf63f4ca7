//! Which pages of others may ask, by the rules of browsers (CORS): none, unless the configuration
//! names where they come from. No cookies come with what they ask, and none would count.

use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use tonic::body::Body;

/// Everybody.
const ANY: &str = "*";
/// How long a browser need not ask again, in seconds.
const MAX_AGE: HeaderValue = HeaderValue::from_static("7200");
const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE");

/// Where a request came from, if it may from there.
#[derive(Debug)]
pub(crate) struct Asked {
    origin: Option<HeaderValue>,
    /// Whether anybody else would be answered otherwise.
    varies: bool,
}

impl Asked {
    /// Compares where `request` comes from with `origins`.
    pub(crate) fn of<B>(request: &Request<B>, origins: &[String]) -> Self {
        let origin = request.headers().get(header::ORIGIN);
        let allowed = origin.filter(|origin| {
            let same = |it: &String| it == ANY || it.as_bytes() == origin.as_bytes();
            origins.iter().any(same)
        });
        Self {
            origin: allowed.cloned(),
            varies: !origins.is_empty(),
        }
    }

    /// The answer to a browser that asks whether it may ask.
    pub(crate) fn preflight<B>(&self, request: &Request<B>) -> Option<Response<Body>> {
        let headers = request.headers();
        let is_asked = headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
        if *request.method() != Method::OPTIONS || !is_asked || self.origin.is_none() {
            return None;
        }
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        let answer = response.headers_mut();
        self.allow(answer);
        answer.insert(header::ACCESS_CONTROL_ALLOW_METHODS, METHODS);
        if let Some(asked) = headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
            answer.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, asked.clone());
        }
        answer.insert(header::ACCESS_CONTROL_MAX_AGE, MAX_AGE);
        Some(response)
    }

    /// Lets the page read an answer.
    pub(crate) fn allow(&self, headers: &mut HeaderMap) {
        if self.varies {
            headers.append(header::VARY, HeaderValue::from_static("origin"));
        }
        let Some(origin) = &self.origin else {
            return;
        };
        // Without it a page sees no status that stands in the headers.
        let mut exposed = String::from("grpc-status, grpc-message, grpc-status-details-bin");
        for name in headers.keys() {
            exposed.push_str(", ");
            exposed.push_str(name.as_str());
        }
        if let Ok(exposed) = HeaderValue::from_str(&exposed) {
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
        }
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    }
}
