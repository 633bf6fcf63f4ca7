//! A network without sockets, for tests: the same listener and the same clients over pipes.
//!
//! ```text
//! Connector ──connect──▶ bounded backlog ──accept──▶ Incoming
//! ```

use std::io;

use tokio::{io::DuplexStream, sync::mpsc};

/// Connections that wait to be accepted.
const BACKLOG: usize = 64;

/// Bytes in flight in each direction of a connection.
const PIPE: usize = 64 * 1_024;

/// Opens a network with one address.
#[must_use]
pub fn network() -> (Connector, Incoming) {
    let (connector, incoming) = mpsc::channel(BACKLOG);
    (
        Connector { backlog: connector },
        Incoming { backlog: incoming },
    )
}

/// The client's end; clones connect to the same address.
#[derive(Debug, Clone)]
pub struct Connector {
    backlog: mpsc::Sender<DuplexStream>,
}

impl Connector {
    /// Opens a connection; waits while the backlog is full.
    ///
    /// # Errors
    ///
    /// Connection refused, once nobody listens.
    pub async fn connect(&self) -> io::Result<DuplexStream> {
        let (ours, theirs) = tokio::io::duplex(PIPE);
        let sent = self.backlog.send(theirs).await;
        sent.map_err(|_| io::ErrorKind::ConnectionRefused)?;
        Ok(ours)
    }
}

/// The server's end.
#[derive(Debug)]
pub struct Incoming {
    backlog: mpsc::Receiver<DuplexStream>,
}

impl Incoming {
    /// The next connection; `None` once every connector is gone. Cancel-safe.
    pub async fn accept(&mut self) -> Option<DuplexStream> {
        self.backlog.recv().await
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// Goal: what one end writes the other reads, and an address nobody listens on refuses.
    /// Method: one connection through, then the listener is dropped.
    #[tokio::test]
    async fn connections_reach_the_listener_while_there_is_one() {
        let (connector, mut incoming) = network();
        let mut client = connector.connect().await.unwrap();
        let mut server = incoming.accept().await.unwrap();
        client.write_all(b"hello").await.unwrap();
        let mut read = [0; 5];
        server.read_exact(&mut read).await.unwrap();
        assert_eq!(b"hello", &read);

        drop(incoming);
        let refused = connector.connect().await.unwrap_err();
        assert_eq!(io::ErrorKind::ConnectionRefused, refused.kind());
    }
}
