//! A customer of the shop, and its books: what people paid, what the bank took and what left the
//! shelves.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use gantry::client::Channel;
use gantry_harness::{
    process::{get, put},
    wait::{self, SOON},
};
use serde_json::Value;
use shop_proto::{
    accounts::v1::{LoginRequest, RegisterRequest, accounts_service_client::AccountsServiceClient},
    catalog::v1::{GetProductRequest, catalog_service_client::CatalogServiceClient},
    notifications::v1::{
        ListNotificationsRequest, notifications_service_client::NotificationsServiceClient,
    },
    orders::v1::{
        CancelOrderRequest, ListOrdersRequest, NewOrderLine, Order, OrderState, PlaceOrderRequest,
        orders_service_client::OrdersServiceClient,
    },
};
use tonic::{Code, Request, Status};

/// What everybody orders.
pub(crate) const SKU: &str = "TEA-EARL-GREY";

/// Who orders.
const EMAIL: &str = "ada@example.com";
const PASSWORD: &str = "correct horse";

/// All books of the shop at one moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Books {
    /// Orders: state, quantity and total.
    pub(crate) orders: BTreeMap<String, (OrderState, i64, i64)>,
    /// The bank's charges: what for, how much, and whether the money is there.
    pub(crate) charges: Vec<(String, i64, bool)>,
    /// Units that left the shelves.
    pub(crate) sold: i64,
}

impl Books {
    /// Whatever does not add up, in words; nothing where all does.
    pub(crate) fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut quantity_sold = 0;
        for (id, (state, quantity, total)) in &self.orders {
            let taken: Vec<_> = self
                .charges
                .iter()
                .filter(|(reference, _, taken)| reference == id && *taken)
                .map(|(_, amount, _)| *amount)
                .collect();
            let due: &[i64] = match state {
                OrderState::Confirmed => &[*total],
                _ => &[],
            };
            if taken != due {
                faults.push(format!("{id} is {state:?}: due {due:?}, taken {taken:?}"));
            }
            match state {
                OrderState::Confirmed => quantity_sold += quantity,
                OrderState::Cancelled => {}
                state => faults.push(format!("{id} is still {state:?}")),
            }
        }
        for (reference, amount, taken) in &self.charges {
            if *taken && !self.orders.contains_key(reference) {
                faults.push(format!(
                    "{amount} taken for {reference}, which nobody knows"
                ));
            }
        }
        if quantity_sold != self.sold {
            let sold = self.sold;
            faults.push(format!(
                "{quantity_sold} units confirmed, {sold} left the shelves"
            ));
        }
        faults
    }
}

/// Through whom the shop is reached.
#[derive(Debug, Clone)]
pub(crate) struct Doors {
    pub(crate) accounts: Channel,
    pub(crate) catalog: Channel,
    pub(crate) orders: Channel,
    pub(crate) bank: SocketAddr,
}

/// Somebody with an account.
#[derive(Debug, Clone)]
pub(crate) struct Customer {
    orders: OrdersServiceClient<Channel>,
    catalog: CatalogServiceClient<Channel>,
    notifications: NotificationsServiceClient<Channel>,
    bank: SocketAddr,
    token: String,
    /// Units there were at first.
    available: i64,
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
        let mut customer = Self::known(doors, 0).await;
        customer.available = customer.available().await.expect("a product");
        customer
    }

    /// The same person, where the shop is reached by other doors.
    pub(crate) async fn by_other(self, doors: Doors) -> Self {
        Self::known(doors, self.available).await
    }

    async fn known(doors: Doors, available: i64) -> Self {
        let (email, password) = (EMAIL.to_owned(), PASSWORD.to_owned());
        let mut accounts = AccountsServiceClient::new(doors.accounts);
        let login = accounts.login(LoginRequest { email, password }).await;
        Self {
            // With `up` one door leads to all of them.
            notifications: NotificationsServiceClient::new(doors.orders.clone()),
            orders: OrdersServiceClient::new(doors.orders),
            catalog: CatalogServiceClient::new(doors.catalog),
            bank: doors.bank,
            token: login.expect("a login").into_inner().token,
            available,
        }
    }

    fn by<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let token = format!("Bearer {}", self.token).parse().expect("a token");
        request.metadata_mut().insert("authorization", token);
        request
    }

    async fn available(&self) -> Result<i64, Status> {
        let sku = SKU.to_owned();
        let mut catalog = self.catalog.clone();
        let product = catalog.get_product(GetProductRequest { sku }).await?;
        let product = product.into_inner().product.expect("a product");
        Ok(product.available)
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

    pub(crate) async fn books(&self) -> Option<Books> {
        let list = ListOrdersRequest {
            page_size: 500,
            ..ListOrdersRequest::default()
        };
        let listed = self.orders.clone().list_orders(self.by(list)).await.ok()?;
        let answer = get(self.bank, "/ledger").await?;
        let ledger: Value = serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()?;
        let charges = ledger["charges"].as_array()?.iter().map(|charge| {
            let reference = charge["reference"]
                .as_str()
                .expect("a reference")
                .to_owned();
            let amount = charge["amount_minor_units"].as_i64().expect("an amount");
            (reference, amount, charge["state"] == "charged")
        });
        let orders = listed.into_inner().orders.into_iter().map(summed_up);
        Some(Books {
            orders: orders.collect(),
            charges: charges.collect(),
            sold: self.available - self.available().await.ok()?,
        })
    }

    /// The books once they add up and have `placed` orders; whatever is wrong with them is told if
    /// they do not soon.
    pub(crate) async fn settled(&self, placed: usize, whose: &str) -> Books {
        let begun = tokio::time::Instant::now();
        wait::until("the books", 2 * SOON, async || {
            let books = self.books().await?;
            let faults = books.faults();
            assert!(begun.elapsed() < SOON, "{whose}: {faults:#?}");
            (faults.is_empty() && books.orders.len() == placed).then_some(books)
        })
        .await
    }
}

fn summed_up(order: Order) -> (String, (OrderState, i64, i64)) {
    let quantity = order
        .lines
        .iter()
        .map(|line| i64::from(line.quantity))
        .sum();
    let total = order.total.as_ref().map_or(0, |total| total.minor_units);
    let state = order.state();
    (order.order_id, (state, quantity, total))
}
