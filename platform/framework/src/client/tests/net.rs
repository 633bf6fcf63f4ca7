//! A network of pipes: addresses that listen, refuse or swallow.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::{io::DuplexStream, sync::mpsc};

use crate::transport::subchannel::{Connect, Io};

/// What is behind an address.
#[derive(Debug, Clone)]
enum Behind {
    Listener(mpsc::Sender<DuplexStream>),
    /// Connections stay unanswered for ever.
    Nothing,
}

/// Connects to what listens in it; everything else refuses. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Net {
    behind: Arc<Mutex<HashMap<SocketAddr, Behind>>>,
    connects: Arc<Mutex<HashMap<SocketAddr, usize>>>,
}

pub(super) type Listener = mpsc::Receiver<DuplexStream>;

pub(super) fn addr(number: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], number))
}

impl Net {
    /// Listens at `addr`, until the listener is dropped.
    pub(super) fn listen(&self, addr: SocketAddr) -> Listener {
        let (sender, receiver) = mpsc::channel(64);
        let mut behind = self.behind.lock().unwrap();
        behind.insert(addr, Behind::Listener(sender));
        receiver
    }

    /// Lets connections to `addr` hang.
    pub(super) fn swallow(&self, addr: SocketAddr) {
        self.behind.lock().unwrap().insert(addr, Behind::Nothing);
    }

    /// How many addresses were connected to.
    pub(super) fn connected(&self) -> usize {
        self.connects.lock().unwrap().len()
    }

    /// How often `addr` was connected to, in vain or not.
    pub(super) fn connects(&self, addr: SocketAddr) -> usize {
        self.connects
            .lock()
            .unwrap()
            .get(&addr)
            .copied()
            .unwrap_or(0)
    }
}

#[async_trait::async_trait]
impl Connect for Net {
    async fn connect(&self, addr: SocketAddr) -> io::Result<Box<dyn Io>> {
        *self.connects.lock().unwrap().entry(addr).or_default() += 1;
        let behind = self.behind.lock().unwrap().get(&addr).cloned();
        match behind {
            Some(Behind::Listener(sender)) => {
                let (ours, theirs) = tokio::io::duplex(64 * 1024);
                let sent = sender.send(theirs).await;
                sent.map_err(|_| io::ErrorKind::ConnectionRefused)?;
                Ok(Box::new(ours))
            }
            Some(Behind::Nothing) => std::future::pending().await,
            None => Err(io::ErrorKind::ConnectionRefused.into()),
        }
    }
}
