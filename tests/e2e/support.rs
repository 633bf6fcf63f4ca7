//! What the tests share: probes, and channels of the chassis under test.

use std::{collections::BTreeMap, net::SocketAddr};

use gantry::{
    client::{Channel, Clients, Config},
    journal::Journal,
    shutdown::Tasks,
};
use gantry_harness::{
    process::{self, Builder, Service},
    system::System,
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
use tonic::Request;

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
    let token = format!("Bearer {}", staff(address("accounts")).await);
    let update = UpdateStockRequest {
        sku: sku.to_owned(),
        delta,
    };
    let mut updates = Request::new(tokio_stream::iter([update]));
    let token = token.parse().expect("a token");
    updates.metadata_mut().insert("authorization", token);
    let mut catalog = CatalogServiceClient::new(channel(&[address("catalog")]));
    let levels = catalog.update_stock(updates).await.expect("a stream");
    let level = levels.into_inner().message().await.expect("an answer");
    let result = level.expect("a level").result();
    assert_eq!(StockUpdateResult::Applied, result);
}

/// The token of somebody whom accounts, at its own port, has made one of the staff.
async fn staff(accounts: SocketAddr) -> String {
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
