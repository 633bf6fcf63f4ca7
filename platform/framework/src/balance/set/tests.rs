//! A snapshot that names an endpoint which has just left.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
};

use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    balance::{
        Balancer, Shared, endpoint::Record, gate::Gate, hand::Hand, load::Load, outlier::Tally,
    },
    classify::Verdict,
    config::Live,
    journal::Journal,
    shutdown::Tasks,
    telemetry::platform::EndpointBreakers,
    transport::subchannel::{CONNECTS_MAX, Common, Config, Connect, Connectivity, Io, Subchannel},
};

const HERE: u16 = 1;
const GONE: u16 = 2;

/// Leads to a server at [`HERE`] and nowhere else.
struct Ways(Tasks);

#[async_trait::async_trait]
impl Connect for Ways {
    async fn connect(&self, addr: SocketAddr) -> io::Result<Box<dyn Io>> {
        if addr.port() != HERE {
            return std::future::pending().await;
        }
        let (ours, theirs) = tokio::io::duplex(1 << 10);
        self.0.spawn("peer", async move {
            let handshake = h2::server::handshake(theirs);
            let mut peer = handshake.await.unwrap();
            while peer.accept().await.is_some() {}
        });
        Ok(Box::new(ours))
    }
}

fn endpoint(port: u16, tasks: &Tasks, epoch: Instant) -> Arc<Endpoint> {
    let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let config = Config {
        health: None,
        ..Config::default()
    };
    let common = Common {
        config: Arc::new(config),
        connector: Arc::new(Ways(tasks.clone())),
        tasks: tasks.clone(),
        on_change: Arc::new(Notify::new()),
        connects: Arc::new(Semaphore::new(CONNECTS_MAX)),
    };
    let record = Record {
        tally: Tally::default(),
        gate: Gate::new(Live::fixed(crate::balance::Config::default()), epoch),
        subject: addr.to_string(),
        journal: Journal::new(),
        metrics: EndpointBreakers::register("peers".into()),
        on_change: Arc::clone(&common.on_change),
    };
    let authority = http::uri::Authority::from_static("peer");
    Arc::new(Endpoint {
        addr,
        attributes: crate::discovery::Attributes::default(),
        subchannel: Arc::new(Subchannel::start(addr, authority, common)),
        load: Arc::new(Load::new(epoch)),
        record: Arc::new(record),
    })
}

/// A balancer of `endpoints`, each of them ready when last looked at.
fn balancer(endpoints: Vec<Arc<Endpoint>>, epoch: Instant) -> Balancer {
    let ready = endpoints.iter().map(|endpoint| Candidate {
        load: Arc::clone(&endpoint.load),
        weight: 1.0,
        warm_from: None,
        endpoint: Arc::clone(endpoint),
    });
    let ready = Candidates::new(ready.collect(), None, false);
    let all = endpoints.into_iter().map(|endpoint| Known {
        endpoint,
        ejected: None,
        weight: 1.0,
        warming: None,
    });
    let set = Set {
        epoch,
        config: Arc::default(),
        all: all.collect(),
        ready,
        half_open: Vec::new(),
        panic: None,
        unready_since: None,
        error: None,
    };
    let shared = Shared {
        name: "peers".into(),
        fail_fast: Duration::from_secs(1),
        set: arc_swap::ArcSwap::from_pointee(set),
        hand: Arc::new(Hand::new(Arc::default())),
        published: Notify::new(),
        _gone: CancellationToken::new().drop_guard(),
    };
    Balancer {
        shared: Arc::new(shared),
    }
}

