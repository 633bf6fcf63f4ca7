//! What is refused, as a status.

use tonic::Status;

use crate::broker::engine::Refusal;

/// The process ends.
pub(super) fn stopped() -> Status {
    Status::unavailable("the broker ends")
}

/// The request is none.
pub(super) fn invalid(why: impl Into<String>) -> Status {
    Status::invalid_argument(why)
}

/// There is as much as may be.
pub(super) fn exhausted(why: &str) -> Status {
    Status::resource_exhausted(why)
}

/// The queue was removed.
pub(super) fn removed() -> Status {
    Status::aborted("the group was removed")
}

pub(super) fn of(refusal: Refusal) -> Status {
    match refusal {
        Refusal::NoQueue => Status::not_found("no such group or queue"),
        Refusal::NoDeadLetter => Status::not_found("no dead letter at that place"),
        Refusal::OtherPartitions(there) => Status::failed_precondition(format!(
            "the group is there with {there} partitions; expected as many, or the group removed with gantry events \
             remove first"
        )),
        Refusal::GroupsMax => exhausted("there are as many groups as may be"),
        Refusal::ConsumersMax => exhausted("there are as many consumers as may be"),
        Refusal::NoTag => invalid("settle: nothing of that tag is handed out on this stream"),
    }
}
