//! What people pay and get while processes are killed.

use std::{cell::Cell, collections::BTreeMap, rc::Rc, time::Duration};

use gantry_harness::{postgres::Postgres, process::pid, system::System, tools};
use rustix::process::Signal;
use shop_proto::orders::v1::OrderState;
use tokio::{
    task::{JoinSet, LocalSet},
    time,
};

use crate::{
    shop::{Books, Customer, Doors},
    support::channel,
};

/// People who order at once.
const SHOPPERS: usize = 6;

/// One order in so many is cancelled as soon as it is placed.
const REGRETTED: usize = 8;

/// Kills of one run.
const KILLS: usize = 5;

/// The shop under `gantry up`, called through the gateway.
pub(crate) struct Shop {
    pub(crate) system: System,
    pub(crate) customer: Customer,
}

impl Shop {
    pub(crate) async fn open(arguments: &[&str]) -> Self {
        let system = System::up(arguments);
        let customer = Customer::of(doors(&system)).await;
        Self { system, customer }
    }

    /// The same shop, opened again once it was closed.
    pub(crate) async fn again(self, arguments: &[&str]) -> Self {
        let system = self.system.again(arguments);
        let customer = self.customer.by_other(doors(&system)).await;
        Self { system, customer }
    }

    /// Places an order, and perhaps regrets it.
    async fn shop(&self, number: usize) {
        let order = self.customer.order(number).await;
        if number.is_multiple_of(REGRETTED) {
            self.customer.regret(&order).await;
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
}

/// Through the gateway, but for the bank, which is somebody else's.
fn doors(system: &System) -> Doors {
    let address = |name: &str| system.address(name).parse().expect("an address");
    let gateway = channel(&[address("gateway")]);
    Doors {
        accounts: gateway.clone(),
        catalog: gateway.clone(),
        orders: gateway,
        bank: address("bank"),
    }
}

/// Goal: whatever is killed while people order, every order is confirmed or cancelled soon after,
/// the bank has taken what was confirmed and nothing else, and so have the shelves lost.
/// Method: people who order at once through the gateway and ask again where nobody answers, some of
/// whom regret it; kill -9 of orders and payments in their midst, by a random seed.
#[tokio::test(flavor = "multi_thread")]
async fn no_kill_costs_anybody_anything() {
    let runs = if tools::timed() { 20 } else { 3 };
    for _ in 0..runs {
        killing(&[]).await;
    }
}

/// Goal: the same where the books are in PostgreSQL.
/// Method: a server for each run.
#[tokio::test(flavor = "multi_thread")]
async fn no_kill_costs_anybody_anything_on_postgres() {
    let runs = if tools::timed() { 20 } else { 1 };
    for _ in 0..runs {
        let Some(server) = Postgres::start().await else {
            return;
        };
        killing(&["--database", &server.url()]).await;
    }
}

async fn killing(arguments: &[&str]) {
    let seed = fastrand::u64(..);
    let arguments = [arguments, &["--replicas", "payments=2"]].concat();
    LocalSet::new().run_until(killed_by(seed, &arguments)).await;
}

async fn killed_by(seed: u64, arguments: &[&str]) {
    let mut random = fastrand::Rng::with_seed(seed);
    let shop = Rc::new(Shop::open(arguments).await);
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
    let whose = format!("seed {seed}");
    let books = shop.customer.settled(placed, &whose).await;
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
