//! Probes that register in an etcd, and whoever calls them.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use gantry::{
    app::{self, Etcd as Registry},
    client::{Channel, Clients},
    journal::Journal,
    shutdown::Tasks,
};
use gantry_api::admin::v1::{
    GetRegistrationRequest, Registration, admin_service_client::AdminServiceClient,
};
use gantry_harness::{
    etcd::{self, Etcd, Version},
    load::Load,
    process::{Builder, Service},
    tools,
    wait::{self, SOON},
};

use crate::support::{channel, probe};

/// What is called: quick, and without effect.
pub(crate) const WAIT: [&str; 2] = ["probe.v1.ProbeService/Wait", "{}"];

/// How long a registration outlives its process.
pub(crate) fn ttl() -> Duration {
    Duration::from_secs(if tools::timed() { 10 } else { 3 })
}

/// Replicas of the probe, registered in an etcd of their own.
pub(crate) struct Fleet {
    pub(crate) etcd: Etcd,
    pub(crate) probes: Vec<Service>,
}

impl Fleet {
    /// Starts etcd 3.6 and three probes, and waits until all are registered; none where etcd
    /// cannot be had.
    pub(crate) async fn start() -> Option<Self> {
        let etcd = Etcd::start(Version::V36).await?;
        let mut probes = Vec::new();
        for _ in 0..3 {
            probes.push(replica(&etcd.url()).start().await);
        }
        Some(Self { etcd, probes })
    }

    /// 200 calls a second from a client that discovers the probes.
    pub(crate) fn load(&self, seconds: u64) -> Load {
        Load::start("etcd:///probe", &self.etcd.url(), WAIT, seconds)
    }

    /// The keys of the probes.
    pub(crate) fn keys(&self) -> Vec<String> {
        etcd::keys(&self.etcd.url(), "probe/").unwrap_or_default()
    }

    /// Waits until exactly `count` probes are registered.
    pub(crate) async fn registered(&self, count: usize, bound: Duration) {
        let what = format!("{count} registrations");
        wait::until(&what, bound, async || {
            (self.keys().len() == count).then_some(())
        })
        .await;
    }
}

/// A probe that registers in the etcd at `url`.
pub(crate) fn replica(url: &str) -> Builder {
    probe()
        .set("ETCD__ENDPOINTS", url)
        .set("REGISTRATION__NAME", "probe")
        .set("REGISTRATION__TTL", format!("{}s", ttl().as_secs()))
}

/// The key of a probe.
pub(crate) fn key(probe: &Service) -> String {
    format!("probe/{}", probe.address)
}

/// How a service is registered, as it says itself.
pub(crate) async fn registration(service: &Service) -> Registration {
    let mut admin = AdminServiceClient::new(channel(&[service.side_address]));
    let answer = admin.get_registration(GetRegistrationRequest {}).await;
    let registration = answer
        .expect("the side port answers")
        .into_inner()
        .registration;
    registration.expect("it registers")
}

/// Waits until a service says that it is registered, for the `made`th time at least.
pub(crate) async fn registers(service: &Service, made: u64, bound: Duration) {
    wait::until("the registration", bound, async || {
        let now = registration(service).await;
        let state = now.state().as_str_name();
        (state == "STATE_REGISTERED" && now.made >= made).then_some(())
    })
    .await;
}

/// A client in this process that follows `probe` in the etcd at `url`.
pub(crate) struct Watcher {
    _channel: Channel,
    clients: Clients,
    tasks: Tasks,
}

impl Watcher {
    /// Begins to follow, and waits until `count` endpoints are known.
    pub(crate) async fn start(url: &str, count: usize) -> Self {
        let (tasks, journal) = (Tasks::new(Journal::new()), Journal::new());
        let config = Registry {
            endpoints: vec![url.to_owned()],
            ..Registry::default()
        };
        let clients = Clients::new(BTreeMap::new(), tasks.clone(), journal.clone());
        let clients = app::discovering(&config, clients, &tasks, &journal);
        let watcher = Self {
            _channel: clients.client("probe"),
            clients,
            tasks,
        };
        wait::until("the endpoints", SOON, async || {
            (watcher.endpoints().len() == count).then_some(())
        })
        .await;
        watcher
    }

    /// The endpoints it knows.
    pub(crate) fn endpoints(&self) -> Vec<SocketAddr> {
        let states = self.clients.states();
        let endpoints = states.iter().flat_map(|state| &state.endpoints);
        endpoints.map(|endpoint| endpoint.addr).collect()
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.tasks.stopping().cancel();
    }
}
