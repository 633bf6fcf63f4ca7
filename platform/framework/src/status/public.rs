//! What may be said of a failure to anyone, where its message is for those who run the system: it
//! names addresses and what is wrong with them.

use std::{error::Error, sync::Arc};

use tonic::Status;

/// The words for strangers; travels as the source of a status, which stays within the process.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Public(String);

/// `status`, of which strangers are told `text` by whoever hands it on to them.
#[must_use]
pub fn with_public(mut status: Status, text: impl Into<String>) -> Status {
    status.set_source(Arc::new(Public(text.into())));
    status
}

/// What strangers are told of `status`, where its message is not for them.
#[must_use]
pub fn public(status: &Status) -> Option<&str> {
    let public = status.source()?.downcast_ref::<Public>()?;
    Some(&public.0)
}
