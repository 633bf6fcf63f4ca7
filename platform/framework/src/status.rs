//! The only place that picks a gRPC code.
//!
//! Handlers answer with the constructors here or with `tonic::Status` of their own; the platform
//! answers with these alone. Every refusal says why in `google.rpc.ErrorInfo` and when to come
//! back in `google.rpc.RetryInfo` and `grpc-retry-pushback-ms` (gRFC A6).

mod public;
mod wire;

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

pub use public::{public, with_public};
pub use wire::{broken, code_of_http, code_of_reset, not_grpc, reset, told, without_status};

/// The trailer that holds a call's code.
pub static GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// What says more of how a call ended, beside its code.
pub static STATUS_DETAILS: [HeaderName; 2] = [
    HeaderName::from_static("grpc-message"),
    HeaderName::from_static("grpc-status-details-bin"),
];

/// Tells retrying clients when to come back, in whole milliseconds (gRFC A6).
pub const PUSHBACK: &str = "grpc-retry-pushback-ms";

/// Who speaks in `google.rpc.ErrorInfo`.
const DOMAIN: &str = "gantry";

/// Bytes of the first violation that are repeated in the message; encoded for a header they can be
/// three times as many.
const SUMMARY_MAX: usize = 256;

/// A request that breaks its contract's rules: `INVALID_ARGUMENT` with one `google.rpc.BadRequest`
/// entry per broken field, all of them at once.
///
/// All of it travels in the headers of the answer, of which many peers take 8 KiB:
/// [`crate::contract::Violations`] holds no more than fits.
pub fn invalid_argument(
    violations: impl IntoIterator<Item = (impl Into<String>, impl Into<String>)>,
) -> Status {
    let mut details = ErrorDetails::new();
    let mut first = None;
    let mut count = 0_usize;
    for (field, description) in violations {
        let (field, description) = (field.into(), description.into());
        if first.is_none() {
            let mut summary = format!("{field}: {description}");
            summary.truncate(summary.floor_char_boundary(SUMMARY_MAX));
            first = Some(summary);
        }
        count += 1;
        details.add_bad_request_violation(field, description);
    }
    let message = match (first, count) {
        (Some(first), 1) => first,
        (Some(first), count) => format!("{first} (and {} more)", count - 1),
        (None, _) => "invalid argument".to_owned(),
    };
    Status::with_error_details(Code::InvalidArgument, message, details)
}

/// The process drains: UNAVAILABLE, and to be tried elsewhere at once. What long-lived streams end
/// with when their process does.
#[must_use]
pub fn draining() -> Status {
    let elsewhere = Duration::ZERO;
    Refusal::Draining.status_with_pause("the process drains; go on elsewhere", elsewhere)
}

/// Too much is asked of the process at this moment: UNAVAILABLE, and worth another try in `pause`.
#[must_use]
pub fn busy(message: impl Into<String>, pause: Duration) -> Status {
    Refusal::Busy.status_with_pause(message, pause)
}

/// A call that is made to fail on purpose.
#[must_use]
pub fn injected(code: Code) -> Status {
    let details = ErrorDetails::with_error_info("FAULT_INJECTED", DOMAIN, []);
    Status::with_error_details(code, "failed on purpose: a fault is switched on", details)
}

/// What the call needs failed of late, and is not asked now: UNAVAILABLE, nothing was done, and
/// worth another try in `pause`.
#[must_use]
pub fn breaker_open(message: impl Into<String>, pause: Duration) -> Status {
    Refusal::BreakerOpen.status_with_pause(message, pause)
}

