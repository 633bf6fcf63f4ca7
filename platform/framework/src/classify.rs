//! Judges outcomes: one verdict per call, used by balancing, breaking, retrying and metrics alike.
//!
//! A verdict says what a call's end tells about the *endpoint*, which is not what it tells the
//! caller: `NOT_FOUND` is an error to the caller and a success of the endpoint.
//!
//! | end | verdict | why |
//! | --- | --- | --- |
//! | OK, `INVALID_ARGUMENT`, `NOT_FOUND`, `ALREADY_EXISTS`, `FAILED_PRECONDITION`, `OUT_OF_RANGE`, UNAUTHENTICATED | success | the handler worked |
//! | UNKNOWN, INTERNAL, `DATA_LOSS`, UNAVAILABLE | hard | the endpoint is at fault |
//! | UNAVAILABLE with pushback | soft | it sheds load and says so: ejecting it would load the others |
//! | `RESOURCE_EXHAUSTED` | soft | a quota or overload |
//! | `DEADLINE_EXCEEDED` | hard if the call had a fair time, else ignored | a caller with 1 ms left must not condemn an endpoint |
//! | CANCELLED, ABORTED, `PERMISSION_DENIED` | ignored | says nothing about the endpoint |
//! | UNIMPLEMENTED | unserved | an older version, or another server at the same address |
//! | no code, or none that can be read; reset; connection lost | hard | what a healthy endpoint never does |
//! | never sent, refused before processing | ignored | connectivity already tells |
//! | dropped by the caller | ignored | |

use std::time::Duration;

use h2::Reason;
use http::{HeaderMap, StatusCode, header::RETRY_AFTER};
use tonic::Code;

use crate::status;

/// How far a request got whose answer never came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fate {
    /// It never left this process: sending it again is always safe.
    NotSent,
    /// It left, and the peer's transport says that no handler saw it.
    Refused,
    /// As refused, because the peer ends the connection in good order: another one takes it.
    LeftBehind,
    /// It may have been processed, in part or whole.
    MaybeProcessed,
}

impl Fate {
    /// The fate of a request whose stream failed with `error` after it was opened.
    ///
    /// A GOAWAY reaches only streams above its last stream id: those were not processed. Streams
    /// at or below it go on, and end with an I/O error if the connection closes first.
    #[must_use]
    pub fn of_stream(error: &h2::Error) -> Self {
        if !error.is_remote() {
            return Self::MaybeProcessed;
        }
        match error.reason() {
            Some(Reason::NO_ERROR) if error.is_go_away() => Self::LeftBehind,
            _ if error.is_go_away() => Self::Refused,
            Some(Reason::REFUSED_STREAM) if error.is_reset() => Self::Refused,
            _ => Self::MaybeProcessed,
        }
    }
}

/// What a call's end says about the endpoint that answered it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The endpoint works.
    Success,
    /// The end says nothing about the endpoint.
    Ignored,
    /// The endpoint does not have the method. One that answered other calls is as good as before;
    /// of one that never did, nobody knows that it is the server that was looked for.
    Unserved,
    /// The endpoint is overloaded and told so; with the pause it asked for.
    Soft(Option<Duration>),
    /// The endpoint is at fault.
    Hard,
}

/// How a call ended, as its client saw it.
#[derive(Debug, Clone, Copy)]
pub enum End<'a> {
    /// The peer ended it with this code, if that can be read, in these trailers or trailers-only
    /// headers.
    Answered(Option<Code>, &'a HeaderMap),
    /// Its stream failed.
    Failed(Fate),
    /// The answer was not gRPC, or had no readable end.
    Malformed,
    /// Our clock ended it.
    DeadlinePassed,
    /// The caller went away.
    Dropped,
}

impl<'a> End<'a> {
    /// The end that `trailers` say.
    #[must_use]
    pub fn answered(trailers: &'a HeaderMap) -> Self {
        Self::Answered(status::code_in(trailers), trailers)
    }
}

