//! Who a call comes from, as types.
//!
//! What a peer proves about itself by its connection stands here; what a token proves is added by
//! authentication. Metadata alone proves nothing.

use std::{fmt, net::SocketAddr};

/// The other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Peer {
    /// A TCP connection from this address.
    Tcp(SocketAddr),
    /// The in-memory network of tests.
    Memory,
}

impl Peer {
    /// Whether the peer runs on this machine.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        match self {
            Self::Tcp(addr) => addr.ip().to_canonical().is_loopback(),
            Self::Memory => true,
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(addr) => addr.fmt(f),
            Self::Memory => f.write_str("memory"),
        }
    }
}
