//! Tests of the whole client stack against peers that do exactly as told.

mod balancing;
mod criticality;
mod deadlines;
mod endings;
mod guards;
mod hedging;
mod net;
mod peer;
mod raw;
mod repeats;
mod retries;
mod script;
mod streams;
mod subchannels;
mod tcp;
mod tls;

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use tonic::{Code, Status};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use super::*;
use crate::{
    contract::{Access, Idempotency, Method},
    discovery::Resolve,
    journal::Journal,
    policy::Policy,
    shutdown::Tasks,
    transport::subchannel::Connectivity,
};

use net::Net;

const MS: Duration = Duration::from_millis(1);

/// The health contract serves as an ordinary one: a unary method and a server stream.
static METHODS: [Method; 2] = [
    Method {
        path: "/grpc.health.v1.Health/Check",
        client_streaming: false,
        server_streaming: false,
        idempotency: Idempotency::NoSideEffects,
        access: Access::Public,
        role: None,
    },
    Method {
        path: "/grpc.health.v1.Health/Watch",
        client_streaming: false,
        server_streaming: true,
        idempotency: Idempotency::NoSideEffects,
        access: Access::Public,
        role: None,
    },
];

/// A process with one configured target.
struct Caller {
    clients: Clients,
    tasks: Tasks,
    journal: Journal,
    /// Made once: a channel looks up what is measured of its methods.
    kinds: std::sync::OnceLock<Channel>,
}

/// The same policy for every method.
fn always(policy: Policy) -> Policies {
    Policies::new(&Live::fixed(BTreeMap::from([("*".to_owned(), policy)])))
}

impl Caller {
    /// Calls `addrs` over `net`. Endpoints are taken for healthy.
    fn new(net: &Net, addrs: &[SocketAddr]) -> Self {
        Self::with(net, addrs, |_| {})
    }

    fn with(net: &Net, addrs: &[SocketAddr], change: impl FnOnce(&mut Config)) -> Self {
        // What is tried again is for those tests that are about it.
        let once = crate::retry::Config {
            attempts_max: 1,
            ..crate::retry::Config::default()
        };
        let policy = Policy {
            retry: once,
            ..Policy::default()
        };
        Self::under(net, addrs, policy, change)
    }

    /// With a policy for all methods.
    fn under(
        net: &Net,
        addrs: &[SocketAddr],
        policy: Policy,
        change: impl FnOnce(&mut Config),
    ) -> Self {
        let target: Vec<_> = addrs.iter().map(ToString::to_string).collect();
        let mut config = Config {
            health: false,
            keepalive_always: true,
            ..Config::to(target.join(","))
        };
        change(&mut config);
        let journal = Journal::new();
        let tasks = Tasks::new(journal.clone());
        let configs = BTreeMap::from([("peer".to_owned(), config)]);
        let clients = Clients::new(configs, tasks.clone(), journal.clone())
            .with_connector(Arc::new(net.clone()))
            .with_policies(always(policy));
        Self {
            clients,
            tasks,
            journal,
            kinds: std::sync::OnceLock::new(),
        }
    }

    /// Calls the endpoints of `memory:///shop` as `resolver` tells them.
    fn resolving(net: &Net, resolver: Arc<dyn Resolve>, change: impl FnOnce(&mut Config)) -> Self {
        let mut caller = Self::with(net, &[], |config| {
            config.target = Some("memory:///shop".into());
            change(config);
        });
        caller.clients = caller.clients.with_resolver("memory", resolver);
        caller
    }

    fn client(&self) -> HealthClient<Channel> {
        HealthClient::new(self.clients.channel("peer", &METHODS))
    }

    /// One unary call named `name`.
    async fn check(&self, name: &str) -> Result<(), Status> {
        check(&mut self.client(), name).await
    }

    fn endpoints(&self) -> Vec<crate::balance::Snapshot> {
        let mut states = self.clients.states();
        states
            .pop()
            .map(|state| state.endpoints)
            .unwrap_or_default()
    }

    fn connectivity(&self, addr: SocketAddr) -> Option<Connectivity> {
        self.endpoints()
            .into_iter()
            .find(|endpoint| endpoint.addr == addr)
            .map(|endpoint| endpoint.connectivity)
    }

    async fn until(&self, addr: SocketAddr, wanted: Connectivity) {
        // Level-triggered: looks again whenever anything was written to the journal.
        let (_, mut live) = self.journal.watch();
        self.client();
        let began = Instant::now();
        while self.connectivity(addr) != Some(wanted) {
            assert!(
                began.elapsed() < Duration::from_mins(1),
                "{wanted} never came"
            );
            tokio::select! {
                _ = live.recv() => {}
                () = tokio::time::sleep(MS) => {}
            }
        }
    }

    /// Everything ends, and nothing is left running.
    async fn stop(self) {
        assert!(self.tasks.stop_within(5_000 * MS).await.is_empty());
        assert_eq!(0, self.tasks.running());
    }
}

async fn check(client: &mut HealthClient<Channel>, name: &str) -> Result<(), Status> {
    let request = HealthCheckRequest {
        service: name.to_owned(),
    };
    patient(client.check(request)).await.map(drop)
}

fn code(outcome: &Result<(), Status>) -> Code {
    outcome.as_ref().map_or_else(Status::code, |()| Code::Ok)
}

/// Waits for what must happen; a paused clock reaches the bound at once when nothing else can.
async fn patient<F: Future>(future: F) -> F::Output {
    let waited = tokio::time::timeout(Duration::from_mins(10), future).await;
    waited.expect("it happens within ten minutes")
}

/// Spawns without tracking: a test's peers and callers end with its runtime.
#[allow(clippy::disallowed_methods)]
fn spawn<F>(future: F) -> tokio::task::JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    tokio::spawn(future)
}
