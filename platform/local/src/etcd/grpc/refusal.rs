//! Refusals in etcd's words: programs tell them apart by code and text alone.

use tonic::{Code, Status};

use super::MESSAGE_MAX;
use crate::etcd::engine::Refusal;

/// Why a watch from a revision that is gone is cancelled, where it asked for less than none.
pub(in crate::etcd) const COMPACTED: &str =
    "etcdserver: mvcc: required revision has been compacted";
/// Why a watch with a taken id is not created.
pub(in crate::etcd) const DUPLICATE_WATCH: &str =
    "mvcc: duplicate watch ID provided on the WatchStream";
/// Why a watch of no key is not created.
pub(in crate::etcd) const EMPTY_RANGE: &str = "mvcc: watcher range is empty";
/// Why one more watch is not created; etcd has no such bound.
pub(in crate::etcd) const TOO_MANY_WATCHES: &str = "gantry: too many watches on one stream";

impl Refusal {
    pub(super) fn status(self) -> Status {
        let (code, text) = match self {
            Self::Compacted => (Code::OutOfRange, COMPACTED),
            Self::FutureRevision => (
                Code::OutOfRange,
                "etcdserver: mvcc: required revision is a future revision",
            ),
            Self::KeyNotFound => (Code::InvalidArgument, "etcdserver: key not found"),
            Self::LeaseNotFound => (Code::NotFound, "etcdserver: requested lease not found"),
            Self::LeaseExists => (Code::FailedPrecondition, "etcdserver: lease already exists"),
            Self::LeaseTtlTooLarge => (Code::OutOfRange, "etcdserver: too large lease TTL"),
            Self::NoSpace => (
                Code::ResourceExhausted,
                "etcdserver: mvcc: database space exceeded",
            ),
        };
        Status::new(code, text)
    }
}

/// What is wrong with a request as it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    EmptyKey,
    /// An operation of a transaction that is none.
    NoOperation,
    ValueProvided,
    LeaseProvided,
    TooManyOperations,
    DuplicateKey,
    SortOption,
    TooLarge,
    /// One that etcd's transport would not even have read; so many bytes.
    MessageTooLarge(usize),
}

impl Fault {
    pub(super) fn status(self) -> Status {
        let text = match self {
            Self::EmptyKey => "etcdserver: key is not provided",
            Self::NoOperation => "etcdserver: key not found",
            Self::ValueProvided => "etcdserver: value is provided",
            Self::LeaseProvided => "etcdserver: lease is provided",
            Self::TooManyOperations => "etcdserver: too many operations in txn request",
            Self::DuplicateKey => "etcdserver: duplicate key given in txn request",
            Self::SortOption => "etcdserver: invalid sort option",
            Self::TooLarge => "etcdserver: request is too large",
            Self::MessageTooLarge(size) => {
                let text =
                    format!("grpc: received message larger than max ({size} vs. {MESSAGE_MAX})");
                return Status::new(Code::ResourceExhausted, text);
            }
        };
        Status::new(Code::InvalidArgument, text)
    }
}

/// The process ends.
pub(in crate::etcd) fn stopped() -> Status {
    Status::unavailable("etcdserver: server stopped")
}

/// A method that this server has not, as a server that never heard of it says.
pub(super) fn unimplemented(service: &str, method: &str) -> Status {
    Status::unimplemented(format!(
        "unknown method {method} for service etcdserverpb.{service}"
    ))
}
