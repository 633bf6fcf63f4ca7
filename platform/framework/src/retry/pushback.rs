//! What a server says of trying again.

use std::time::Duration;

use http::HeaderMap;
use tonic::Status;
use tonic_types::StatusExt as _;

use crate::classify::Pushback;

/// Longer than this no call waits for its next attempt, whatever a server asks and however much
/// time the call has.
pub const PAUSE_MAX: Duration = Duration::from_mins(5);

/// What `trailers` say: in `grpc-retry-pushback-ms` or, where that is not there, in the
/// `google.rpc.RetryInfo` of the status.
#[must_use]
pub fn read(trailers: &HeaderMap) -> Option<Pushback> {
    Pushback::read(trailers).or_else(|| of(&Status::from_header_map(trailers)?))
}

/// What the details of `status` say.
#[must_use]
pub fn of(status: &Status) -> Option<Pushback> {
    let info = status.get_details_retry_info()?;
    info.retry_delay.map(Pushback::After)
}
