//! Who gets the calls.

mod breaking;
mod ejection;
mod forced;
mod latencies;
mod room;
mod streams;
mod subset;

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::{sync::watch, time};

use super::{
    net::addr,
    peer::{Manners, Peer, QUIET},
    *,
};
use crate::{
    discovery::{Memory, Resolution, Resolve},
    journal::Kind,
};

const SECOND: Duration = Duration::from_secs(1);

/// Calls from `callers` at once, each one after the other, until `until`.
async fn load(caller: &Caller, callers: usize, until: Instant) {
    let callers: Vec<_> = (0..callers)
        .map(|_| {
            let mut client = caller.client();
            spawn(async move {
                while Instant::now() < until {
                    check(&mut client, "x").await.unwrap();
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
}

/// Peers whose calls take 10 ms, and a caller that is connected to all of them.
async fn peers<const COUNT: usize>(change: impl FnOnce(&mut Config)) -> ([Peer; COUNT], Caller) {
    let net = Net::default();
    let manners = Manners {
        latency: 10 * MS,
        ..Manners::default()
    };
    let numbers: [u16; COUNT] = std::array::from_fn(|index| u16::try_from(index).unwrap() + 1);
    let peers = numbers.map(|number| Peer::start(&net, addr(number), manners));
    let caller = Caller::with(&net, &numbers.map(addr), change);
    for number in numbers {
        caller.until(addr(number), Connectivity::Ready).await;
    }
    (peers, caller)
}

/// So many calls at once; how many of them failed.
async fn burst(caller: &Caller, calls: usize) -> usize {
    let calls: Vec<_> = (0..calls)
        .map(|_| {
            let mut client = caller.client();
            spawn(async move { check(&mut client, "burst").await })
        })
        .collect();
    let mut failed = 0;
    for call in calls {
        failed += usize::from(call.await.unwrap().is_err());
    }
    failed
}

/// What was written of `kind`, in order.
fn told(caller: &Caller, kind: Kind) -> Vec<String> {
    let (entries, _) = caller.journal.watch();
    let entries = entries.into_iter().filter(|entry| entry.kind == kind);
    entries.map(|entry| entry.detail).collect()
}

/// Goal: a dead endpoint costs no call.
/// Method: two peers and an address that refuses, 3000 calls.
#[tokio::test(start_paused = true)]
async fn a_dead_endpoint_is_never_picked() {
    let net = Net::default();
    let peers = [1, 2].map(|number| Peer::start(&net, addr(number), Manners::default()));
    let caller = Caller::new(&net, &[addr(1), addr(2), addr(3)]);
    let mut client = caller.client();
    for _ in 0..3_000 {
        check(&mut client, "x").await.unwrap();
    }
    let shares = peers.map(|peer| peer.handled_count());
    assert_eq!(3_000, shares[0] + shares[1]);
    assert!(shares.iter().all(|share| *share > 300), "{shares:?}");
    caller.stop().await;
}

/// Goal: an endpoint whose answers nobody waits for counts as slow.
/// Method: one of two peers hangs, and its callers give up after 50 ms.
#[tokio::test(start_paused = true)]
async fn calls_given_up_count_as_slow() {
    fastrand::seed(42);
    let net = Net::default();
    let latencies = [10 * MS, Duration::from_hours(1)];
    let peers = [0_u16, 1].map(|number| {
        let manners = Manners {
            latency: latencies[usize::from(number)],
            ..Manners::default()
        };
        Peer::start(&net, addr(number), manners)
    });
    let caller = Caller::new(&net, &[addr(0), addr(1)]);
    caller.until(addr(0), Connectivity::Ready).await;
    caller.until(addr(1), Connectivity::Ready).await;
    for _ in 0..200 {
        drop(tokio::time::timeout(50 * MS, caller.check("x")).await);
    }
    let shares = peers.map(|peer| peer.handled_count());
    assert!(shares[1] > 0 && shares[1] < 10, "{shares:?}");
    caller.stop().await;
}

/// Goal: an endpoint that fails fast attracts no calls: neither one at fault, nor one that sheds
/// load, whatever pause it asks for, nor another server that came to its address.
/// Method: one of three answers so at once, the others take 10 ms.
#[tokio::test(start_paused = true)]
async fn failing_fast_attracts_nothing() {
    let at_fault = ("grpc-status", "14");
    let sheds = ("grpc-status", "8");
    let at_once = ("grpc-retry-pushback-ms", "0");
    for answer in [&[at_fault][..], &[sheds], &[at_fault, at_once], &[UNSERVED]] {
        let failed = failing_at_once(&[answer]).await;
        assert!((1..20).contains(&failed), "{answer:?}: {failed}");
    }
}

/// Goal: an endpoint that answers calls is not avoided for a method that it does not have.
/// Method: one of three answers one call, and does not have the method of those that follow.
#[tokio::test(start_paused = true)]
async fn an_older_version_is_not_avoided() {
    let failed = failing_at_once(&[&[("grpc-status", "5")], &[UNSERVED]]).await;
    assert!(failed > 200, "{failed}");
}

const UNSERVED: (&str, &str) = ("grpc-status", "12");

/// How many of a thousand calls fail, where one of three gives these answers at once, the last for
/// all that follow.
async fn failing_at_once(answers: &[&[(&'static str, &'static str)]]) -> usize {
    fastrand::seed(42);
    let head = [(":status", "200"), ("content-type", "application/grpc")];
    let answers: Vec<_> = answers
        .iter()
        .map(|answer| [&head[..], answer].concat())
        .collect();
    let net = Net::default();
    let manners = Manners {
        latency: 10 * MS,
        ..Manners::default()
    };
    let _good = [1, 2].map(|number| Peer::start(&net, addr(number), manners));
    let mut listener = net.listen(addr(3));
    spawn(async move {
        let mut peer = super::raw::Raw::accept(listener.recv().await.unwrap(), &[]).await;
        for number in 0.. {
            let stream = peer.request().await;
            let headers = answers.get(number).or(answers.last()).unwrap();
            peer.headers(stream, headers, true).await;
        }
    });
    let caller = Caller::new(&net, &[addr(1), addr(2), addr(3)]);
    for number in 1..=3 {
        caller.until(addr(number), Connectivity::Ready).await;
    }
    let mut client = caller.client();
    let mut failed = 0;
    for _ in 0..1_000 {
        failed += usize::from(check(&mut client, "x").await.is_err());
    }
    caller.stop().await;
    failed
}

/// Goal: one that stood still for a while holds one call more at most, and has its share again soon
/// after it goes on; streams whose answers have begun change nothing about that, not even where one
/// is itself the call that finds out.
/// Method: two peers; one stands still for five seconds, with callers that give up after one; then
/// count for a second, three seconds later. The same with quiet streams from before, and with one
/// that finds out.
#[tokio::test(start_paused = true)]
async fn one_that_stood_still_has_its_share_soon() {
    stood_still(false).await;
    stood_still(true).await;
}

async fn stood_still(streams: bool) {
    fastrand::seed(42);
    let net = Net::default();
    let manners = Manners {
        latency: 10 * MS,
        ..Manners::default()
    };
    let peers = [1, 2].map(|number| Peer::start(&net, addr(number), manners));
    let caller = Caller::new(&net, &[addr(1), addr(2)]);
    let second = Duration::from_secs(1);
    load(&caller, 4, Instant::now() + second).await;
    let mut open = Vec::new();
    let quiet = || HealthCheckRequest {
        service: QUIET.to_owned(),
    };
    for _ in 0..if streams { 8 } else { 0 } {
        open.push(caller.client().watch(quiet()).await.unwrap());
    }

    peers[1].stand_still(true);
    let callers: Vec<_> = (0..4)
        .map(|_| {
            let mut client = caller.client();
            let until = Instant::now() + 5 * second;
            spawn(async move {
                while Instant::now() < until {
                    drop(tokio::time::timeout(second, check(&mut client, "still")).await);
                }
            })
        })
        .collect();
    for one in callers {
        one.await.unwrap();
    }
    let held = peers[1].handled()["still"];
    assert!(held <= 4 + 4, "{held}");

    peers[1].stand_still(false);
    let tried = peers[1].handled_count();
    let finds_out = async {
        while streams && peers[1].handled_count() == tried {
            open.truncate(8);
            open.push(caller.client().watch(quiet()).await.unwrap());
        }
    };
    patient(finds_out).await;
    load(&caller, 4, Instant::now() + 3 * second).await;
    let before = peers.each_ref().map(Peer::handled_count);
    load(&caller, 4, Instant::now() + second).await;
    let shares = [0, 1].map(|number| peers[number].handled_count() - before[number]);
    assert!(shares[1] > 100, "{shares:?}, {streams}");
    drop(open);
    caller.stop().await;
}

/// Goal: a changed list is followed: calls leave what left and reach what joined, and what an
/// endpoint was known for survives its return.
/// Method: a resolver told what to say; one peer leaves with a call in flight and comes back.
#[tokio::test(start_paused = true)]
async fn a_changed_list_is_followed() {
    let net = Net::default();
    let manners = Manners {
        latency: 50 * MS,
        ..Manners::default()
    };
    let peers = [1, 2].map(|number| Peer::start(&net, addr(number), manners));
    let names = Memory::new();
    names.set("shop", [addr(1)]);
    let caller = Caller::resolving(&net, Arc::new(names.clone()), |_| {});
    caller.check("x").await.unwrap();
    let latency = caller.endpoints()[0].latency.unwrap();
    assert!(latency >= 49 * MS, "{latency:?}");

    let mut client = caller.client();
    let in_flight = spawn(async move { check(&mut client, "in flight").await });
    tokio::time::sleep(10 * MS).await;
    names.set("shop", [addr(2)]);
    caller.until(addr(2), Connectivity::Ready).await;
    assert_eq!(1, caller.endpoints().len());
    caller.check("x").await.unwrap();
    in_flight.await.unwrap().unwrap();
    assert_eq!([2, 1], peers.map(|peer| peer.handled_count()));

    names.fail("shop", "the registry is gone");
    tokio::time::sleep(10 * MS).await;
    caller.check("x").await.unwrap();
    names.set("shop", [addr(1), addr(2)]);
    caller.until(addr(1), Connectivity::Ready).await;
    let known = caller.endpoints()[0].latency.unwrap();
    assert!(known >= 45 * MS, "{known:?}");

    let (entries, _) = caller.journal.watch();
    let words: Vec<_> = entries
        .iter()
        .filter(|entry| entry.subject == format!("peer/{}", addr(1)))
        .map(|entry| (entry.kind.as_str(), entry.detail.as_str()))
        .collect();
    assert_eq!(("endpoint_joined", ""), words[0]);
    assert!(words.contains(&("endpoint_state", "READY")), "{words:?}");
    assert!(words.contains(&("endpoint_left", "")), "{words:?}");
    caller.stop().await;
}

/// Goal: one that the registry does not list any more, or that the disk remembers, is tried for as long
/// as there is nothing else, and let go of where there is.
/// Method: one held address, where somebody listens late; then a second one, and the first goes.
#[tokio::test(start_paused = true)]
async fn a_held_endpoint_is_tried_while_there_is_no_other() {
    let held = |number| crate::discovery::Endpoint {
        attributes: crate::discovery::Attributes {
            held: true,
            ..Default::default()
        },
        ..addr(number).into()
    };
    let net = Net::default();
    let names = Memory::new();
    names.set("shop", [held(1)]);
    let caller = Caller::resolving(&net, Arc::new(names.clone()), |_| {});
    caller.check("nobody listens").await.unwrap_err();
    let first = Peer::start(&net, addr(1), Manners::default());
    caller.until(addr(1), Connectivity::Ready).await;
    caller.check("it came").await.unwrap();

    names.set("shop", [held(1), held(2)]);
    let _second = Peer::start(&net, addr(2), Manners::default());
    caller.until(addr(2), Connectivity::Ready).await;
    first.die();
    patient(async {
        while caller.endpoints().len() > 1 {
            tokio::time::sleep(MS).await;
        }
    })
    .await;
    caller.check("the other").await.unwrap();
    caller.stop().await;
}

/// Goal: a replica that was restarted at its address has its share of calls at once, whatever was
/// charged to the one that was killed.
/// Method: kill one of two with calls in flight, while it is listed and after it left the list;
/// start it again, and count for a second.
#[tokio::test(start_paused = true)]
async fn a_restarted_endpoint_has_its_share_at_once() {
    for leaves in [false, true] {
        restarted(leaves).await;
    }
}

async fn restarted(leaves: bool) {
    fastrand::seed(42);
    let net = Net::default();
    let manners = Manners {
        latency: 10 * MS,
        ..Manners::default()
    };
    let start = |number| Peer::start(&net, addr(number), manners);
    let (_first, killed) = (start(1), start(2));
    let names = Memory::new();
    names.set("shop", [addr(1), addr(2)]);
    let caller = Caller::resolving(&net, Arc::new(names.clone()), |_| {});
    for number in [1, 2] {
        caller.until(addr(number), Connectivity::Ready).await;
    }
    load(&caller, 20, Instant::now() + 100 * MS).await;

    let in_flight: Vec<_> = (0..20)
        .map(|_| {
            let mut client = caller.client();
            spawn(async move { check(&mut client, "in flight").await })
        })
        .collect();
    tokio::time::sleep(5 * MS).await;
    if leaves {
        names.set("shop", [addr(1)]);
        tokio::time::sleep(MS).await;
    }
    killed.die();
    let mut failed = 0;
    for call in in_flight {
        failed += usize::from(call.await.unwrap().is_err());
    }
    assert!(failed > 0, "{failed}");
    if !leaves {
        caller.until(addr(2), Connectivity::TransientFailure).await;
    }

    let again = start(2);
    names.set("shop", [addr(1), addr(2)]);
    caller.until(addr(2), Connectivity::Ready).await;
    load(&caller, 20, Instant::now() + Duration::from_secs(1)).await;
    let share = again.handled_count();
    assert!(
        (700..1_300).contains(&share),
        "{share} of 2000 calls, {leaves}"
    );
    caller.stop().await;
}

/// Notes how often it was asked for a newer list.
#[derive(Debug)]
struct Asked {
    names: Memory,
    refreshes: AtomicUsize,
}

impl Resolve for Asked {
    fn resolve(&self, name: &str) -> watch::Receiver<Resolution> {
        self.names.resolve(name)
    }

    fn refresh(&self, name: &str) {
        assert_eq!("shop", name);
        self.refreshes.fetch_add(1, Ordering::Relaxed);
    }
}

/// Goal: a list whose endpoints fail is asked for anew, one whose endpoints work is not.
/// Method: a peer that serves, then one that refuses.
#[tokio::test(start_paused = true)]
async fn failing_endpoints_ask_for_a_newer_list() {
    let net = Net::default();
    let _peer = Peer::start(&net, addr(1), Manners::default());
    let names = Memory::new();
    names.set("shop", [addr(1)]);
    let resolver = Arc::new(Asked {
        names: names.clone(),
        refreshes: AtomicUsize::new(0),
    });
    let caller = Caller::resolving(&net, resolver.clone(), |_| {});
    caller.until(addr(1), Connectivity::Ready).await;
    assert_eq!(0, resolver.refreshes.load(Ordering::Relaxed));

    names.set("shop", [addr(2)]);
    caller.until(addr(2), Connectivity::TransientFailure).await;
    assert!(resolver.refreshes.load(Ordering::Relaxed) > 0);
    caller.stop().await;
}

/// Goal: a target nobody uses any more is let go.
/// Method: drop clients and channels; its tasks end by themselves.
#[tokio::test(start_paused = true)]
async fn a_target_without_users_is_let_go() {
    let net = Net::default();
    let _peer = Peer::start(&net, addr(1), Manners::default());
    let caller = Caller::new(&net, &[addr(1)]);
    let channel = caller.clients.channel("peer", &METHODS);
    caller.check("x").await.unwrap();
    assert!(caller.tasks.running() > 0);
    let Caller { clients, tasks, .. } = caller;
    drop(clients);
    drop(channel);
    patient(async {
        while tasks.running() > 0 {
            tokio::time::sleep(100 * MS).await;
        }
    })
    .await;
}

/// Goal: a caller that asks learns which endpoint took its call, however the call ended.
/// Method: an answer, a deadline that passes at a peer that hangs, and nobody there at all.
#[tokio::test(start_paused = true)]
async fn who_took_a_call_can_be_asked() {
    let net = Net::default();
    let hangs = Manners {
        latency: Duration::from_hours(1),
        ..Manners::default()
    };
    let _peers = [
        Peer::start(&net, addr(1), Manners::default()),
        Peer::start(&net, addr(2), hangs),
    ];
    let cases = [
        (addr(1), Code::Ok, Some(addr(1))),
        (addr(2), Code::DeadlineExceeded, Some(addr(2))),
        (addr(3), Code::Unavailable, None),
    ];
    for (target, expected, taken_by) in cases {
        let caller = Caller::new(&net, &[target]);
        let picked = PickedEndpoint::default();
        let mut request = tonic::Request::new(HealthCheckRequest::default());
        request.extensions_mut().insert(picked.clone());
        let outcome = patient(caller.client().check(request)).await.map(drop);
        assert_eq!((expected, taken_by), (code(&outcome), picked.addr()));
        caller.stop().await;
    }
}