/// Why the platform answered in the handler's place; the `reason` of `google.rpc.ErrorInfo`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// Nobody waits for the answer any more.
    DeadlineExceeded,
    /// The process serves no such service or method.
    Unimplemented,
    /// The handler panicked.
    Panic,
    /// The process drains.
    Draining,
    /// The process is asked for more than it can do at this moment.
    Busy,
    /// A message is larger than the bound.
    MessageTooLarge,
    /// Too many bytes of unfinished messages are held already.
    ReceiveBytes,
    /// A header of the request cannot be read.
    MalformedHeader,
    /// No endpoint could take the call within the fail-fast bound.
    NoEndpoint,
    /// The connection was lost and the call may have been processed.
    ConnectionLost,
    /// The caller gave up.
    Cancelled,
    /// Health was asked for a service the process does not know.
    ServiceUnknown,
    /// More streams watch than are allowed at once.
    Watchers,
    /// An operator's request that came from where it may not.
    Remote,
    /// More faults than can be switched on at once.
    Faults,
    /// An operator asked for a breaker that is not there.
    UnknownBreaker,
    /// More breakers than can be set by hand, each by itself.
    Breakers,
    /// An operator asked to pause or resume a registration that is not made.
    NotRegistering,
    /// The caller's stream broke off. Not CANCELLED: tonic takes that, on a request stream, for
    /// its orderly end, and a handler would go on as if it had everything.
    CallerGone,
    /// The request is not gRPC.
    NotGrpc,
    /// The call proves nobody, and its method wants to know who calls.
    Unauthenticated,
    /// Nobody can be proved: the keys of whoever signs tokens were not read.
    NoKeys,
    /// The method is for services of the system, and the call comes from outside.
    InternalMethod,
    /// The method is for those with a role, and whoever calls has it not.
    MissingRole,
    /// The caller asked for more than its quota.
    RateLimit,
    /// The caller has as many streams open as it may.
    Streams,
    /// This process has as many calls to the target in flight as it may.
    Bulkhead,
    /// Most calls to the target fail, so this one was not sent.
    Throttled,
    /// No attempt was answered within the time of one.
    AttemptTimeout,
    /// As many calls are in flight as there may be.
    Concurrency,
    /// The process is overloaded, and other calls matter more.
    Overload,
    /// Calls of this kind failed, and are not made for a while.
    BreakerOpen,
}

impl Refusal {
    /// The word for programs.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::DeadlineExceeded => "DEADLINE_EXCEEDED",
            Self::Unimplemented => "UNIMPLEMENTED",
            Self::Panic => "PANIC",
            Self::Draining => "DRAINING",
            Self::Busy => "BUSY",
            Self::MessageTooLarge => "MESSAGE_TOO_LARGE",
            Self::ReceiveBytes => "RECEIVE_BYTES",
            Self::MalformedHeader => "MALFORMED_HEADER",
            Self::NoEndpoint => "NO_ENDPOINT",
            Self::ConnectionLost => "CONNECTION_LOST",
            Self::Cancelled => "CANCELLED",
            Self::ServiceUnknown => "SERVICE_UNKNOWN",
            Self::Watchers => "WATCHERS",
            Self::Remote => "REMOTE",
            Self::Faults => "FAULTS",
            Self::UnknownBreaker => "UNKNOWN_BREAKER",
            Self::Breakers => "BREAKERS",
            Self::NotRegistering => "NOT_REGISTERING",
            Self::CallerGone => "CALLER_GONE",
            Self::NotGrpc => "NOT_GRPC",
            Self::Unauthenticated => "UNAUTHENTICATED",
            Self::NoKeys => "NO_KEYS",
            Self::InternalMethod => "INTERNAL_METHOD",
            Self::MissingRole => "MISSING_ROLE",
            Self::RateLimit => "RATE_LIMIT",
            Self::Streams => "STREAMS",
            Self::Bulkhead => "BULKHEAD",
            Self::Throttled => "THROTTLED",
            Self::AttemptTimeout => "ATTEMPT_TIMEOUT",
            Self::Concurrency => "CONCURRENCY",
            Self::Overload => "OVERLOAD",
            Self::BreakerOpen => "BREAKER_OPEN",
        }
    }

    /// The code a caller sees.
    #[must_use]
    pub fn code(self) -> Code {
        match self {
            Self::DeadlineExceeded => Code::DeadlineExceeded,
            Self::Unimplemented => Code::Unimplemented,
            Self::Panic | Self::MalformedHeader => Code::Internal,
            Self::MessageTooLarge
            | Self::ReceiveBytes
            | Self::Watchers
            | Self::Faults
            | Self::Breakers
            | Self::RateLimit
            | Self::Streams => Code::ResourceExhausted,
            Self::Draining
            | Self::Busy
            | Self::NoEndpoint
            | Self::ConnectionLost
            | Self::NoKeys
            | Self::Bulkhead
            | Self::Throttled
            | Self::AttemptTimeout
            | Self::Concurrency
            | Self::Overload
            | Self::BreakerOpen => Code::Unavailable,
            Self::Cancelled => Code::Cancelled,
            Self::ServiceUnknown | Self::UnknownBreaker => Code::NotFound,
            Self::Remote | Self::InternalMethod | Self::MissingRole => Code::PermissionDenied,
            Self::NotRegistering => Code::FailedPrecondition,
            Self::CallerGone => Code::Aborted,
            Self::NotGrpc => Code::InvalidArgument,
            Self::Unauthenticated => Code::Unauthenticated,
        }
    }

    /// The status a caller sees: code, `message`, and the reason as a detail where it is ours.
    #[must_use]
    pub fn status(self, message: impl Into<String>) -> Status {
        if self.is_the_protocols() {
            return Status::new(self.code(), message);
        }
        let details = ErrorDetails::with_error_info(self.reason(), DOMAIN, []);
        Status::with_error_details(self.code(), message, details)
    }

    /// Whether gRPC itself defines this answer, down to having no details: any implementation
    /// gives it, and its code says all there is. Only a refusal that is ours explains itself.
    fn is_the_protocols(self) -> bool {
        matches!(
            self,
            Self::DeadlineExceeded
                | Self::Unimplemented
                | Self::MessageTooLarge
                | Self::MalformedHeader
                | Self::Cancelled
        )
    }

    /// As [`Refusal::status`], and that nobody is to try again, here or elsewhere: a negative pushback.
    #[must_use]
    pub fn status_without_retry(self, message: impl Into<String>) -> Status {
        let mut status = self.status(message);
        let never = tonic::metadata::MetadataValue::from_static("-1");
        status.metadata_mut().insert(PUSHBACK, never);
        status
    }

    /// As [`Refusal::status`], and when to come back: `RetryInfo` and pushback in milliseconds,
    /// rounded up so that a client that waits exactly that long is not too early.
    #[must_use]
    pub fn status_with_pause(self, message: impl Into<String>, pause: Duration) -> Status {
        let mut details = ErrorDetails::with_retry_info(Some(pause));
        details.set_error_info(self.reason(), DOMAIN, []);
        let mut status = Status::with_error_details(self.code(), message, details);
        let millis = pause.as_nanos().div_ceil(1_000_000);
        let millis = u64::try_from(millis).unwrap_or(u64::MAX);
        status.metadata_mut().insert(PUSHBACK, millis.into());
        status
    }
}

