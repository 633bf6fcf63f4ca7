//! What is known of an event that has come, beside the event itself.

use std::sync::Arc;

use gantry::call::TraceContext;
use gantry_store::Timestamp;

use super::lanes::Lane;
use crate::{Message, envelope::read_rfc3339, headers};

/// Longest id, in bytes: those of ours are 36.
const ID_MAX: usize = 200;
/// Longest key and source, in bytes.
const LANE_MAX: usize = 1_000;

/// What the headers of an event say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Facts {
    /// Identity: the same however often it comes.
    pub(crate) id: String,
    /// Whose order it keeps.
    pub(crate) lane: Arc<Lane>,
    /// Its place in that order.
    pub(crate) sequence: Option<u64>,
    /// Failed attempts before.
    pub(crate) attempts: u32,
    /// When it first came.
    pub(crate) first_seen: Timestamp,
    /// When it was published.
    pub(crate) time: Option<Timestamp>,
    /// Where it was created.
    pub(crate) created: Option<TraceContext>,
    /// Whether it was a dead letter before.
    pub(crate) redriven: bool,
}

/// Why an event cannot be told from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Malformed {
    #[error("it has no id")]
    NoId,
    #[error("its id, source or key is too long, or holds a zero byte")]
    Unkeepable,
}

impl Facts {
    /// Reads the headers of `message`, which has come at `now`.
    pub(crate) fn read(message: &Message, now: Timestamp) -> Result<Self, Malformed> {
        let header = |name: &str| message.headers.get(name).map(String::as_str);
        let id = header(headers::ID).filter(|id| !id.is_empty());
        let id = id.ok_or(Malformed::NoId)?.to_owned();
        let source = header(headers::SOURCE).unwrap_or_default().to_owned();
        let lane = Lane {
            source,
            key: message.key.clone(),
        };
        let texts = [
            (&id, ID_MAX),
            (&lane.source, LANE_MAX),
            (&lane.key, LANE_MAX),
        ];
        if texts
            .iter()
            .any(|(text, max)| text.len() > *max || text.contains('\0'))
        {
            return Err(Malformed::Unkeepable);
        }
        let number = |name| header(name).and_then(|text| text.parse::<u32>().ok());
        // Databases keep no more than that.
        let sequence = header(headers::SEQUENCE).and_then(|text| text.parse::<u64>().ok());
        let sequence = sequence.filter(|it| i64::try_from(*it).is_ok());
        Ok(Self {
            id,
            lane: Arc::new(lane),
            sequence,
            attempts: number(headers::ATTEMPT).unwrap_or(0),
            first_seen: header(headers::FIRST_SEEN)
                .and_then(read_rfc3339)
                .unwrap_or(now),
            time: header(headers::TIME).and_then(read_rfc3339),
            created: header(headers::TRACEPARENT)
                .and_then(|parent| TraceContext::read(parent, header(headers::TRACESTATE))),
            redriven: number(headers::REDRIVEN).is_some_and(|times| times > 0),
        })
    }
}
