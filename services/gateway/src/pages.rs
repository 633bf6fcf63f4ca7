//! What there is to ask, for programs and for people: `GET /openapi.json` and `GET /`.
//!
//! Both are written from what the services say of themselves, when first asked for, and kept until
//! that changes.

mod comments;
mod openapi;
mod page;
mod schema;

use std::sync::OnceLock;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use tonic::body::Body;

use crate::{
    catalogue::Api,
    json::{JSON, respond},
};

/// Nothing of a page is from elsewhere, and nothing in it runs.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
);

/// What was written of one [`Api`].
#[derive(Debug, Default)]
pub struct Pages {
    openapi: OnceLock<Bytes>,
    page: OnceLock<Bytes>,
}

/// The page that `request` asks for, if it asks for one.
#[must_use]
pub fn answer<B>(api: &Api, request: &Request<B>) -> Option<Response<Body>> {
    if ![Method::GET, Method::HEAD].contains(request.method()) {
        return None;
    }
    let (bytes, content_type) = match request.uri().path() {
        "/openapi.json" => {
            let written = api.pages.openapi.get_or_init(|| openapi::write(api).into());
            (written, JSON)
        }
        "/" => {
            let written = api.pages.page.get_or_init(|| page::write(api).into());
            (
                written,
                HeaderValue::from_static("text/html; charset=utf-8"),
            )
        }
        _ => return None,
    };
    let body = Body::new(Full::from(bytes.clone()));
    let mut response = respond(StatusCode::OK, content_type, body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, POLICY);
    Some(response)
}
