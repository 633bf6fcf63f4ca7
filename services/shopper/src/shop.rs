//! The shop, as a customer sees it: the public contracts at the gateway, one call at a time. And the
//! one call that whoever runs it makes elsewhere.

use std::{sync::Arc, time::Duration};

use gantry::client::Channel;
use shop_proto::{
    accounts::v1::{
        LoginRequest, RegisterRequest, SetRolesRequest,
        accounts_service_client::AccountsServiceClient,
    },
    catalog::v1::{
        ListProductsRequest, Product, UpdateStockRequest,
        catalog_service_client::CatalogServiceClient,
    },
    notifications::v1::{
        WatchNotificationsRequest, WatchNotificationsResponse,
        notifications_service_client::NotificationsServiceClient,
    },
    orders::v1::{
        CancelOrderRequest, GetOrderRequest, Order, PlaceOrderRequest, WatchOrderRequest,
        WatchOrderResponse, orders_service_client::OrdersServiceClient,
    },
};
use tokio::time;
use tonic::{
    Request, Status, Streaming,
    metadata::{Ascii, MetadataValue},
};

use crate::pace::Pace;

/// Longest a stream of a few messages may take; a call with one answer has the client's bound.
const STREAM_MAX: Duration = Duration::from_secs(5);

/// The role of those who fill the shelves.
const STAFF: &str = "staff";

/// Products looked at.
const PAGE: i32 = 50;

/// What shows who calls.
pub(crate) type Token = MetadataValue<Ascii>;

/// The shop behind its gateway; clones share connections and pace.
#[derive(Clone)]
pub(crate) struct Shop {
    gateway: Channel,
    /// Its own port, for those who run the shop.
    accounts: Channel,
    pace: Arc<Pace>,
}

impl Shop {
    pub(crate) fn new(gateway: Channel, accounts: Channel, pace: Pace) -> Self {
        Self {
            gateway,
            accounts,
            pace: Arc::new(pace),
        }
    }

    async fn gateway(&self) -> Channel {
        self.pace.turn().await;
        self.gateway.clone()
    }

    pub(crate) async fn register(&self, email: &str, password: &str) -> Result<(), Status> {
        let mut accounts = AccountsServiceClient::new(self.gateway().await);
        let request = RegisterRequest {
            email: email.to_owned(),
            password: password.to_owned(),
            display_name: "A demo".to_owned(),
        };
        accounts.register(request).await?;
        Ok(())
    }

    /// The token, and the account that it speaks for.
    pub(crate) async fn log_in(
        &self,
        email: &str,
        password: &str,
    ) -> Result<(Token, String), Status> {
        let mut accounts = AccountsServiceClient::new(self.gateway().await);
        let request = LoginRequest {
            email: email.to_owned(),
            password: password.to_owned(),
        };
        let login = accounts.login(request).await?.into_inner();
        let token = format!("Bearer {}", login.token).parse();
        let mut token: Token = token.map_err(|_| Status::internal("the token is no metadata"))?;
        token.set_sensitive(true);
        Ok((token, login.account_id))
    }

    /// Has the tokens that an account gets from now on let it deliver.
    pub(crate) async fn make_staff(&self, account_id: String) -> Result<(), Status> {
        self.pace.turn().await;
        let mut accounts = AccountsServiceClient::new(self.accounts.clone());
        let roles = vec![STAFF.to_owned()];
        let request = SetRolesRequest { account_id, roles };
        accounts.set_roles(request).await?;
        Ok(())
    }

    pub(crate) async fn products(&self) -> Result<Vec<Product>, Status> {
        let mut catalog = CatalogServiceClient::new(self.gateway().await);
        let request = ListProductsRequest {
            page_size: PAGE,
            ..ListProductsRequest::default()
        };
        Ok(catalog.list_products(request).await?.into_inner().products)
    }

    /// Puts `units` more of each product on its shelf.
    pub(crate) async fn deliver(
        &self,
        token: &Token,
        skus: &[String],
        units: i32,
    ) -> Result<(), Status> {
        let mut catalog = CatalogServiceClient::new(self.gateway().await);
        let delivery = |sku: &String| UpdateStockRequest {
            sku: sku.clone(),
            delta: units,
        };
        let deliveries: Vec<_> = skus.iter().map(delivery).collect();
        let deliveries = with(token, tokio_stream::iter(deliveries));
        let delivered = time::timeout(STREAM_MAX, async {
            let mut levels = catalog.update_stock(deliveries).await?.into_inner();
            while levels.message().await?.is_some() {}
            Ok(())
        });
        let late = |_| Err(Status::deadline_exceeded("a delivery took too long"));
        delivered.await.unwrap_or_else(late)
    }

    pub(crate) async fn place(
        &self,
        token: &Token,
        order: PlaceOrderRequest,
    ) -> Result<Order, Status> {
        let mut orders = OrdersServiceClient::new(self.gateway().await);
        let placed = orders.place_order(with(token, order)).await?;
        Ok(placed.into_inner().order.unwrap_or_default())
    }

    pub(crate) async fn look_at(&self, token: &Token, order_id: String) -> Result<(), Status> {
        let mut orders = OrdersServiceClient::new(self.gateway().await);
        let request = with(token, GetOrderRequest { order_id });
        orders.get_order(request).await?;
        Ok(())
    }

    pub(crate) async fn cancel(&self, token: &Token, order_id: String) -> Result<(), Status> {
        let mut orders = OrdersServiceClient::new(self.gateway().await);
        let request = with(token, CancelOrderRequest { order_id });
        orders.cancel_order(request).await?;
        Ok(())
    }

    pub(crate) async fn watch(
        &self,
        token: &Token,
        order_id: String,
    ) -> Result<Streaming<WatchOrderResponse>, Status> {
        let mut orders = OrdersServiceClient::new(self.gateway().await);
        let request = with(token, WatchOrderRequest { order_id });
        Ok(orders.watch_order(request).await?.into_inner())
    }

    pub(crate) async fn news(
        &self,
        token: &Token,
        after_position: i64,
    ) -> Result<Streaming<WatchNotificationsResponse>, Status> {
        let mut news = NotificationsServiceClient::new(self.gateway().await);
        let request = with(token, WatchNotificationsRequest { after_position });
        Ok(news.watch_notifications(request).await?.into_inner())
    }
}

fn with<T>(token: &Token, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request
        .metadata_mut()
        .insert("authorization", token.clone());
    request
}
