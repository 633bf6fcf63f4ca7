//! What the tests share: probes, and channels of the chassis under test.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use gantry::{
    client::{Channel, Clients, Config},
    journal::Journal,
    shutdown::Tasks,
};
use gantry_harness::{
    process::{self, Builder, Service},
    system::System,
    tools,
    wait::SOON,
};
use shop_proto::{
    accounts::v1::{
        LoginRequest, RegisterRequest, SetRolesRequest,
        accounts_service_client::AccountsServiceClient,
    },
    catalog::v1::{
        StockUpdateResult, UpdateStockRequest, catalog_service_client::CatalogServiceClient,
    },
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status, transport};

/// A probe of its own.
pub(crate) fn probe() -> Builder {
    process::service("probe")
}

/// A probe that hands calls with hops on to `next`.
pub(crate) fn hop(next: &Service) -> Builder {
    probe().set("CLIENTS__NEXT__TARGET", next.address)
}

/// Moves the stock of a product past all orders, as one of the staff.
pub(crate) async fn move_stock(system: &System, sku: &str, delta: i32) {
    let address = |name: &str| system.address(name).parse().expect("an address");
    let token = staff(address("accounts")).await;
    let update = UpdateStockRequest {
        sku: sku.to_owned(),
        delta,
    };
    let updates = by(&token, tokio_stream::iter([update]));
    let mut catalog = CatalogServiceClient::new(channel(&[address("catalog")]));
    let levels = catalog.update_stock(updates).await.expect("a stream");
    let level = levels.into_inner().message().await.expect("an answer");
    let result = level.expect("a level").result();
    assert_eq!(StockUpdateResult::Applied, result);
}

/// A request that shows a token.
pub(crate) fn by<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let token = format!("Bearer {token}").parse().expect("a token");
    request.metadata_mut().insert("authorization", token);
    request
}

/// The token of somebody whom accounts, at its own port, has made one of the staff.
pub(crate) async fn staff(accounts: SocketAddr) -> String {
    let mut accounts = AccountsServiceClient::new(channel(&[accounts]));
    let (email, password) = ("staff@example.com".to_owned(), "correct horse".to_owned());
    let register = RegisterRequest {
        email: email.clone(),
        password: password.clone(),
        display_name: String::new(),
    };
    let registered = accounts.register(register).await.expect("an account");
    let account = registered.into_inner().account.expect("an account");
    let roles = SetRolesRequest {
        account_id: account.account_id,
        roles: vec!["staff".to_owned()],
    };
    accounts.set_roles(roles).await.expect("a role");
    let login = accounts.login(LoginRequest { email, password }).await;
    login.expect("a token").into_inner().token
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

/// A connection without the chassis: nothing is tried again, held back or hidden.
pub(crate) async fn plain(address: SocketAddr) -> transport::Channel {
    let endpoint = transport::Channel::from_shared(format!("http://{address}"));
    let connected = endpoint.expect("an address").connect().await;
    connected.expect("a connection")
}

/// How the calls of `package.Service/Method` ended at a service, and how many of them did so.
pub(crate) async fn ended(service: &Service, method: &str) -> BTreeMap<String, u64> {
    let head = format!("rpc_server_call_duration_seconds_count{{rpc_method=\"{method}\",");
    let metrics = service.get("/metrics").await.expect("metrics");
    let counts = metrics.lines().filter_map(|line| {
        let (code, count) = line.strip_prefix(&head)?.rsplit_once("\"} ")?;
        let code = code.strip_prefix("rpc_response_status_code=\"")?;
        Some((code.to_owned(), count.parse().expect("a count")))
    });
    counts.filter(|(_, count)| *count > 0).collect()
}

/// Longest time from a change of a file to its effect.
pub(crate) fn effect_max() -> Duration {
    if tools::timed() {
        Duration::from_secs(1)
    } else {
        SOON
    }
}

/// Callers that never stop.
pub(crate) struct Callers {
    stop: CancellationToken,
    callers: JoinSet<u32>,
}

impl Callers {
    /// Begins to make `call` again and again, eight at a time.
    pub(crate) fn of<C>(call: impl Fn() -> C + Clone + Send + 'static) -> Self
    where
        C: Future<Output = Result<(), Status>> + Send,
    {
        let stop = CancellationToken::new();
        let mut callers = JoinSet::new();
        for _ in 0..8 {
            let (call, stop) = (call.clone(), stop.clone());
            callers.spawn(async move {
                let mut calls = 0;
                while !stop.is_cancelled() {
                    call().await.expect("no call fails");
                    calls += 1;
                }
                calls
            });
        }
        Self { stop, callers }
    }

    /// Ends the load, of which no call failed.
    pub(crate) async fn end(mut self) {
        self.stop.cancel();
        let mut calls = 0;
        while let Some(made) = self.callers.join_next().await {
            calls += made.expect("no call fails");
        }
        assert!(calls > 8, "{calls} calls are no load");
    }
}

/// For people: what a run came to.
#[allow(clippy::print_stderr)]
pub(crate) fn say(text: &str) {
    eprintln!("{text}");
}