/// The code in `headers` or trailers, where there is one. One that cannot be read is UNKNOWN.
#[must_use]
pub fn code_in(headers: &HeaderMap) -> Option<Code> {
    headers.get(&GRPC_STATUS).map(code_of)
}

fn code_of(value: &HeaderValue) -> Code {
    Code::from_bytes(value.as_bytes())
}

/// A code as interfaces spell it: `DEADLINE_EXCEEDED`.
#[must_use]
pub fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// The code of this name, as interfaces spell it.
#[must_use]
pub fn code_named(name: &str) -> Option<Code> {
    let mut codes = (0..=16).map(Code::from_i32);
    codes.find(|code| code_name(*code) == name)
}

/// `status` as the trailers that end a stream.
#[must_use]
pub fn trailers(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    // Fails for a message that percent-encoding did not make a header value, which it always does.
    drop(status.add_header(&mut trailers));
    trailers
}

/// An error and all its causes in one line: `open store: connect: connection refused`.
#[must_use]
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: whoever refuses for now says when to come back, in both forms.
    /// Method: what handlers and the platform answer with, read as a peer does.
    #[test]
    fn a_refusal_for_now_says_when_to_come_back() {
        let busy = |pause| busy("no place", pause);
        for (status, reason, pause, millis) in [
            (draining(), "DRAINING", Duration::ZERO, "0"),
            (
                busy(Duration::from_secs(2)),
                "BUSY",
                Duration::from_secs(2),
                "2000",
            ),
            (
                busy(Duration::from_micros(1)),
                "BUSY",
                Duration::from_micros(1),
                "1",
            ),
            (
                breaker_open("away", Duration::from_millis(700)),
                "BREAKER_OPEN",
                Duration::from_millis(700),
                "700",
            ),
        ] {
            assert_eq!(Code::Unavailable, status.code());
            assert_eq!(millis, status.metadata().get(PUSHBACK).unwrap());
            let details = status.get_error_details();
            let told = details.retry_info().and_then(|info| info.retry_delay);
            assert_eq!(Some(pause), told);
            assert_eq!(
                Some(reason),
                details.error_info().map(|info| info.reason.as_str())
            );
        }
    }
}
