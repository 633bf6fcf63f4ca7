//! The bounds of a listener and of the calls on it.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;

use crate::config::{self, LONGEST, Size};

/// Limits that can change while the listener runs: a connection lives by those it was opened
/// under, a call by those it began under.
pub type LiveLimits = Arc<ArcSwap<Limits>>;

config::section! {
    /// How much a listener takes on.
    pub struct Limits {
        /// Connections in all. Beyond it the oldest that is idle, or has not sent a request yet, of
        /// whoever holds the most makes room; one with calls in flight never does.
        pub connections_max: usize = 4_096, in 1.., live;
        /// Connections of one peer; an IPv6 peer is its /64.
        pub connections_per_peer_max: usize = 256, in 1.., live;
        /// Connections that have not sent a first request. Beyond it the oldest of whoever has the
        /// most of them makes room.
        pub connections_waiting_max: usize = 512, in 1.., live;
        /// Connections of one peer among them.
        pub connections_waiting_per_peer_max: usize = 256, in 1.., live;
        /// From accept to the first complete request head, TLS and preface included. It closes
        /// connections of HTTP/1.1 that sent nothing as well, which `http1_idle_max` would let be
        /// for longer.
        pub first_request_timeout: Duration = Duration::from_secs(10),
            in Duration::from_millis(10)..=LONGEST, live;
        /// Calls open at once on one connection. For new connections.
        pub streams_max: u32 = 100, in 1..=100_000, live;
        /// Calls of one connection reset because of the peer's errors, over its life. For new
        /// connections.
        pub streams_reset_max: usize = 1_024, in 1.., live;
        /// Calls reset by the peer before they were begun. A busy process gets to several late, and
        /// their callers may have stopped waiting. For new connections.
        pub streams_reset_pending_max: usize = 500, in 1.., live;
        /// Calls of one connection that its peer may give up within a second, unanswered and before
        /// half the time it gave them is over, where they are more than half of those that end;
        /// beyond it the connection is cut. For new connections.
        pub streams_abandoned_max: u32 = 250, in 1.., live;
        /// Bytes a peer may send ahead on one call. For new connections.
        pub stream_window: Size = Size::kib(256), in Size::kib(64)..=Size::mib(1_024), live;
        /// Bytes a peer may send ahead on one connection. For new connections.
        pub connection_window: Size = Size::mib(1), in Size::kib(64)..=Size::mib(1_024), live;
        /// Bytes held for one call whose caller does not read. For new connections.
        pub send_buffer: Size = Size::kib(64), in Size::kib(1)..=Size::mib(1_024), live;
        /// Bytes of one request's headers, as HTTP/2 counts them. For new connections.
        pub header_list_max: Size = Size::kib(16), in Size::kib(1)..=Size::mib(1), live;
        /// How long a call waits for its caller to make room for more of its answer. For new
        /// connections.
        pub write_stall_max: Duration = Duration::from_secs(30),
            in Duration::from_millis(10)..=LONGEST, live;
        /// Pause before a silent connection is asked for a sign of life. For new connections.
        pub keepalive_interval: Duration = Duration::from_mins(1),
            in Duration::from_secs(1)..=LONGEST, live;
        /// How long that sign, or an acknowledgement by TCP, may take. For new connections.
        pub keepalive_timeout: Duration = Duration::from_secs(20),
            in Duration::from_secs(1)..=LONGEST, live;
        /// When a connection is told to go away, give or take a tenth. For new connections.
        pub connection_age_max: Duration = Duration::from_mins(30),
            in Duration::from_secs(1)..=LONGEST, live;
        /// How long its calls may go on from there. For new connections.
        pub connection_age_grace: Duration = Duration::from_mins(1),
            in Duration::ZERO..=LONGEST, live;
        /// When a connection without calls is told to go away; it may take an eighth longer. For
        /// new connections.
        pub connection_idle_max: Duration = Duration::from_hours(1),
            in Duration::from_secs(1)..=LONGEST, live;
        /// When a connection of HTTP/1.1 is closed, counted from its last answer, where no whole head
        /// of another request came. For new connections.
        pub http1_idle_max: Duration = Duration::from_secs(75),
            in Duration::from_millis(10)..=LONGEST, live;
        /// Largest message received, after decompression. For new calls.
        pub receive_message_max: Size = Size::mib(4), live;
        /// Bytes of unfinished messages that are held for all calls together; messages of 16 KiB
        /// and less are not counted.
        pub receive_bytes_max: Size = Size::mib(256), in Size::mib(1).., live;
        /// Largest message sent. For new calls.
        pub send_message_max: Size = Size::mib(4), live;
        /// Longest a unary call may take, whatever its caller allows. For new calls.
        pub unary_deadline_max: Duration = Duration::from_secs(30),
            in Duration::from_millis(1)..=LONGEST, live;
    }
}

impl Limits {
    /// These limits, ready to be shared and replaced.
    #[must_use]
    pub fn live(self) -> LiveLimits {
        Arc::new(ArcSwap::from_pointee(self))
    }
}
