//! What is measured and traced of every call, served or made.
//!
//! One [`ServerMethod`] or [`ClientMethod`] exists per method for the life of the process; its
//! metric handles are looked up once. Per call it starts a guard that rides with the call to the
//! end of its stream and is ended with the code the stream ended with:
//!
//! ```text
//! ServerMethod ──start(headers, peer)──▶ ServerCall ──end(code)
//! ClientMethod ──start()───────────────▶ ClientCall ──end(code)
//!                                          └─attempt()──▶ Attempt ──picked(addr), inject(headers), end(code)
//! ```
//!
//! A guard dropped without an end counts as CANCELLED, or as `DEADLINE_EXCEEDED` where its deadline
//! has come: whoever waited went away. The guard's
//! `trace()` is what log lines and outgoing calls carry. Where traces are exported it is the
//! span's own position; where not, an incoming trace is continued with fresh ids, its sampled
//! flag included, and the spans cost one check of a cached flag each.

mod client;
mod server;

pub use client::{Attempt, ClientCall, ClientMethod, Try};
pub use server::{ServerCall, ServerMethod};

use tonic::Code;
use tracing::Span;

use crate::{names::field, status::code_name};

/// Whether a server is to blame for `code`, by the OpenTelemetry conventions for gRPC. A caller
/// asking for what is not there is not the server's error.
fn is_server_error(code: Code) -> bool {
    matches!(
        code,
        Code::Unknown
            | Code::DeadlineExceeded
            | Code::Unimplemented
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss
    )
}

/// Writes how a call ended into its span.
fn finish(span: &Span, code: Code, error: bool) {
    if span.is_disabled() {
        return;
    }
    // Entered because a span ends, for OpenTelemetry, when it was last left.
    span.in_scope(|| {
        let name = code_name(code);
        span.record(field::RPC_CODE, name);
        if error {
            span.record(field::ERROR_TYPE, name);
            span.record(field::OTEL_STATUS, "ERROR");
        }
    });
}

#[cfg(test)]
mod tests;
