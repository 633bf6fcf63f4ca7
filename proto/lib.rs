//! The contracts of the shop: for each package messages, clients, servers, rules and descriptors.

mod generated {
    gantry::include_contracts!();
}

pub use generated::shop::*;
