//! A whole service in one process: over real sockets, with other implementations' clients.

mod ages;
mod certificate;
mod drain;
mod operated;
mod policies;
mod probe;
mod reflect;
mod side_port;
mod strangers;
