//! Codes for what a peer answers below gRPC: a reset stream, a plain HTTP response.

use h2::Reason;
use http::StatusCode;
use tonic::{Code, Status};

/// The code of a stream the peer reset (gRPC over HTTP/2, "Errors").
#[must_use]
pub fn code_of_reset(reason: Reason) -> Code {
    match reason {
        Reason::REFUSED_STREAM => Code::Unavailable,
        Reason::CANCEL => Code::Cancelled,
        Reason::ENHANCE_YOUR_CALM => Code::ResourceExhausted,
        Reason::INADEQUATE_SECURITY => Code::PermissionDenied,
        _ => Code::Internal,
    }
}

/// The code of an HTTP response that carries none ("HTTP to gRPC Status Code Mapping").
#[must_use]
pub fn code_of_http(status: StatusCode) -> Code {
    match status {
        StatusCode::BAD_REQUEST => Code::Internal,
        StatusCode::UNAUTHORIZED => Code::Unauthenticated,
        StatusCode::FORBIDDEN => Code::PermissionDenied,
        StatusCode::NOT_FOUND => Code::Unimplemented,
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => Code::Unavailable,
        _ => Code::Unknown,
    }
}

/// An answer that is not gRPC; its HTTP status is all it says. UNKNOWN where that is 200.
#[must_use]
pub fn not_grpc(http: StatusCode, message: impl Into<String>) -> Status {
    let code = match http {
        StatusCode::OK => Code::Unknown,
        other => code_of_http(other),
    };
    Status::new(code, message)
}

/// A failure that a peer tells of inside an answer, by the number of its code.
#[must_use]
pub fn told(code: i32, message: impl Into<String>) -> Status {
    Status::new(Code::from_i32(code), message)
}

/// A stream that its peer reset.
#[must_use]
pub fn reset(reason: Reason, message: impl Into<String>) -> Status {
    Status::new(code_of_reset(reason), message)
}

/// Something that breaks the protocol, on either end: INTERNAL.
#[must_use]
pub fn broken(message: impl Into<String>) -> Status {
    Status::internal(message)
}

/// A call that ended without saying how: UNKNOWN.
#[must_use]
pub fn without_status(message: impl Into<String>) -> Status {
    Status::unknown(message)
}
