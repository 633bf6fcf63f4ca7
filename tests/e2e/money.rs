//! What people paid, what the bank took and what left the shelves, while processes are killed.

use std::{cell::Cell, collections::BTreeMap, rc::Rc, time::Duration};

use gantry_harness::{
    process::{get, pid},
    system::System,
    tools,
    wait::{self, SOON},
};
use rustix::process::Signal;
use serde_json::Value;
use shop_proto::{
    accounts::v1::{LoginRequest, RegisterRequest, accounts_service_client::AccountsServiceClient},
    catalog::v1::{GetProductRequest, catalog_service_client::CatalogServiceClient},
    orders::v1::{
        CancelOrderRequest, ListOrdersRequest, NewOrderLine, Order, OrderState, PlaceOrderRequest,
        orders_service_client::OrdersServiceClient,
    },
};
use tokio::{
    task::{JoinSet, LocalSet},
    time::{self, Instant},
};
use tonic::{Code, Request, Status};

use crate::support::channel;

/// What everybody orders.
const SKU: &str = "TEA-EARL-GREY";

/// People who order at once.
const SHOPPERS: usize = 6;

/// One order in so many is cancelled as soon as it is placed.
const REGRETTED: usize = 8;

/// Kills of one run.
const KILLS: usize = 5;

/// All books of the shop at one moment.
#[derive(Debug, Clone, Default)]
struct Books {
    /// Orders: state, quantity and total.
    orders: BTreeMap<String, (OrderState, i64, i64)>,
    /// The bank's charges: what for, how much, and whether the money is there.
    charges: Vec<(String, i64, bool)>,
    /// Units that left the shelves.
    sold: i64,
}

