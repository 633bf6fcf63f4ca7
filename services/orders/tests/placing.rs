//! Orders on their way, taken a step at a time and by several at once, over a catalog with a store
//! of its own.

// Helpers of tests fail like tests.
#![allow(clippy::unwrap_used)]

#[path = "placing/steps.rs"]
mod steps;

use std::{collections::BTreeSet, time::Duration};

use catalog::{
    domain::{Row, Sku, Stock, demand},
    handler::Catalog as Handler,
    store::{MIGRATIONS as CATALOG, Reserved, Store as CatalogStore},
};
use gantry::{
    BoxError,
    app::{App, Identity, testing::Service},
    config::Live,
};
use gantry_store::{Config, Database, Timestamp};
use orders::{
    catalog::Catalog,
    changes::Changes,
    config,
    domain::{CancelReason, Line, Order, OrderState},
    placing::Placing,
    store::{MIGRATIONS as ORDERS, Placed, Store},
};
use shop_proto::catalog::v1::catalog_service_server::{CatalogService, CatalogServiceServer};
use steps::{Held, Step, Stepped, Steps};
use tempfile::TempDir;
use tokio::{task::JoinSet, time};
use tokio_util::sync::CancellationToken;

const LIFETIME: Duration = Duration::from_mins(15);

fn identity(name: &'static str) -> Identity {
    Identity {
        name,
        version: "0.0.0",
        description: "a service inside a test",
    }
}

/// Orders over a catalog, each with a store.
struct Books {
    folder: TempDir,
    catalog: CatalogStore,
    store: Store,
    placing: Placing,
    service: Service,
}

impl Books {
    /// Books whose catalog answers through what `serve` makes of its rpcs.
    async fn open<S: CatalogService>(serve: impl FnOnce(Handler) -> S) -> Self {
        let folder = TempDir::new().unwrap();
        let file = |name: &str| Config::file(folder.path().join(name));
        let catalog = Database::open(&file("catalog.db"), CATALOG).await.unwrap();
        let catalog = CatalogStore::new(catalog);
        let store = Store::new(Database::open(&file("orders.db"), ORDERS).await.unwrap());

        let reservations = Live::fixed(catalog::config::Reservations::default());
        let handler = Handler::new(catalog.clone(), reservations, CancellationToken::new());
        let server = CatalogServiceServer::new(serve(handler));
        let start = async |app: &mut App<catalog::Config>| -> Result<(), BoxError> {
            app.serve(server);
            Ok(())
        };
        let service = Service::start(identity("catalog"), "", start)
            .await
            .unwrap();

        let config = Live::fixed(config::Orders::default());
        let client = Catalog::new(service.client());
        let placing = Placing::new(store.clone(), client, Changes::default(), config);
        Self {
            folder,
            catalog,
            store,
            placing,
            service,
        }
    }

    /// Books whose catalog takes a step when it is told to.
    async fn stepped() -> (Self, Steps) {
        let mut steps = None;
        let books = Self::open(|handler| {
            let (stepped, waiting) = Stepped::new(handler);
            steps = Some(waiting);
            stepped
        });
        (books.await, steps.unwrap())
    }

    /// Puts a product on the shelf, with no unit of it.
    async fn product(&self, sku: &str) {
        let row = Row {
            sku: sku.to_owned(),
            name: sku.to_owned(),
            price_minor_units: 499,
            currency_code: "EUR".to_owned(),
            ..Row::default()
        };
        let product = row.check().unwrap();
        self.catalog.import(&[product]).await.unwrap();
    }

    async fn deliver(&self, sku: &str, units: i64) {
        let sku = Sku::parse(sku).unwrap();
        self.catalog.adjust(&sku, units).await.unwrap();
    }

    async fn stock(&self, sku: &str) -> Stock {
        let sku = Sku::parse(sku).unwrap();
        self.catalog.get(&sku).await.unwrap().unwrap().stock
    }

    /// Writes down a new order for one unit.
    async fn place(&self, sku: &str) -> Order {
        self.place_units(sku, 1).await
    }

    async fn place_units(&self, sku: &str, quantity: i64) -> Order {
        let id = uuid::Uuid::now_v7().to_string();
        let line = Line {
            sku: sku.to_owned(),
            quantity,
            unit_price: None,
        };
        let order = Order::place(id, "ada", sku, vec![line], Timestamp::now());
        match self.store.place(order).await.unwrap() {
            Placed::New(order) => order,
            Placed::Known(order) => panic!("{order:?}"),
        }
    }

    async fn now(&self, order: &Order) -> Order {
        self.store.find(&order.id).await.unwrap().unwrap()
    }

    fn advance(&self, order: &Order, tasks: &mut JoinSet<()>) {
        let (placing, order) = (self.placing.clone(), order.clone());
        tasks.spawn(async move { placing.advance(&order).await.unwrap() });
    }
}

