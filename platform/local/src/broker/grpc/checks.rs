//! What is refused before anybody is asked.

use std::{collections::HashMap, time::Duration};

use gantry_api::broker::{BUCKETS, v1};
use tonic::Status;

use super::refusal::invalid;
use crate::broker::{
    engine::{Headers, Message, Millis},
    owner::Wish,
    time::millis,
};

/// Bytes of a group's name or a topic.
const NAME_MAX: usize = 200;

/// Bytes of a key.
const KEY_MAX: usize = 1_024;

/// Topics that one group wants, or one reader.
const TOPICS_MAX: usize = 256;

/// Headers of one message, and bytes of all of them.
const HEADERS_MAX: usize = 64;
const HEADERS_BYTES_MAX: usize = 32 * 1024;

/// Messages handed out to one consumer.
const PREFETCH_MAX: u16 = 1_000;

/// Dead letters in one answer.
const PAGE_MAX: usize = 1_000;

/// Longest pause before a message comes again.
const PAUSE_MAX: Duration = Duration::from_hours(24);

fn is_name(name: &str) -> bool {
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    (1..=NAME_MAX).contains(&name.len()) && name.chars().all(fine)
}

pub(super) fn declare(request: &v1::DeclareGroupRequest) -> Result<(), Status> {
    if !is_name(&request.group) {
        return Err(invalid(format!(
            "group: expected letters, digits, `.`, `-` and `_`, {NAME_MAX} at most"
        )));
    }
    if !(1..=u32::from(BUCKETS)).contains(&request.partitions) {
        return Err(invalid(format!("partitions: expected 1 to {BUCKETS}")));
    }
    topics(&request.topics)
}

pub(super) fn topics(topics: &[String]) -> Result<(), Status> {
    if topics.len() > TOPICS_MAX {
        return Err(invalid(format!("topics: expected {TOPICS_MAX} at most")));
    }
    if !topics.iter().all(|topic| is_name(topic)) {
        return Err(invalid("topics: expected full names of message types"));
    }
    Ok(())
}

/// How many dead letters are wanted at once.
pub(super) fn page(count_max: u32) -> Result<usize, Status> {
    let count = usize::try_from(count_max).unwrap_or(usize::MAX);
    let fits = (1..=PAGE_MAX).contains(&count).then_some(count);
    fits.ok_or_else(|| invalid(format!("count_max: expected 1 to {PAGE_MAX}")))
}

pub(super) fn wish(request: v1::Subscribe) -> Result<Wish, Status> {
    let prefetch = u16::try_from(request.prefetch).unwrap_or(u16::MAX);
    if !(1..=PREFETCH_MAX).contains(&prefetch) {
        return Err(invalid(format!("prefetch: expected 1 to {PREFETCH_MAX}")));
    }
    Ok(Wish {
        group: request.group,
        // Beyond that, there is none.
        partition: u16::try_from(request.partition).unwrap_or(u16::MAX),
        prefetch,
    })
}

/// A message, or why it is none that can be kept.
pub(super) fn message(message: Option<v1::Message>, size_max: usize) -> Result<Message, String> {
    let message = message.ok_or("expected a message")?;
    if !is_name(&message.topic) {
        return Err("topic: expected the full name of a message type".to_owned());
    }
    if message.key.len() > KEY_MAX {
        return Err(format!("key: expected {KEY_MAX} bytes at most"));
    }
    let headers = headers(message.headers).map_err(|status| status.message().to_owned())?;
    let message = Message {
        topic: message.topic,
        key: message.key,
        headers,
        body: message.body.into(),
    };
    let size = message.size();
    if size > size_max {
        return Err(format!("it has {size} bytes; expected {size_max} at most"));
    }
    Ok(message)
}

pub(super) fn headers(headers: HashMap<String, String>) -> Result<Headers, Status> {
    bounded(headers, HEADERS_MAX, HEADERS_BYTES_MAX)
}

/// Headers that a dead letter is put back with: all that it came with, and what was added since.
pub(super) fn headers_of_letter(headers: HashMap<String, String>) -> Result<Headers, Status> {
    bounded(headers, 2 * HEADERS_MAX, 2 * HEADERS_BYTES_MAX)
}

fn bounded(
    headers: HashMap<String, String>,
    max: usize,
    bytes_max: usize,
) -> Result<Headers, Status> {
    let bytes: usize = headers.iter().map(|(name, it)| name.len() + it.len()).sum();
    if headers.len() > max || bytes > bytes_max {
        return Err(invalid(format!(
            "headers: expected {max} at most, of {bytes_max} bytes in all"
        )));
    }
    Ok(headers.into_iter().collect())
}

/// How long a message is to wait.
pub(super) fn pause(after: Option<prost_types::Duration>) -> Result<Millis, Status> {
    let pause = Duration::try_from(after.unwrap_or_default());
    let pause = pause.ok().filter(|pause| *pause <= PAUSE_MAX);
    let pause = pause.map(millis);
    pause.ok_or_else(|| invalid(format!("after: expected 0 to {PAUSE_MAX:?}")))
}
