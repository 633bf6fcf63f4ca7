//! Who may change what.

use std::net::SocketAddr;

use futures_util::FutureExt as _;
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
