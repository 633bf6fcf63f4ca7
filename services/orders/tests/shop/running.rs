//! A shop that runs inside a test.

use std::fmt::Display;

use gantry::{
    app::{Identity, testing::Service},
    client::Channel,
};
use gantry_events::Outbox;
use gantry_harness::database::Place;
use gantry_store::{Config, Database};
use shop_proto::{
    accounts::v1::{
        LoginRequest, RegisterRequest, SetRolesRequest,
        accounts_service_client::AccountsServiceClient,
    },
    catalog::v1::{
        GetProductRequest, ImportProductsRequest, SeedProductsRequest,
        catalog_service_client::CatalogServiceClient,
    },
    orders::v1::{
        NewOrderLine, Order, OrderState, PlaceOrderRequest,
        orders_service_client::OrdersServiceClient,
    },
};
use tonic::{Code, Request, Status};

const PASSWORD: &str = "correct horse battery";

/// Accounts, a catalog, payments over a bank, and two replicas of orders.
pub(crate) struct Shop {
    place: Place,
    accounts: Service,
    catalog: Option<Service>,
    catalog_address: String,
    orders: Vec<Option<Service>>,
    /// Kept running.
    _money: [Service; 2],
}

fn identity(name: &'static str) -> Identity {
    Identity {
        name,
        version: "0.0.0",
        description: "a service inside a test",
    }
}

/// Settings of whoever calls accounts.
fn accounts_at(address: impl Display) -> String {
    format!("[clients.accounts]\ntarget = '{address}'\n")
}

impl Shop {
    /// Opens a shop with ten of TEA and of COFFEE, and `settings` in `[orders]`.
    pub(crate) async fn open(place: Place, settings: &str) -> Self {
        let database = |name: &str| format!("[database]\nurl = '{}'\n", place.url_of(name));
        let toml = database("accounts");
        let accounts = Service::start(identity("accounts"), &toml, accounts::start).await;
        let accounts = accounts.unwrap();
        // An address of its own: while it is away, nobody else is given its port there.
        let [two, three, four] = std::array::from_fn(|_| fastrand::u8(1..=254));
        let listen = format!("[listen]\naddress = '127.{two}.{three}.{four}:0'\n");
        let toml = listen + &database("catalog") + &accounts_at(accounts.address());
        let catalog = Service::start(identity("catalog"), &toml, catalog::start).await;
        let catalog = catalog.unwrap();
        let catalog_address = catalog.address().to_string();
        let toml = database("bank");
        let bank = Service::start(identity("bank"), &toml, bank::start).await;
        let bank = bank.unwrap();
        let url = format!("[bank]\nurl = 'http://{}'\n", bank.address());
        let toml = database("payments") + &url;
        let payments = Service::start(identity("payments"), &toml, payments::start).await;
        let payments = payments.unwrap();
        let toml = format!(
            "{}{}[orders]\n{settings}\n\
             [clients.catalog]\ntarget = '{catalog_address}'\n\
             backoff_min = '100ms'\nbackoff_max = '200ms'\nfail_fast = '500ms'\n\
             [clients.payments]\ntarget = '{}'\n",
            database("orders"),
            accounts_at(accounts.address()),
            payments.address(),
        );
        let mut orders = Vec::new();
        for _ in 0..2 {
            let replica = Service::start(identity("orders"), &toml, orders::start).await;
            orders.push(Some(replica.unwrap()));
        }
        let shop = Self {
            place,
            accounts,
            catalog: Some(catalog),
            catalog_address,
            orders,
            _money: [bank, payments],
        };
        shop.stock().await;
        shop
    }

    async fn stock(&self) {
        let row = |sku: &str, currency_code: &str| ImportProductsRequest {
            sku: sku.to_owned(),
            name: format!("Some {sku}"),
            price_minor_units: 499,
            currency_code: currency_code.to_owned(),
            initial_stock: 10,
            ..ImportProductsRequest::default()
        };
        let rows = [
            row("TEA", "EUR"),
            row("COFFEE", "USD"),
            row("bad sku", "EUR"),
        ];
        let rows = rows.map(|product| SeedProductsRequest {
            product: Some(product),
        });
        let imported = self.catalog().seed_products(tokio_stream::iter(rows)).await;
        let imported = imported.unwrap().into_inner();
        assert_eq!((2, 1), (imported.created_count, imported.rejected_count));
        assert_eq!(3, imported.rejected_rows[0].row);
    }

