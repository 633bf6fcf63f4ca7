//! The bounds of a listener and of the calls on it.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;

/// Limits that can change while the listener runs: a connection lives by those it was opened
/// under, a call by those it began under.
pub type LiveLimits = Arc<ArcSwap<Limits>>;

/// How much a listener takes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Connections in all.
    pub connections_max: usize,
    /// Connections of one peer; an IPv6 peer is its /64.
    pub connections_per_peer_max: usize,
    /// Connections that have not sent a first request.
    pub connections_waiting_max: usize,
    /// From accept to the first complete request head, TLS and preface included.
    pub first_request_timeout: Duration,
    /// Streams open at once on one connection.
    pub streams_max: u32,
    /// Streams of one connection reset because of the peer's errors, over its life.
    pub streams_reset_max: usize,
    /// Streams reset by the peer before they were accepted.
    pub streams_reset_pending_max: usize,
    /// Bytes a peer may send ahead on one stream.
    pub stream_window: u32,
    /// Bytes a peer may send ahead on one connection.
    pub connection_window: u32,
    /// Bytes held for one stream that its peer does not read.
    pub send_buffer: usize,
    /// Bytes of one request's headers, as HTTP/2 counts them.
    pub header_list_max: u32,
    /// Pause before a silent connection is asked for a sign of life.
    pub keepalive_interval: Duration,
    /// How long that sign, or an acknowledgement by TCP, may take.
    pub keepalive_timeout: Duration,
    /// When a connection is told to go away, ±10 %.
    pub connection_age_max: Duration,
    /// How long its calls may go on from there.
    pub connection_age_grace: Duration,
    /// When a connection without calls is told to go away; it may take an eighth longer.
    pub connection_idle_max: Duration,
    /// Largest message received, after decompression.
    pub receive_message_max: usize,
    /// Largest message sent.
    pub send_message_max: usize,
    /// Longest a unary call may take, whatever its caller allows.
    pub unary_deadline_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 4_096,
            connections_per_peer_max: 256,
            connections_waiting_max: 512,
            first_request_timeout: Duration::from_secs(10),
            streams_max: 100,
            streams_reset_max: 1_024,
            streams_reset_pending_max: 20,
            stream_window: 256 * 1_024,
            connection_window: 1_024 * 1_024,
            send_buffer: 64 * 1_024,
            header_list_max: 16 * 1_024,
            keepalive_interval: Duration::from_mins(1),
            keepalive_timeout: Duration::from_secs(20),
            connection_age_max: Duration::from_mins(30),
            connection_age_grace: Duration::from_mins(1),
            connection_idle_max: Duration::from_hours(1),
            receive_message_max: 4 * 1_024 * 1_024,
            send_message_max: 4 * 1_024 * 1_024,
            unary_deadline_max: Duration::from_secs(30),
        }
    }
}

impl Limits {
    /// These limits, ready to be shared and replaced.
    #[must_use]
    pub fn live(self) -> LiveLimits {
        Arc::new(ArcSwap::from_pointee(self))
    }
}
