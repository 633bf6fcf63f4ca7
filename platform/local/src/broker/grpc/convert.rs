//! Between the contract's messages and the engine's.

use gantry_api::broker::v1;
use prost_types::Timestamp;
use tonic::Status;

use super::{checks, refusal};
use crate::broker::{
    engine::{Dead, Declaration, How, Listed, Message, Millis, Told},
    tail::Shown,
};

pub(super) fn declaration(
    request: v1::DeclareGroupRequest,
) -> Result<(String, Declaration), Status> {
    let partitions = u16::try_from(request.partitions);
    let declared = Declaration {
        partitions: partitions.map_err(|_| refusal::invalid("partitions"))?,
        topics: request.topics.into_iter().collect(),
        queue_messages_max: request.queue_messages_max,
    };
    Ok((request.group, declared))
}

pub(super) fn group(listed: Listed) -> v1::Group {
    let queues = (0..).zip(listed.queues).map(|(partition, fill)| v1::Queue {
        partition,
        ready: count(fill.ready),
        unsettled: count(fill.unsettled),
        delayed: count(fill.delayed),
        consumers: u32::try_from(fill.consumers).unwrap_or(u32::MAX),
    });
    v1::Group {
        group: listed.name.as_ref().to_owned(),
        topics: listed.declared.topics.into_iter().collect(),
        queues: queues.collect(),
        dead_letters: count(listed.dead),
    }
}

fn count(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

fn message(message: &Message) -> v1::Message {
    v1::Message {
        body: message.body.to_vec(),
        ..without_body(message)
    }
}

fn without_body(message: &Message) -> v1::Message {
    let headers = message.headers.iter();
    v1::Message {
        topic: message.topic.clone(),
        key: message.key.clone(),
        headers: headers
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect(),
        body: Vec::new(),
    }
}

pub(super) fn dead_letter(place: u64, dead: &Dead) -> v1::DeadLetter {
    v1::DeadLetter {
        place,
        partition: u32::from(dead.partition),
        dead_time: Some(timestamp(dead.time)),
        message: Some(message(&dead.message)),
    }
}

fn timestamp(time: Millis) -> Timestamp {
    Timestamp {
        seconds: i64::try_from(time / 1_000).unwrap_or(i64::MAX),
        // Less than a second of them always fits.
        nanos: i32::try_from(time % 1_000 * 1_000_000).unwrap_or_default(),
    }
}

pub(super) fn shown(shown: &Shown) -> v1::TailResponse {
    v1::TailResponse {
        body_bytes: count(shown.message.body.len()),
        message: Some(without_body(&shown.message)),
        missed: shown.missed,
    }
}

/// What a consumer is told; none where that ends its stream.
pub(super) fn told(told: &Told) -> Option<v1::ConsumeResponse> {
    use v1::consume_response::Event;
    let event = match told {
        Told::Active => Event::Active(v1::Active {}),
        Told::Delivered {
            tag,
            message: delivered,
            redelivered,
        } => Event::Delivered(v1::Delivered {
            tag: *tag,
            message: Some(message(delivered)),
            redelivered: *redelivered,
        }),
        Told::Removed => return None,
    };
    Some(v1::ConsumeResponse { event: Some(event) })
}

pub(super) fn settled(tag: u64) -> v1::ConsumeResponse {
    let event = v1::consume_response::Event::Settled(v1::Settled { tag });
    v1::ConsumeResponse { event: Some(event) }
}

pub(super) fn how(how: Option<v1::settle::How>) -> Result<How, Status> {
    use v1::settle;
    Ok(match how {
        Some(settle::How::Ack(_)) => How::Ack,
        Some(settle::How::Requeue(_)) => How::Requeue,
        Some(settle::How::Retry(retry)) => How::Retry {
            pause: checks::pause(retry.after)?,
            headers: checks::headers(retry.headers)?,
        },
        Some(settle::How::Reject(reject)) => How::Reject(checks::headers(reject.headers)?),
        None => return Err(refusal::invalid("settle: expected what becomes of it")),
    })
}
