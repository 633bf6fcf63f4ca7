//! Between the contract's messages and ours.

use gantry_api::broker::v1;
use tonic::{Code, Status};

use crate::{
    Message,
    broker::{BrokerError, DeadLetter, Delivery, Fill, PublishError, Settle, Sighting, Tag},
    headers,
};

pub(super) fn missing(what: &str) -> BrokerError {
    BrokerError::Missing(what.to_owned())
}

/// Why nothing became of what was asked about `what`.
pub(super) fn error(what: &str, status: Status) -> BrokerError {
    let told = status.message().to_owned();
    match status.code() {
        Code::NotFound => missing(what),
        Code::FailedPrecondition => BrokerError::OtherShape {
            what: what.to_owned(),
            difference: told,
        },
        Code::ResourceExhausted => BrokerError::NoRoom(told),
        Code::InvalidArgument | Code::PermissionDenied | Code::Unauthenticated => {
            BrokerError::Denied(told)
        }
        Code::DeadlineExceeded => BrokerError::TimedOut,
        _ => BrokerError::Disconnected(status.into()),
    }
}

pub(super) fn outcome(answer: v1::PublishResponse) -> Result<(), PublishError> {
    use v1::PublishOutcome;
    let reason = answer.reason;
    match PublishOutcome::try_from(answer.outcome) {
        Ok(PublishOutcome::Confirmed) => Ok(()),
        Ok(PublishOutcome::Unroutable) => Err(PublishError::Unroutable),
        Ok(PublishOutcome::NoRoom) => Err(PublishError::Blocked {
            why: reason,
            sent: false,
        }),
        Ok(PublishOutcome::QueueFull | PublishOutcome::Refused) => {
            Err(PublishError::Refused(reason))
        }
        // An outcome of a later version: it was not confirmed.
        Ok(PublishOutcome::Unspecified) | Err(_) => Err(PublishError::Refused(reason)),
    }
}

pub(super) fn message(message: Message) -> v1::Message {
    v1::Message {
        topic: message.topic,
        key: message.key,
        headers: message.headers.into_iter().collect(),
        body: message.body.into(),
    }
}

fn of(message: v1::Message) -> Message {
    Message {
        topic: message.topic,
        key: message.key,
        headers: message.headers.into_iter().collect(),
        body: message.body.into(),
    }
}

pub(super) fn delivery(delivered: v1::Delivered) -> Option<Delivery> {
    Some(Delivery {
        tag: Tag(delivered.tag),
        message: of(delivered.message?),
        redelivered: delivered.redelivered,
    })
}

pub(super) fn settle(tag: Tag, how: Settle) -> v1::Settle {
    use v1::settle::How;
    let how = match how {
        Settle::Ack => How::Ack(v1::Ack {}),
        Settle::Requeue => How::Requeue(v1::Requeue {}),
        Settle::Retry { after, headers } => How::Retry(v1::Retry {
            // One too long for the contract is too long for the broker, too.
            after: prost_types::Duration::try_from(after).ok(),
            headers: headers.into_iter().collect(),
        }),
        Settle::Reject(headers) => How::Reject(v1::Reject {
            headers: headers.into_iter().collect(),
        }),
    };
    v1::Settle {
        tag: tag.0,
        how: Some(how),
    }
}

pub(super) fn fill(group: &v1::Group) -> Fill {
    let queues = group.queues.iter();
    Fill {
        ready: queues.clone().map(|queue| queue.ready).collect(),
        unsettled: queues.clone().map(|queue| queue.unsettled).sum(),
        delayed: queues.clone().map(|queue| queue.delayed).sum(),
        consumers: queues.map(|queue| u64::from(queue.consumers)).sum(),
        dead_letters: group.dead_letters,
        // Nobody takes away one queue of a group.
        strays: 0,
    }
}

pub(super) fn dead_letter(letter: v1::DeadLetter) -> Option<DeadLetter> {
    Some(DeadLetter {
        place: letter.place,
        partition: u16::try_from(letter.partition).ok()?,
        message: of(letter.message?),
    })
}

pub(super) fn sighting(shown: v1::TailResponse) -> Option<Sighting> {
    let message = shown.message?;
    let all = message.headers.into_iter();
    Some(Sighting {
        topic: message.topic,
        headers: all.filter(|(name, _)| name != headers::SUBJECT).collect(),
        body_bytes: shown.body_bytes,
        missed: shown.missed,
    })
}