/// Goal: of two that place one order at once, the one that finds too little stock loses nothing
/// that the other has reserved, however far that one has come.
/// Method: one is answered that stock is short, a unit is delivered, and the other goes on; it is
/// held at each of its steps while the first cancels the order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shortage_gives_back_what_another_reserved() {
    use Step::{Confirm, Confirmed, Reserve, Reserved};
    let ways: [&[Step]; 4] = [
        &[Reserve],
        &[Reserve, Reserved],
        &[Reserve, Reserved, Confirm],
        &[Reserve, Reserved, Confirm, Confirmed],
    ];
    for way in ways {
        let (books, mut steps) = Books::stepped().await;
        books.product("TEA").await;
        let order = books.place("TEA").await;
        let (mut short, mut other) = (JoinSet::new(), JoinSet::new());

        books.advance(&order, &mut short);
        steps.pass(&[Reserve]).await;
        let unanswered: Held = steps.at(Reserved).await;
        books.deliver("TEA", 1).await;
        books.advance(&order, &mut other);
        let (last, passed) = way.split_last().unwrap();
        steps.pass(passed).await;
        let held = steps.at(*last).await;

        drop(unanswered);
        short.join_all().await;
        let cancelled = books.now(&order).await;
        assert_eq!(Some(CancelReason::OutOfStock), cancelled.cancel_reason);

        drop((held, steps));
        other.join_all().await;
        assert_eq!(OrderState::Cancelled, books.now(&order).await.state);
        let stock = books.stock("TEA").await;
        assert_eq!((1, 0), (stock.on_hand, stock.reserved), "held at {last:?}");
    }
}

/// Goal: however the advances of an order fall together, what is in stock and what is confirmed
/// make up what was delivered.
/// Method: two hundred orders for one unit each of a product of its own; two advances and the
/// delivery of that unit start at once, in a random order.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_unit_is_lost_between_two_advances() {
    let seed = u64::try_from(Timestamp::now().micros()).unwrap();
    let mut random = fastrand::Rng::with_seed(seed);
    let books = Books::open(|handler| handler).await;
    let mut orders = Vec::new();
    for at in 0..200 {
        let sku = format!("P-{at}");
        books.product(&sku).await;
        orders.push((books.place(&sku).await, sku));
    }
    let mut ends = BTreeSet::new();
    for (order, sku) in &orders {
        let mut tasks = JoinSet::new();
        let delivered_at = random.usize(0..3);
        for at in 0..3 {
            if at == delivered_at {
                let (catalog, sku) = (books.catalog.clone(), Sku::parse(sku).unwrap());
                tasks.spawn(async move {
                    catalog.adjust(&sku, 1).await.unwrap();
                });
            } else {
                books.advance(order, &mut tasks);
            }
        }
        tasks.join_all().await;
        let state = books.now(order).await.state;
        let stock = books.stock(sku).await;
        let confirmed = i64::from(state == OrderState::Confirmed);
        assert_eq!(
            (1, 0),
            (stock.on_hand + confirmed, stock.reserved),
            "{sku} is {state:?}, seed {seed}"
        );
        ends.insert(format!("{state:?}"));
    }
    let all = BTreeSet::from(["Cancelled".to_owned(), "Confirmed".to_owned()]);
    assert_eq!(all, ends, "both ways to end were taken, seed {seed}");
}

/// Goal: an order that the catalog will never take is given up at once, with nothing held for it.
/// Method: more in one line than the catalog takes, as only a mistake can write it down; then an
/// identifier that stands for other lines at the catalog.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_for_good_ends_the_order() {
    let books = Books::open(|handler| handler).await;
    books.product("TEA").await;
    books.deliver("TEA", 5_000).await;
    let too_much = books.place_units("TEA", 1_001).await;
    books.product("COFFEE").await;
    books.deliver("COFFEE", 5_000).await;
    let other = books.place("COFFEE").await;
    let lines = demand([(Sku::parse("COFFEE").unwrap(), 2)]);
    let (now, later) = (Timestamp::now(), Timestamp::now().after(LIFETIME));
    let reserved = books.catalog.reserve(&other.id, &lines, now, later).await;
    assert!(matches!(reserved, Ok(Reserved::Done(_))), "{reserved:?}");

    for (order, sku) in [(too_much, "TEA"), (other, "COFFEE")] {
        books.placing.advance(&order).await.unwrap();
        let order = books.now(&order).await;
        assert_eq!(OrderState::Cancelled, order.state, "{sku}");
        assert_eq!(Some(CancelReason::Refused), order.cancel_reason, "{sku}");
        let stock = books.stock(sku).await;
        assert_eq!((5_000, 0), (stock.on_hand, stock.reserved), "{sku}");
    }
}

/// Goal: while the catalog hangs, a few pending orders wait for it at once, and others are still
/// completed.
/// Method: an orders service over a catalog that lets nothing through, with many orders pending;
/// once it waits for several, one is confirmed whose time is over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hanging_catalog_holds_up_no_completion() {
    let (books, mut steps) = Books::stepped().await;
    for at in 0..90 {
        books.place(&format!("P-{at}")).await;
    }
    let path = books.folder.path().join("orders.db");
    let toml = format!(
        "[database]\nurl = 'sqlite:{}'\n[orders]\ncancel_window = '10ms'\n\
         pending_grace = '10ms'\nsweep_interval = '10ms'\n\
         [clients.catalog]\ntarget = '{}'\n[clients.accounts]\ntarget = '127.0.0.1:1'\n",
        path.display(),
        books.service.address(),
    );
    let service = Service::start(identity("orders"), &toml, orders::start).await;
    let mut held = Vec::new();
    let several = async {
        for _ in 0..8 {
            held.push(steps.at(Step::Reserve).await);
        }
    };
    // One after another, each would take its deadline of five seconds.
    time::timeout(Duration::from_secs(20), several)
        .await
        .unwrap();

    let order = books.place("LATE").await;
    let confirmed = books.store.confirm(&order.id, &[], Timestamp::now()).await;
    assert!(confirmed.unwrap());
    let completed = async {
        while books.now(&order).await.state != OrderState::Completed {
            tokio::task::yield_now().await;
        }
    };
    time::timeout(Duration::from_secs(20), completed)
        .await
        .unwrap();
    drop((held, steps));
    service.unwrap().stop().await;
}