    pub(crate) fn accounts(&self) -> AccountsServiceClient<Channel> {
        self.accounts.client()
    }

    pub(crate) fn catalog(&self) -> CatalogServiceClient<Channel> {
        self.catalog.as_ref().unwrap().client()
    }

    pub(crate) fn orders(&self, replica: usize) -> OrdersServiceClient<Channel> {
        self.orders[replica].as_ref().unwrap().client()
    }

    /// The orders as they are written down.
    pub(crate) async fn orders_store(&self) -> orders::store::Store {
        let config = Config {
            url: self.place.url_of("orders").parse().unwrap(),
            ..Config::default()
        };
        let database = Database::open(&config, orders::store::MIGRATIONS).await;
        let database = database.unwrap();
        let outbox = Outbox::open(&database, "orders").await.unwrap();
        orders::store::Store::new(database, outbox)
    }

    /// Registers a person and logs in; the token.
    pub(crate) async fn person(&self, email: &str) -> String {
        self.person_with(email, &[]).await
    }

    /// The same for one with these roles.
    pub(crate) async fn person_with(&self, email: &str, roles: &[&str]) -> String {
        let register = RegisterRequest {
            email: email.to_owned(),
            password: PASSWORD.to_owned(),
            display_name: String::new(),
        };
        let registered = self.accounts().register(register).await.unwrap();
        let account = registered.into_inner().account.unwrap();
        let roles = SetRolesRequest {
            account_id: account.account_id,
            roles: roles.iter().map(|role| (*role).to_owned()).collect(),
        };
        self.accounts().set_roles(roles).await.unwrap();
        let login = LoginRequest {
            email: email.to_uppercase(),
            password: PASSWORD.to_owned(),
        };
        self.accounts()
            .login(login)
            .await
            .unwrap()
            .into_inner()
            .token
    }

    pub(crate) async fn place(
        &self,
        replica: usize,
        token: &str,
        request_id: &str,
        lines: &[(&str, i32)],
    ) -> Result<Order, Status> {
        let request = place(request_id, lines).by(token);
        let placed = self.orders(replica).place_order(request).await?;
        Ok(placed.into_inner().order.unwrap())
    }

    /// Units that can still be had.
    pub(crate) async fn available(&self, sku: &str) -> i64 {
        let get = GetProductRequest {
            sku: sku.to_owned(),
        };
        let product = self.catalog().get_product(get).await.unwrap();
        product.into_inner().product.unwrap().available
    }

    pub(crate) async fn stop_catalog(&mut self) {
        self.catalog.take().unwrap().stop().await;
    }

    /// Starts the catalog again, where it was.
    pub(crate) async fn start_catalog(&mut self) {
        let toml = format!(
            "[listen]\naddress = '{}'\n[database]\nurl = '{}'\n{}",
            self.catalog_address,
            self.place.url_of("catalog"),
            accounts_at(self.accounts.address()),
        );
        let catalog = Service::start(identity("catalog"), &toml, catalog::start).await;
        self.catalog = Some(catalog.unwrap());
    }

    pub(crate) async fn stop_orders(&mut self, replica: usize) {
        self.orders[replica].take().unwrap().stop().await;
    }
}

pub(crate) fn place(request_id: &str, lines: &[(&str, i32)]) -> PlaceOrderRequest {
    let line = |(sku, quantity): &(&str, i32)| NewOrderLine {
        sku: (*sku).to_owned(),
        quantity: *quantity,
    };
    PlaceOrderRequest {
        request_id: request_id.to_owned(),
        lines: lines.iter().map(line).collect(),
    }
}

pub(crate) fn state(order: &Order) -> OrderState {
    order.state()
}

/// The code of a call that must have failed.
pub(crate) fn code<T>(outcome: Result<T, Status>) -> Code {
    match outcome {
        Ok(_) => panic!("the call succeeded"),
        Err(error) => error.code(),
    }
}

/// Requests with a token.
pub(crate) trait Tokened: Sized {
    fn by(self, token: &str) -> Request<Self> {
        self.perhaps(Some(&token.to_owned()))
    }

    fn perhaps(self, token: Option<&String>) -> Request<Self> {
        let mut request = Request::new(self);
        if let Some(token) = token {
            let value = format!("Bearer {token}").parse().unwrap();
            request.metadata_mut().insert("authorization", value);
        }
        request
    }
}

impl<T> Tokened for T {}
