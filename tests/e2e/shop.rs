//! A customer of the shop, who looks into its books.

use std::{net::SocketAddr, time::Duration};

use gantry::{client::Channel, status::chain};
use gantry_harness::{
    process::put,
    wait::{self, SOON},
};
use serde_json::Value;
use shop_audit::{Books, Places, Shelves, Sources};
use shop_proto::{
    accounts::v1::{LoginRequest, RegisterRequest, accounts_service_client::AccountsServiceClient},
    notifications::v1::{
        ListNotificationsRequest, notifications_service_client::NotificationsServiceClient,
    },
    orders::v1::{
        CancelOrderRequest, NewOrderLine, Order, PlaceOrderRequest,
        orders_service_client::OrdersServiceClient,
    },
};
use tonic::{Code, Request, Status};

use crate::support::by;

/// What everybody orders.
pub(crate) const SKU: &str = "TEA-EARL-GREY";

/// Who orders.
const EMAIL: &str = "ada@example.com";
const PASSWORD: &str = "correct horse";

/// Through whom the shop is reached.
#[derive(Debug, Clone)]
pub(crate) struct Doors {
    pub(crate) accounts: Channel,
    pub(crate) orders: Channel,
    pub(crate) bank: SocketAddr,
    pub(crate) books: Places,
}

/// Somebody with an account.
#[derive(Debug, Clone)]
pub(crate) struct Customer {
    orders: OrdersServiceClient<Channel>,
    notifications: NotificationsServiceClient<Channel>,
    bank: SocketAddr,
    pub(crate) token: String,
    books: Sources,
    /// What was on the shelves at first.
    shelves: Shelves,
}

impl Customer {
    /// Who opens an account.
    pub(crate) async fn of(doors: Doors) -> Self {
        let register = RegisterRequest {
            email: EMAIL.to_owned(),
            password: PASSWORD.to_owned(),
            display_name: String::new(),
        };
        let mut accounts = AccountsServiceClient::new(doors.accounts.clone());
        accounts.register(register).await.expect("an account");
        let mut customer = Self::known(doors, Shelves::new()).await;
        customer.shelves = customer.books().await.expect("books").shelves;
        customer
    }

    /// The same person, where the shop is reached by other doors.
    pub(crate) async fn by_other(self, doors: Doors) -> Self {
        Self::known(doors, self.shelves).await
    }

    async fn known(doors: Doors, shelves: Shelves) -> Self {
        let (email, password) = (EMAIL.to_owned(), PASSWORD.to_owned());
        let mut accounts = AccountsServiceClient::new(doors.accounts);
        let login = accounts.login(LoginRequest { email, password }).await;
        Self {
            // With `up` one door leads to all of them.
            notifications: NotificationsServiceClient::new(doors.orders.clone()),
            orders: OrdersServiceClient::new(doors.orders),
            bank: doors.bank,
            token: login.expect("a login").into_inner().token,
            books: Sources::open(doors.books).await.expect("books"),
            shelves,
        }
    }

    /// A request that shows the customer's token.
    pub(crate) fn by<T>(&self, message: T) -> Request<T> {
        by(&self.token, message)
    }

    /// Places an order once, and answers what was answered.
    pub(crate) async fn try_order(&self, number: usize) -> Result<Order, Status> {
        self.order_within(number, SOON).await
    }

    /// The same, with so much time.
    pub(crate) async fn order_within(
        &self,
        number: usize,
        timeout: Duration,
    ) -> Result<Order, Status> {
        let request = PlaceOrderRequest {
            request_id: format!("order-{number}"),
            lines: vec![NewOrderLine {
                sku: SKU.to_owned(),
                quantity: i32::try_from(number % 3 + 1).expect("small"),
            }],
        };
        self.place_within(request, timeout).await
    }

    /// Places any order once.
    pub(crate) async fn place(&self, request: PlaceOrderRequest) -> Result<Order, Status> {
        self.place_within(request, SOON).await
    }

    async fn place_within(
        &self,
        request: PlaceOrderRequest,
        timeout: Duration,
    ) -> Result<Order, Status> {
        let mut request = self.by(request);
        request.set_timeout(timeout);
        let placed = self.orders.clone().place_order(request).await?;
        Ok(placed.into_inner().order.expect("an order"))
    }

    /// Places an order, asking again until somebody answers; its name.
    pub(crate) async fn order(&self, number: usize) -> String {
        let order = wait::until("an order to be taken", SOON, async || {
            self.try_order(number).await.ok()
        });
        order.await.order_id
    }

    /// Cancels an order, asking again until somebody answers.
    pub(crate) async fn regret(&self, order_id: &str) {
        wait::until("an order to be cancelled", SOON, async || {
            let cancel = CancelOrderRequest {
                order_id: order_id.to_owned(),
            };
            let cancelled = self.orders.clone().cancel_order(self.by(cancel)).await;
            let over = |status: &Status| status.code() == Code::FailedPrecondition;
            (cancelled.is_ok() || cancelled.as_ref().is_err_and(over)).then_some(())
        })
        .await;
    }

    /// Has the bank behave.
    pub(crate) async fn bank(&self, behaviour: Value) {
        let answer = put(self.bank, "/control", &behaviour.to_string()).await;
        let taken = answer
            .as_deref()
            .is_some_and(|it| it.starts_with("HTTP/1.1 20"));
        assert!(taken, "{answer:?}");
    }

    /// Orders, and what was told of them.
    pub(crate) async fn news(&self) -> Result<Vec<(String, i32)>, Status> {
        let list = self.by(ListNotificationsRequest::default());
        let listed = self.notifications.clone().list_notifications(list).await?;
        let news = listed.into_inner().notifications.into_iter();
        Ok(news.map(|it| (it.order_id, it.kind)).collect())
    }

    /// The books as they are now.
    pub(crate) async fn books(&self) -> Option<Books> {
        self.books.look().await.ok()
    }

    /// The books once every order has come to rest, of which there are `placed`; they must be good.
    pub(crate) async fn settled(&self, placed: usize, whose: &str) -> Books {
        let books = self.books.settled(SOON).await;
        let books = books.unwrap_or_else(|error| panic!("{whose}: {}", chain(&error)));
        let faults = books.faults(Some(&self.shelves));
        assert!(faults.is_empty(), "{whose}: {faults:#?}");
        assert_eq!(placed, books.orders.len(), "{whose}");
        books
    }
}
