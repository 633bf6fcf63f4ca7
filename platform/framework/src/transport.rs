//! Connections: the accept loop and its limits, one endpoint's connections, TLS, HTTP asked outside.
//!
//! # What each limit of the listener defends against
//!
//! | limit | without it |
//! | --- | --- |
//! | connections in all, and waiting for a first request | idle connections take every file descriptor and 16 KiB each |
//! | connections per peer (an IPv6 peer is its /64) | one caller takes all of the above |
//! | time to the first request, TLS and preface included | a peer that sends nothing, or a byte a minute, is held for ever |
//! | streams per connection | one connection starts any number of handlers |
//! | streams reset for the peer's errors | frames that are cheap to send force resets and work (`MadeYouReset`) |
//! | resets of streams not yet accepted | open and cancel in a loop (Rapid Reset, CVE-2023-44487) |
//! | windows: stream below connection | one unread stream stops all others of its connection |
//! | send buffer per stream | a peer that never reads makes the process hold its answers |
//! | time a call waits for its caller to read | a peer that opens its window never holds handlers and buffers |
//! | header list | header bombs; the limit on CONTINUATION frames follows from it |
//! | keepalive and `TCP_USER_TIMEOUT` | peers that vanished keep their streams and handlers |
//! | age, with GOAWAY first | load never moves to new instances; lifetime counters of HTTP/2 run full |
//! | idle time | connections nobody uses stay for ever |
//! | pause after a failed accept | at the limit of file descriptors the loop burns a core |

pub mod framing;
pub mod http;
pub mod memory;
pub mod server;
pub(crate) mod stall;
pub mod subchannel;
pub mod tls;

#[cfg(test)]
pub(crate) mod wire;