impl Books {
    /// Whatever does not add up, in words; nothing where all does.
    fn faults(&self) -> Vec<String> {
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

/// The shop under `gantry up`, called through the gateway.
struct Shop {
    system: System,
    orders: OrdersServiceClient<gantry::client::Channel>,
    catalog: CatalogServiceClient<gantry::client::Channel>,
    token: String,
    available: i64,
}

impl Shop {
    async fn open() -> Self {
        let system = System::up(&["--replicas", "payments=2"]);
        let gateway = channel(&[system.address("gateway").parse().expect("an address")]);
        let mut accounts = AccountsServiceClient::new(gateway.clone());
        let (email, password) = ("ada@example.com".to_owned(), "correct horse".to_owned());
        let register = RegisterRequest {
            email: email.clone(),
            password: password.clone(),
            display_name: String::new(),
        };
        accounts.register(register).await.expect("an account");
        let login = accounts.login(LoginRequest { email, password }).await;
        let mut shop = Self {
            system,
            orders: OrdersServiceClient::new(gateway.clone()),
            catalog: CatalogServiceClient::new(gateway),
            token: login.expect("a login").into_inner().token,
            available: 0,
        };
        shop.available = shop.available().await.expect("a product");
        shop
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

    /// Places an order, asking again until somebody answers, and perhaps regrets it.
    async fn shop(&self, number: usize) {
        let request = || PlaceOrderRequest {
            request_id: format!("order-{number}"),
            lines: vec![NewOrderLine {
                sku: SKU.to_owned(),
                quantity: i32::try_from(number % 3 + 1).expect("small"),
            }],
        };
        let order = wait::until("an order to be taken", SOON, async || {
            let placed = self.orders.clone().place_order(self.by(request())).await;
            Some(placed.ok()?.into_inner().order.expect("an order"))
        });
        let order_id = order.await.order_id;
        if number.is_multiple_of(REGRETTED) {
            wait::until("an order to be cancelled", SOON, async || {
                let cancel = CancelOrderRequest {
                    order_id: order_id.clone(),
                };
                let cancelled = self.orders.clone().cancel_order(self.by(cancel)).await;
                let over = |status: &Status| status.code() == Code::FailedPrecondition;
                (cancelled.is_ok() || cancelled.as_ref().is_err_and(over)).then_some(())
            })
            .await;
        }
    }

    /// Kills one process of orders or payments, as if it had crashed.
    fn kill(&self, random: &mut fastrand::Rng) {
        let victims: Vec<_> = self.system.instances();
        let victims = victims
            .iter()
            .filter(|it| it.name == "orders" || it.name == "payments");
        let victims: Vec<_> = victims.filter_map(|it| it.pid).collect();
        if !victims.is_empty() {
            let victim = victims[random.usize(..victims.len())];
            // It may have been killed before.
            let _ = rustix::process::kill_process(pid(victim), Signal::KILL);
        }
    }

    async fn books(&self) -> Option<Books> {
        let list = ListOrdersRequest {
            page_size: 500,
            ..ListOrdersRequest::default()
        };
        let listed = self.orders.clone().list_orders(self.by(list)).await.ok()?;
        let bank = self.system.address("bank").parse().expect("an address");
        let answer = get(bank, "/ledger").await?;
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

/// Goal: whatever is killed while people order, every order is confirmed or cancelled soon after,
/// the bank has taken what was confirmed and nothing else, and so have the shelves lost.
/// Method: people who order at once through the gateway and ask again where nobody answers, some of
/// whom regret it; kill -9 of orders and payments in their midst, by a random seed.
#[tokio::test(flavor = "multi_thread")]
async fn no_kill_costs_anybody_anything() {
    let runs = if tools::timed() { 20 } else { 2 };
    for _ in 0..runs {
        let seed = fastrand::u64(..);
        LocalSet::new().run_until(killing(seed)).await;
    }
}

async fn killing(seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let shop = Rc::new(Shop::open().await);
    let (next, over) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(false)));
    let mut shoppers = JoinSet::new();
    for _ in 0..SHOPPERS {
        let (shop, next, over) = (shop.clone(), next.clone(), over.clone());
        shoppers.spawn_local(async move {
            while !over.get() {
                shop.shop(next.replace(next.get() + 1)).await;
            }
        });
    }
    for _ in 0..KILLS {
        // A moment in which orders are on their way, and a process that was killed comes back.
        time::sleep(Duration::from_millis(random.u64(100..1_000))).await;
        shop.kill(&mut random);
    }
    over.set(true);
    shoppers.join_all().await;
    let placed = next.get();
    let begun = Instant::now();
    let settled = wait::until("the books", 2 * SOON, async || {
        let books = shop.books().await?;
        let faults = books.faults();
        assert!(begun.elapsed() < SOON, "seed {seed}: {faults:#?}");
        (faults.is_empty() && books.orders.len() == placed).then_some(books)
    });
    let books = settled.await;
    let restarts: u64 = shop.system.instances().iter().map(|it| it.restarts).sum();
    let orders = books.orders.values();
    let confirmed = orders.filter(|it| it.0 == OrderState::Confirmed).count();
    eprintln!("seed {seed}: {confirmed} of {placed} orders confirmed, {restarts} processes killed");
    assert!((1..placed).contains(&confirmed), "seed {seed}: {confirmed}");
    assert!(restarts >= 2, "seed {seed}: {restarts}");
}

/// A mistake.
type Spoil = fn(&mut Books);

/// Goal: the books are found wrong where they are.
/// Method: good ones, then each kind of mistake planted.
#[test]
fn planted_faults_are_found() {
    let order = |id: &str, state| (id.to_owned(), (state, 2, 1_780));
    let good = Books {
        orders: BTreeMap::from([
            order("a", OrderState::Confirmed),
            order("b", OrderState::Cancelled),
        ]),
        charges: vec![
            ("a".to_owned(), 1_780, true),
            ("b".to_owned(), 1_780, false),
        ],
        sold: 2,
    };
    assert_eq!(Vec::<String>::new(), good.faults());
    let spoilt = |spoil: Spoil| {
        let mut books = good.clone();
        spoil(&mut books);
        books.faults()
    };
    let cases: [(Spoil, &str); 6] = [
        (
            |it| it.charges.push(("a".to_owned(), 1_780, true)),
            "taken [1780, 1780]",
        ),
        (|it| it.charges[0].1 = 1, "taken [1]"),
        (|it| it.charges[0].2 = false, "taken []"),
        (|it| it.charges[1].2 = true, "b is Cancelled: due []"),
        (
            |it| it.charges.push(("c".to_owned(), 1, true)),
            "nobody knows",
        ),
        (|it| it.sold = 3, "3 left the shelves"),
    ];
    for (spoil, words) in cases {
        let faults = spoilt(spoil);
        assert!(
            faults.iter().any(|it| it.contains(words)),
            "{words}: {faults:?}"
        );
    }
}