/// Judges `end`. `fair` says whether the call had as much time as calls to this endpoint need.
#[must_use]
pub fn judge(end: End<'_>, fair: bool) -> Verdict {
    match end {
        End::Answered(Some(code), trailers) => judge_code(code, || Pushback::read(trailers), fair),
        End::Failed(Fate::NotSent | Fate::Refused | Fate::LeftBehind) | End::Dropped => {
            Verdict::Ignored
        }
        End::Answered(None, _) | End::Failed(Fate::MaybeProcessed) | End::Malformed => {
            Verdict::Hard
        }
        End::DeadlinePassed => judge_code(Code::DeadlineExceeded, || None, fair),
    }
}

fn judge_code(code: Code, pushback: impl Fn() -> Option<Pushback>, fair: bool) -> Verdict {
    match code {
        Code::Ok
        | Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::FailedPrecondition
        | Code::OutOfRange
        | Code::Unauthenticated => Verdict::Success,
        Code::Unknown | Code::Internal | Code::DataLoss => Verdict::Hard,
        Code::Unavailable => match pushback() {
            Some(pushback) => Verdict::Soft(pushback.pause()),
            None => Verdict::Hard,
        },
        Code::ResourceExhausted => Verdict::Soft(pushback().and_then(Pushback::pause)),
        Code::DeadlineExceeded if fair => Verdict::Hard,
        Code::DeadlineExceeded | Code::Cancelled | Code::Aborted | Code::PermissionDenied => {
            Verdict::Ignored
        }
        Code::Unimplemented => Verdict::Unserved,
    }
}

/// Judges an answer over HTTP that is not gRPC: what its status says about whoever gave it.
///
/// | status | verdict |
/// | --- | --- |
/// | 429; 503 with `Retry-After` | soft, with the pause where that is a number of seconds |
/// | any other from 500 | hard |
/// | any below | success: the server works, whatever it thinks of the request |
#[must_use]
pub fn judge_http(status: StatusCode, headers: &HeaderMap) -> Verdict {
    let asked = headers.get(RETRY_AFTER);
    let seconds = asked.and_then(|text| text.to_str().ok()?.trim().parse::<u32>().ok());
    let pause = seconds.map(|seconds| Duration::from_secs(seconds.into()));
    match status {
        StatusCode::TOO_MANY_REQUESTS => Verdict::Soft(pause),
        StatusCode::SERVICE_UNAVAILABLE if asked.is_some() => Verdict::Soft(pause),
        status if status.is_server_error() => Verdict::Hard,
        _ => Verdict::Success,
    }
}

/// When a server says to try again (gRFC A6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushback {
    /// Not before this long.
    After(Duration),
    /// Not at all: negative, unreadable or said twice.
    Never,
}

impl Pushback {
    /// Reads the pushback in `trailers`, where there is one.
    #[must_use]
    pub fn read(trailers: &HeaderMap) -> Option<Self> {
        let mut values = trailers.get_all(status::PUSHBACK).iter();
        let value = values.next()?;
        let millis = match values.next() {
            Some(_) => None,
            None => value
                .to_str()
                .ok()
                .and_then(|text| text.parse::<i32>().ok()),
        };
        let pause = millis.and_then(|millis| u64::try_from(millis).ok());
        Some(pause.map_or(Self::Never, |millis| {
            Self::After(Duration::from_millis(millis))
        }))
    }

