//! What the tests share: probes, and channels of the chassis under test.

use std::{collections::BTreeMap, net::SocketAddr};

use gantry::{
    client::{Channel, Clients, Config},
    journal::Journal,
    shutdown::Tasks,
};
use gantry_harness::process::{self, Builder, Service};

/// A probe of its own.
pub(crate) fn probe() -> Builder {
    process::service("probe")
}

/// A probe that hands calls with hops on to `next`.
pub(crate) fn hop(next: &Service) -> Builder {
    probe().set("CLIENTS__NEXT__TARGET", next.address)
}

/// A channel of the chassis to these addresses.
pub(crate) fn channel(addresses: &[SocketAddr]) -> Channel {
    configured(addresses, true)
}

/// A channel that calls whatever its peers say of their health.
pub(crate) fn channel_regardless(addresses: &[SocketAddr]) -> Channel {
    configured(addresses, false)
}

fn configured(addresses: &[SocketAddr], health: bool) -> Channel {
    let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    let config = Config {
        health,
        ..Config::to(addresses.join(","))
    };
    let configs = BTreeMap::from([("test".to_owned(), config)]);
    let journal = Journal::new();
    Clients::new(configs, Tasks::new(journal.clone()), journal).client("test")
}
