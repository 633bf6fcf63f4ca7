//! The side port: what a process tells its operators, and the few things they can tell it.

mod breakers;
mod convert;
mod faults;
mod follow;
mod grpc;
mod guard;
mod limits;
mod pages;
mod service;
mod side_port;

use std::net::SocketAddr;

pub(crate) use breakers::Whose;
pub(crate) use convert::{ago, duration, key};
pub(crate) use grpc::Grpc;
pub(crate) use pages::Pages;
pub(crate) use service::{Admin, Inside};
pub(crate) use side_port::CONNECTIONS_MAX;
pub use side_port::{BindError, SidePort};

use crate::config;

config::section! {
    /// The side port: `/livez`, `/readyz`, `/metrics` and the admin service.
    #[derive(Eq)]
    pub struct Config {
        /// Address and port; port 0 takes a free one.
        pub address: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 0)), restart;
        /// Serve an address that is not loopback. Nobody is asked who he is there; only this
        /// machine may change anything all the same.
        pub insecure: bool = false, restart;
        /// Host names by which requests may ask for the side port, beside addresses and
        /// `localhost`.
        pub hosts: Vec<String> = Vec::new(), restart;
    }
}