    /// How long to wait, where trying again makes sense at all.
    #[must_use]
    pub fn pause(self) -> Option<Duration> {
        match self {
            Self::After(pause) => Some(pause),
            Self::Never => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn trailers(code: Code, pushback: &[&'static str]) -> HeaderMap {
        let mut trailers = HeaderMap::new();
        trailers.insert(&status::GRPC_STATUS, HeaderValue::from(code as i32));
        for value in pushback {
            trailers.append(status::PUSHBACK, HeaderValue::from_static(value));
        }
        trailers
    }

    /// Goal: every code has the verdict of the table above.
    /// Method: all seventeen codes, with a fair time and without.
    #[test]
    fn each_code_has_its_verdict() {
        use Verdict::{Hard, Ignored, Soft, Success, Unserved};
        let table = [
            (Code::Ok, Success, Success),
            (Code::Cancelled, Ignored, Ignored),
            (Code::Unknown, Hard, Hard),
            (Code::InvalidArgument, Success, Success),
            (Code::DeadlineExceeded, Hard, Ignored),
            (Code::NotFound, Success, Success),
            (Code::AlreadyExists, Success, Success),
            (Code::PermissionDenied, Ignored, Ignored),
            (Code::ResourceExhausted, Soft(None), Soft(None)),
            (Code::FailedPrecondition, Success, Success),
            (Code::Aborted, Ignored, Ignored),
            (Code::OutOfRange, Success, Success),
            (Code::Unimplemented, Unserved, Unserved),
            (Code::Internal, Hard, Hard),
            (Code::Unavailable, Hard, Hard),
            (Code::DataLoss, Hard, Hard),
            (Code::Unauthenticated, Success, Success),
        ];
        for (code, fair, unfair) in table {
            let trailers = trailers(code, &[]);
            assert_eq!(fair, judge(End::answered(&trailers), true), "{code:?}");
            assert_eq!(unfair, judge(End::answered(&trailers), false), "{code:?}");
        }
    }

    /// Goal: an endpoint that sheds and says so is not condemned.
    /// Method: pushback readable, negative, garbled and doubled.
    #[test]
    fn pushback_makes_a_refusal_soft() {
        let soft = |pushback: &[&'static str]| {
            judge(End::answered(&trailers(Code::Unavailable, pushback)), true)
        };
        let pause = Duration::from_millis(250);
        assert_eq!(Verdict::Soft(Some(pause)), soft(&["250"]));
        assert_eq!(Verdict::Soft(None), soft(&["-1"]));
        assert_eq!(Verdict::Soft(None), soft(&["soon"]));
        assert_eq!(Verdict::Soft(None), soft(&["250", "250"]));
    }

    /// Goal: an answer of HTTP says about its server what its status and its header say.
    /// Method: statuses of each kind, with no pause, with seconds, with a date, and with nonsense.
    #[test]
    fn answers_of_http_are_judged_by_status_and_pause() {
        use Verdict::{Hard, Soft, Success};
        let pause = Soft(Some(Duration::from_secs(7)));
        let date = "Wed, 21 Oct 2026 07:28:00 GMT";
        for (status, plain, seconds, other) in [
            (200, Success, Success, Success),
            (302, Success, Success, Success),
            (402, Success, Success, Success),
            (429, Soft(None), pause, Soft(None)),
            (500, Hard, Hard, Hard),
            (502, Hard, Hard, Hard),
            (503, Hard, pause, Soft(None)),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            let mut headers = HeaderMap::new();
            assert_eq!(plain, judge_http(status, &headers), "{status}");
            headers.insert(RETRY_AFTER, HeaderValue::from_static("7"));
            assert_eq!(seconds, judge_http(status, &headers), "{status}");
            for text in [date, "-1", "soon"] {
                headers.insert(RETRY_AFTER, HeaderValue::from_static(text));
                assert_eq!(other, judge_http(status, &headers), "{status} {text}");
            }
        }
    }

    /// Goal: ends without a code are judged by what the endpoint did.
    /// Method: each such end.
    #[test]
    fn ends_without_a_code_are_judged_by_their_kind() {
        let empty = HeaderMap::new();
        assert_eq!(Verdict::Hard, judge(End::answered(&empty), true));
        assert_eq!(Verdict::Hard, judge(End::Malformed, true));
        assert_eq!(
            Verdict::Hard,
            judge(End::Failed(Fate::MaybeProcessed), true)
        );
        for unseen in [Fate::NotSent, Fate::Refused, Fate::LeftBehind] {
            assert_eq!(Verdict::Ignored, judge(End::Failed(unseen), true));
        }
        assert_eq!(Verdict::Ignored, judge(End::Dropped, true));
        assert_eq!(Verdict::Hard, judge(End::DeadlinePassed, true));
        assert_eq!(Verdict::Ignored, judge(End::DeadlinePassed, false));
    }
}
