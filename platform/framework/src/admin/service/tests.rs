//! Who may change what.

use std::net::SocketAddr;

use futures_util::FutureExt as _;
use gantry_api::admin::v1::Fault;
use tonic::Code;

use super::*;
use crate::{
    telemetry::Directives,
    transport::{
        memory,
        server::{Limits, Listener},
    },
};

/// An application of which nothing is known.
struct Nothing;

impl Inside for Nothing {
    fn config(&self) -> GetConfigResponse {
        GetConfigResponse::default()
    }

    fn config_version(&self) -> u64 {
        1
    }

    fn explain(&self, _method: &str) -> ExplainPolicyResponse {
        ExplainPolicyResponse::default()
    }

    fn endpoints(&self) -> Vec<Endpoint> {
        Vec::new()
    }

    fn breakers(&self) -> Vec<(Whose, Snapshot)> {
        Vec::new()
    }

    fn set_breaker(&self, _: &Whose, _: Order, _: Option<Instant>) -> Result<(), NotSet> {
        Err(NotSet::Unknown)
    }

    fn limits(&self) -> Vec<Fill> {
        Vec::new()
    }

    fn events(&self) -> GetEventsResponse {
        GetEventsResponse::default()
    }

    fn services(&self) -> Vec<String> {
        Vec::new()
    }

    fn registration(&self) -> Option<crate::discovery::Registration> {
        None
    }

    fn pause_registration(&self, _pause: bool) -> bool {
        false
    }

    fn drain_bound(&self) -> Duration {
        Duration::ZERO
    }
}

fn admin() -> Admin {
    let journal = Journal::new();
    let (_, incoming) = memory::network();
    let listener = Listener::memory(incoming, Limits::default().live());
    Admin {
        name: "orders",
        version: "1.2.3",
        instance: "orders-7f".to_owned(),
        started: SystemTime::UNIX_EPOCH,
        begun: Instant::now(),
        inside: Box::new(Nothing),
        listener: listener.handle(),
        health: Health::new(journal.clone(), health::Config::default()),
        journal,
        faults: Faults::default(),
        log_level: LogLevel::new(Directives::default()),
        stop: Stop::new(),
        stopping: CancellationToken::new(),
    }
}

fn from<T>(peer: Option<&str>, message: T) -> Request<T> {
    let mut request = Request::new(message);
    if let Some(addr) = peer {
        let addr: SocketAddr = addr.parse().unwrap();
        request.extensions_mut().insert(Peer::Tcp(addr));
    }
    request
}

/// Goal: only a caller on this machine changes anything, wherever the side port listens; all
/// others may look.
/// Method: each method that changes something, from elsewhere, from nowhere and from here.
#[tokio::test(start_paused = true)]
async fn only_this_machine_changes_anything() {
    let admin = admin();
    let filter = || SetLogLevelRequest {
        filter: "debug".to_owned(),
    };
    let before = admin.log_level.get();
    for peer in [
        Some("192.0.2.1:4000"),
        Some("[2001:db8::1]:4000"),
        Some("[::ffff:192.0.2.1]:4000"),
        None,
    ] {
        let drain = admin.drain(from(peer, DrainRequest {})).await;
        assert_eq!(Some(Code::PermissionDenied), refused(drain), "{peer:?}");
        let level = admin.set_log_level(from(peer, filter())).await;
        assert_eq!(Some(Code::PermissionDenied), refused(level), "{peer:?}");
        let breaker = admin.set_breaker(from(peer, SetBreakerRequest::default()));
        assert_eq!(
            Some(Code::PermissionDenied),
            refused(breaker.await),
            "{peer:?}"
        );
        let info = admin.get_info(from(peer, GetInfoRequest {})).await;
        assert_eq!(None, refused(info), "{peer:?}");
    }
    let heard = admin.stop.requested().now_or_never();
    assert!(heard.is_none(), "{heard:?}");
    assert_eq!(before, admin.log_level.get());

    for peer in ["127.0.0.1:4000", "[::1]:4000", "[::ffff:127.0.0.1]:4000"] {
        let level = admin.set_log_level(from(Some(peer), filter())).await;
        assert_eq!(None, refused(level), "{peer}");
        let drain = admin.drain(from(Some(peer), DrainRequest {})).await;
        assert_eq!(None, refused(drain), "{peer}");
    }
}

fn refused<T>(outcome: Result<Response<T>, Status>) -> Option<Code> {
    outcome.err().map(|status| status.code())
}

/// Goal: faults are switched on and off over the side port by this machine alone, and what cannot be
/// is refused by its field.
/// Method: one that is fine, then each that is not.
#[tokio::test]
async fn faults_are_switched_and_shown() {
    type Change = fn(&mut Fault);
    let admin = admin();
    let ask = |fault: Fault, peer: &str| {
        let mut request = Request::new(SwitchFaultOnRequest { fault: Some(fault) });
        let peer: SocketAddr = peer.parse().unwrap();
        request.extensions_mut().insert(Peer::Tcp(peer));
        admin.switch_fault_on(request)
    };
    let fine = Fault {
        pattern: "a.B/*".to_owned(),
        fail_percent: 50.0,
        code: "INTERNAL".to_owned(),
        left: convert::duration(Duration::from_mins(1)),
        ..Fault::default()
    };
    let remote = ask(fine.clone(), "192.0.2.1:1").await;
    assert_eq!(Some(Code::PermissionDenied), refused(remote));
    ask(fine.clone(), "127.0.0.1:1").await.unwrap();
    let listed = admin.list_faults(Request::new(ListFaultsRequest {})).await;
    let [on] = &*listed.unwrap().into_inner().faults else {
        panic!("one is on");
    };
    assert_eq!(("a.B/*", "INTERNAL"), (&*on.pattern, &*on.code));

    let wrong: [(Change, &str); 8] = [
        (|it| it.pattern = "a".to_owned(), "fault.pattern"),
        (|it| it.code = "OK".to_owned(), "fault.code"),
        (|it| it.left = None, "fault.left"),
        (|it| it.fail_percent = f64::NAN, "fault.fail_percent"),
        (|it| it.fail_percent = 0.0, "fault.fail_percent"),
        (|it| it.drop_percent = 51.0, "fault.fail_percent"),
        (|it| it.delay_percent = 1.0, "fault.delay"),
        (|it| it.metadata = "x".to_owned(), "fault.metadata"),
    ];
    for (change, field) in wrong {
        let mut fault = fine.clone();
        change(&mut fault);
        let status = ask(fault, "127.0.0.1:1").await.unwrap_err();
        assert_eq!(Code::InvalidArgument, status.code());
        assert!(status.message().starts_with(field), "{status:?}");
    }

    let mut off = Request::new(SwitchFaultOffRequest::default());
    let peer = Peer::Tcp(SocketAddr::from(([127, 0, 0, 1], 1)));
    off.extensions_mut().insert(peer);
    let off = admin.switch_fault_off(off).await.unwrap().into_inner();
    assert_eq!(1, off.faults.len());
    let (kept, _) = admin.journal.watch();
    let kinds: Vec<_> = kept
        .iter()
        .map(|entry| (entry.kind, &*entry.detail))
        .collect();
    assert_eq!([(Kind::Fault, "on"), (Kind::Fault, "off")], *kinds);
}
