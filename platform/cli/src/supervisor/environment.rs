//! What a process is told by its environment: where to listen, and where those are that it calls.
//!
//! The second half stands in for a registry, and is all in this file: [`Board`], [`Callees`] and
//! their lines in [`of`]; elsewhere are only calls of the board's methods and the instance's wait for
//! [`Callees::moved`]. Whoever calls others is started again when these move, as an environment
//! cannot change in a running process; [`RESTARTS_CALLERS`] switches that off.

use std::{collections::BTreeMap, future, net::SocketAddr};

use tokio::sync::watch;

use super::{instance::Spec, roster::Id, world::Place};

/// Whether an instance is started again when the addresses it calls are others.
const RESTARTS_CALLERS: bool = true;

/// What `gantry` adds to the environment of a process of `spec` at `place`.
pub(super) fn of(spec: &Spec, place: Place, callees: &Callees) -> Vec<(String, String)> {
    let mut environment = spec.environment.clone();
    let mut set = |key: String, value: String| environment.push((key, value));
    set(
        "GANTRY_LISTEN__ADDRESS".to_owned(),
        place.address.to_string(),
    );
    set(
        "GANTRY_ADMIN__ADDRESS".to_owned(),
        place.side_address.to_string(),
    );
    for (service, target) in &callees.targets {
        let service = service.replace('-', "_").to_uppercase();
        set(format!("GANTRY_CLIENTS__{service}__TARGET"), target.clone());
    }
    environment
}

/// The addresses of all instances, by service and number.
type Addresses = BTreeMap<String, BTreeMap<u16, SocketAddr>>;

/// Where everybody listens that may be called; clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Board {
    addresses: watch::Sender<Addresses>,
}

impl Board {
    /// Lets callers know an instance.
    pub(super) fn put(&self, id: &Id, address: SocketAddr) {
        self.addresses.send_modify(|addresses| {
            let service = addresses.entry(id.service.clone()).or_default();
            service.insert(id.number, address);
        });
    }

    /// Corrects the address of an instance, where callers know it.
    pub(super) fn moved(&self, id: &Id, address: SocketAddr) {
        self.addresses.send_if_modified(|addresses| {
            let service = addresses.get_mut(&id.service);
            let known = service.and_then(|service| service.get_mut(&id.number));
            known.is_some_and(|known| {
                *known = address;
                true
            })
        });
    }

    /// Keeps new processes of callers from knowing an instance.
    pub(super) fn take(&self, id: &Id) {
        self.addresses.send_modify(|addresses| {
            if let Some(service) = addresses.get_mut(&id.service) {
                service.remove(&id.number);
            }
        });
    }

    /// What a process of `spec` that starts now is told of others.
    pub(super) fn callees(&self, spec: &Spec) -> Callees {
        let mut addresses = self.addresses.subscribe();
        let targets = targets(&addresses.borrow_and_update(), &spec.calls);
        Callees {
            calls: spec.calls.clone(),
            targets,
            addresses,
        }
    }
}

/// Where those are that one process calls, as it was told when it was started.
#[derive(Debug)]
pub(super) struct Callees {
    calls: Vec<String>,
    /// Comma-separated addresses, by service.
    targets: BTreeMap<String, String>,
    addresses: watch::Receiver<Addresses>,
}

impl Callees {
    /// Completes once what the process was told does not hold any more. Cancel-safe.
    pub(super) async fn moved(&mut self) {
        loop {
            if !RESTARTS_CALLERS || self.addresses.changed().await.is_err() {
                future::pending::<()>().await;
            }
            if targets(&self.addresses.borrow_and_update(), &self.calls) != self.targets {
                return;
            }
        }
    }
}

fn targets(addresses: &Addresses, calls: &[String]) -> BTreeMap<String, String> {
    let target = |service: &String| {
        let addresses = addresses.get(service)?.values().map(ToString::to_string);
        let addresses: Vec<_> = addresses.collect();
        Some((service.clone(), addresses.join(",")))
    };
    calls.iter().filter_map(target).collect()
}
