//! Sockets that whoever started this process handed to it.

use std::{
    io,
    net::TcpListener,
    sync::atomic::{AtomicBool, Ordering},
};

use listenfd::ListenFd;

/// The listening socket of TCP that was handed to this process, by the variables of
/// `sd_listen_fds(3)`; the first of several. It is given once: who asks again gets none. The
/// variables are taken out of the environment, so ask before there are threads.
///
/// # Errors
///
/// If sockets were handed over and none of them is of TCP.
pub fn inherited_socket() -> io::Result<Option<TcpListener>> {
    static ASKED: AtomicBool = AtomicBool::new(false);
    // The descriptor has one owner.
    if ASKED.swap(true, Ordering::Relaxed) {
        return Ok(None);
    }
    let mut sockets = ListenFd::from_env();
    let mut refused = None;
    for index in 0..sockets.len() {
        match sockets.take_tcp_listener(index) {
            Ok(socket) => return Ok(socket),
            Err(error) => refused = Some(error),
        }
    }
    refused.map_or(Ok(None), Err)
}
