//! The suite's headers from and to HTTP's. Binary values (`-bin`) are base64 on both sides.

use http::{HeaderMap, HeaderName, HeaderValue};
use prost::Message as _;
use tonic::{Code, Status, metadata::MetadataMap};

use crate::proto::{Error, Header};

/// The suite's headers as HTTP's; values that HTTP cannot carry are left out.
#[must_use]
pub fn to_http(headers: &[Header]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for header in headers {
        let Ok(name) = HeaderName::try_from(header.name.as_str()) else {
            continue;
        };
        for value in &header.value {
            if let Ok(value) = HeaderValue::try_from(value.as_str()) {
                map.append(name.clone(), value);
            }
        }
    }
    map
}

/// HTTP's headers as the suite's.
#[must_use]
pub fn from_http(map: &HeaderMap) -> Vec<Header> {
    map.keys()
        .map(|name| Header {
            name: name.as_str().to_owned(),
            value: map.get_all(name).iter().map(text).collect(),
        })
        .collect()
}

fn text(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}

/// The status the suite asks for, with metadata, and `extra` as the last detail.
#[must_use]
pub fn to_status(error: &Error, metadata: HeaderMap, extra: Option<prost_types::Any>) -> Status {
    let mut details = error.details.clone();
    details.extend(extra);
    let encoded = RpcStatus {
        code: error.code,
        message: error.message.clone().unwrap_or_default(),
        details,
    };
    Status::with_details_and_metadata(
        Code::from_i32(error.code),
        error.message.clone().unwrap_or_default(),
        encoded.encode_to_vec().into(),
        MetadataMap::from_headers(metadata),
    )
}

/// A status received, as the suite's error.
#[must_use]
pub fn from_status(status: &Status) -> Error {
    let details = RpcStatus::decode(status.details())
        .unwrap_or_default()
        .details;
    Error {
        code: status.code().into(),
        message: Some(status.message().to_owned()),
        details,
    }
}

/// `google.rpc.Status`, whose details must pass through unread.
#[derive(Clone, PartialEq, prost::Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<prost_types::Any>,
}