/// Goal: a call that meets an endpoint which has left goes to another at once, and nothing is
/// learned of the one that has: its return finds it as it was.
/// Method: two of a snapshot, one not connected and cheaper, as it was never measured; 200 places.
#[tokio::test(start_paused = true)]
async fn one_that_left_costs_no_call() {
    let tasks = Tasks::new(Journal::new());
    let epoch = Instant::now();
    let (here, gone) = (endpoint(HERE, &tasks, epoch), endpoint(GONE, &tasks, epoch));
    let mut states = here.subchannel.watch();
    let ready = states.wait_for(|state| state.connectivity == Connectivity::Ready);
    drop(ready.await.unwrap());
    here.load.answered(Duration::from_millis(1), Instant::now());

    let balancer = balancer(vec![here, Arc::clone(&gone)], epoch);
    let first = balancer.pick().expect("there are two");
    assert_eq!(GONE, first.addr().port());
    first.unsent();
    let begun = Instant::now();
    for _ in 0..200 {
        let (picked, slot) = balancer.place().await.unwrap();
        assert_eq!(HERE, picked.addr().port());
        drop((picked, slot));
    }
    assert_eq!(begun, Instant::now(), "no call waits");
    assert_eq!(None, gone.load.latency(Instant::now()));
    assert_eq!(0, gone.load.pending());
}

/// Goal: where all have left, a call waits no longer than it may, and does not spin.
/// Method: a snapshot of one that is not connected.
#[tokio::test(start_paused = true)]
async fn a_call_waits_where_all_have_left() {
    let tasks = Tasks::new(Journal::new());
    let epoch = Instant::now();
    let balancer = balancer(vec![endpoint(GONE, &tasks, epoch)], epoch);
    let placed = tokio::time::timeout(Duration::from_mins(1), balancer.place());
    placed.await.expect("it ends by itself").unwrap_err();
    assert_eq!(Duration::from_secs(1), epoch.elapsed());
}

/// Goal: a call that is picked in panic and given what finds out for a breaker finds it out when its
/// answer begins, as one that was picked for that.
/// Method: the breaker of the only one opens; after its pause, a call of a snapshot from before.
#[tokio::test(start_paused = true)]
async fn one_picked_in_panic_finds_out_too() {
    let tasks = Tasks::new(Journal::new());
    let epoch = Instant::now();
    let here = endpoint(HERE, &tasks, epoch);
    let mut states = here.subchannel.watch();
    let ready = states.wait_for(|state| state.connectivity == Connectivity::Ready);
    drop(ready.await.unwrap());
    let config = crate::balance::Config::default();
    for _ in 0..config.breaker.failures_in_a_row {
        Picked::new(Arc::clone(&here), Instant::now(), &config).judged(Verdict::Hard);
    }
    assert!(here.record.gate.state(Instant::now()).is_shut());
    tokio::time::advance(2 * config.breaker.pause_min).await;
    let candidate = Candidate {
        load: Arc::clone(&here.load),
        weight: 1.0,
        warm_from: None,
        endpoint: Arc::clone(&here),
    };
    let set = Set {
        ready: Candidates::new(vec![candidate], None, true),
        ..Set::empty()
    };
    let now = Instant::now();
    let mut picked = set.pick_elsewhere(now, &[]).expect("there is one");
    picked.answered();
    assert!(!here.record.gate.state(now).is_shut());
}

/// Goal: how much time a call needs is judged by what calls take, and not by what failures cost.
/// Method: an endpoint that answers in 10 ms and fails once; a second is enough before and after.
#[tokio::test(start_paused = true)]
async fn a_failure_makes_no_short_time_unfair() {
    let tasks = Tasks::new(Journal::new());
    let here = endpoint(HERE, &tasks, Instant::now());
    let config = crate::balance::Config::default();
    let pick = || Picked::new(Arc::clone(&here), Instant::now(), &config);
    let (second, short) = (Duration::from_secs(1), Duration::from_millis(20));
    let answer = async || {
        let mut picked = pick();
        tokio::time::advance(Duration::from_millis(10)).await;
        picked.answered();
    };
    answer().await;
    assert!(pick().is_fair(second) && !pick().is_fair(short));
    pick().judged(Verdict::Hard);
    assert!(pick().is_fair(second), "it needs no more than before");
    assert!(!pick().is_fair(short));
    answer().await;
    assert!(pick().is_fair(second) && !pick().is_fair(short));
}
