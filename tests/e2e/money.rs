//! What people pay and get while processes are killed.

use std::{cell::Cell, rc::Rc, time::Duration};

use gantry_harness::{postgres::Postgres, process::pid, system::System, tools};
use rustix::process::Signal;
use shop_audit::{Places, State};
use tokio::{
    task::{JoinSet, LocalSet},
    time,
};

use crate::{
    shop::{Customer, Doors},
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
        let customer = Customer::of(doors(&system, arguments)).await;
        Self { system, customer }
    }

    /// The same shop, opened again once it was closed.
    pub(crate) async fn again(self, arguments: &[&str]) -> Self {
        let system = self.system.again(arguments);
        let customer = self.customer.by_other(doors(&system, arguments)).await;
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

/// Through the gateway, but for the bank, which is somebody else's, and for the books.
fn doors(system: &System, arguments: &[&str]) -> Doors {
    let address = |name: &str| system.address(name).parse().expect("an address");
    let gateway = channel(&[address("gateway")]);
    let bank = system.address("bank").parse().expect("an address");
    let given = |pair: &&[&str]| pair[0] == "--database";
    let books = match arguments.windows(2).find(given) {
        Some(database) => {
            let url = database[1].parse().expect("a database");
            Places::in_database(&url, bank).expect("a server")
        }
        None => Places::in_folder(&system.folder().join(".gantry/data"), bank),
    };
    Doors {
        accounts: gateway.clone(),
        orders: gateway,
        bank: address("bank"),
        books,
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
    let confirmed = orders.filter(|it| it.state == State::Confirmed).count();
    eprintln!("seed {seed}: {confirmed} of {placed} orders confirmed, {restarts} processes killed");
    assert!((1..placed).contains(&confirmed), "seed {seed}: {confirmed}");
    assert!(restarts >= 2, "seed {seed}: {restarts}");
}
