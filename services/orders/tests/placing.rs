//! Orders on their way, taken a step at a time and by several at once, over a catalog with a store
//! of its own.

// Helpers of tests fail like tests.
#![allow(clippy::unwrap_used)]

#[path = "placing/claims.rs"]
mod claims;
#[path = "placing/patience.rs"]
mod patience;
#[path = "placing/steps.rs"]
mod steps;

use std::{collections::BTreeSet, time::Duration};

use bank::store::{MIGRATIONS as BANK, Store as BankStore};
use catalog::{
    domain::{Row, Sku, Stock, demand},
    handler::Catalog as CatalogHandler,
    store::{MIGRATIONS as CATALOG, Reserved, Store as CatalogStore},
};
use gantry::{
    BoxError,
    app::{App, Identity, testing::Service},
    config::{Live, Publisher},
    journal::Journal,
    shutdown::Tasks,
};
use gantry_events::Outbox;
use gantry_harness::database::Place;
use gantry_store::{Config, Database, Timestamp};
use orders::{
    catalog::Catalog,
    changes::Changes,
    config,
    domain::{CancelReason, Line, Order, OrderState},
    payments::Payments,
    placing::{Cancelled, Others, Placing},
    store::{Claim, MIGRATIONS as ORDERS, Placed, Step as Move, Store},
};
use payments::{
    handler::Payments as PaymentsHandler,
    store::{MIGRATIONS as PAYMENTS, Store as PaymentsStore},
};
use shop_proto::{
    catalog::v1::catalog_service_server::{CatalogService, CatalogServiceServer},
    payments::v1::payments_service_server::{PaymentsService, PaymentsServiceServer},
};
use steps::{Step, Steps};
use tokio::{task::JoinSet, time};
use tokio_util::sync::CancellationToken;

gantry_harness::on_both!(
    another_finishes_what_one_began,
    a_cancelled_order_keeps_nothing,
    a_shortage_of_yesterday_undoes_nothing,
    no_unit_is_lost_between_two_advances,
    a_refusal_for_good_ends_the_order,
    a_hanging_catalog_holds_up_no_completion,
);

const LIFETIME: Duration = Duration::from_mins(15);

/// Of every product.
const PRICE: i64 = 499;

fn identity(name: &'static str) -> Identity {
    Identity {
        name,
        version: "0.0.0",
        description: "a service inside a test",
    }
}

/// Orders over a catalog and payments, each with a store.
struct Books {
    place: Place,
    catalog: CatalogStore,
    bank: BankStore,
    store: Store,
    placing: Placing,
    /// The catalog and payments as they are called.
    service: Service,
    /// How payments call the bank.
    settings: Publisher<payments::config::Bank>,
    _bank: Service,
}

impl Books {
    /// Books whose others answer through what `serve` makes of their rpcs.
    async fn open<C: CatalogService, P: PaymentsService>(
        place: Place,
        serve: impl FnOnce(CatalogHandler, PaymentsHandler) -> (C, P),
    ) -> Self {
        let at = |name: &str| Config {
            url: place.url_of(name).parse().unwrap(),
            ..Config::default()
        };
        let catalog = Database::open(&at("catalog"), CATALOG).await.unwrap();
        let catalog = CatalogStore::new(catalog);
        let database = Database::open(&at("orders"), ORDERS).await.unwrap();
        let outbox = Outbox::open(&database, "orders").await.unwrap();
        let store = Store::new(database, outbox);
        let toml = format!("[database]\nurl = '{}'\n", place.url_of("bank"));
        let bank_service = Service::start(identity("bank"), &toml, bank::start)
            .await
            .unwrap();
        let bank = BankStore::new(Database::open(&at("bank"), BANK).await.unwrap());

        let reservations = Live::fixed(catalog::config::Reservations::default());
        let handler = CatalogHandler::new(catalog.clone(), reservations, CancellationToken::new());
        let payments = Database::open(&at("payments"), PAYMENTS).await.unwrap();
        let settings = Publisher::new(payments::config::Bank {
            url: format!("http://{}", bank_service.address()),
            ..payments::config::Bank::default()
        });
        let (live, journal) = (settings.live(), Journal::new());
        let tasks = Tasks::new(journal.clone());
        let breaker = live.map(|bank| &bank.breaker);
        let breaker = gantry::breaker::Breaker::new("bank", breaker, journal);
        let money = payments::bank::Bank::new(live, tasks, breaker).unwrap();
        let money = PaymentsHandler::new(PaymentsStore::new(payments), money);
        let (stock, money) = serve(handler, money);
        let start = async |app: &mut App<catalog::Config>| -> Result<(), BoxError> {
            app.serve(CatalogServiceServer::new(stock));
            app.serve(PaymentsServiceServer::new(money));
            Ok(())
        };
        let service = Service::start(identity("others"), "", start).await.unwrap();

        let config = Live::fixed(config::Orders::default());
        let others = Others {
            catalog: Catalog::new(service.client()),
            payments: Payments::new(service.client()),
        };
        let placing = Placing::new(store.clone(), others, Changes::default(), config);
        Self {
            place,
            catalog,
            bank,
            store,
            placing,
            service,
            settings,
            _bank: bank_service,
        }
    }

    /// Books whose others take a step when they are told to.
    async fn stepped(place: Place) -> (Self, Steps) {
        let mut steps = None;
        let books = Self::open(place, |catalog, payments| {
            let (catalog, payments, waiting) = Steps::of(catalog, payments);
            steps = Some(waiting);
            (catalog, payments)
        });
        (books.await, steps.unwrap())
    }

    /// Puts a product on the shelf, with no unit of it.
    async fn product(&self, sku: &str) {
        self.product_for(sku, PRICE).await;
    }

    async fn product_for(&self, sku: &str, price_minor_units: i64) {
        let row = Row {
            sku: sku.to_owned(),
            name: sku.to_owned(),
            price_minor_units,
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

    /// What the bank has taken and not given back.
    async fn taken(&self) -> i64 {
        let totals = self.bank.totals().await.unwrap();
        totals.iter().map(|total| total.amount_minor_units).sum()
    }

    /// Writes down a new order for one unit.
    async fn place(&self, sku: &str) -> (Order, Claim) {
        self.place_units(sku, 1).await
    }

    async fn place_units(&self, sku: &str, quantity: i64) -> (Order, Claim) {
        let id = uuid::Uuid::now_v7().to_string();
        let line = Line {
            sku: sku.to_owned(),
            quantity,
            unit_price: None,
        };
        let order = Order::place(id, "ada", sku, vec![line], Timestamp::now());
        match self.placing.place(order).await.unwrap() {
            Placed::New(order, claim) => (order, claim),
            Placed::Known(order) => panic!("{order:?}"),
        }
    }

    async fn now(&self, order: &Order) -> Order {
        self.store.find(&order.id).await.unwrap().unwrap()
    }

    fn advance(&self, order: &Order, claim: &Claim, tasks: &mut JoinSet<()>) {
        let (placing, order, claim) = (self.placing.clone(), order.clone(), claim.clone());
        tasks.spawn(async move { placing.advance(order, claim).await.unwrap() });
    }

    /// The claim of another, who comes when the last one's is over.
    async fn claim_late(&self, order: &Order) -> Option<Claim> {
        let late = Timestamp::now().after(LIFETIME);
        let claim = self.store.claim(&order.id, late, late.after(LIFETIME));
        claim.await.unwrap()
    }
}

/// Every step of an order, in order.
const STEPS: [Step; 6] = [
    Step::Reserve,
    Step::Reserved,
    Step::Charge,
    Step::Charged,
    Step::Confirm,
    Step::Confirmed,
];

/// Goal: whoever stops or is overtaken in the midst of an order loses nothing and doubles nothing.
/// Method: the first is held at each step, then dropped or left to go on late; another takes the
/// order over and finishes it.
async fn another_finishes_what_one_began(place: Place) {
    for (at, last) in STEPS.into_iter().enumerate() {
        for dropped in [true, false] {
            let (books, mut steps) = Books::stepped(place.another()).await;
            books.product("TEA").await;
            books.deliver("TEA", 1).await;
            let (order, claim) = books.place("TEA").await;
            let mut first = JoinSet::new();
            books.advance(&order, &claim, &mut first);
            steps.pass(&STEPS[..at]).await;
            let held = steps.at(last).await;
            if dropped {
                first.shutdown().await;
            }
            let claim = books.claim_late(&order).await.unwrap();
            assert_eq!(
                None,
                books
                    .store
                    .claim(&order.id, Timestamp::now(), Timestamp::now())
                    .await
                    .unwrap()
            );
            let order = books.now(&order).await;
            let (placing, taken_over) = (books.placing.clone(), order.clone());
            let mut second = JoinSet::new();
            second.spawn(async move { placing.advance(taken_over, claim).await.unwrap() });
            // From here on everything passes, as it comes.
            let mut passing = JoinSet::new();
            passing.spawn(async move { while steps.any().await {} });
            second.join_all().await;
            drop(held);
            first.join_all().await;
            drop(passing);
            let order = books.now(&order).await;
            assert_eq!(OrderState::Confirmed, order.state, "{last:?} {dropped}");
            let stock = books.stock("TEA").await;
            assert_eq!(
                (0, 0),
                (stock.on_hand, stock.reserved),
                "{last:?} {dropped}"
            );
            assert_eq!(PRICE, books.taken().await, "{last:?} {dropped}");
            // Placed, and a row for each step it made, by whomever.
            assert_eq!(4, order.version, "{last:?} {dropped}");
        }
    }
}

/// Goal: an order that is cancelled while somebody works at it gives everything back, however far
/// that one has come, and whatever of it still arrives.
/// Method: held at each step while the order is cancelled, then let go on.
async fn a_cancelled_order_keeps_nothing(place: Place) {
    for (at, last) in STEPS.into_iter().enumerate() {
        let (books, mut steps) = Books::stepped(place.another()).await;
        books.product("TEA").await;
        books.deliver("TEA", 1).await;
        let (order, claim) = books.place("TEA").await;
        let mut first = JoinSet::new();
        books.advance(&order, &claim, &mut first);
        steps.pass(&STEPS[..at]).await;
        let held = steps.at(last).await;
        assert_eq!(Cancelled::Done, books.placing.cancel(&order).await.unwrap());
        drop((held, steps));
        first.join_all().await;
        let order = books.now(&order).await;
        assert_eq!(OrderState::Cancelled, order.state, "{last:?}");
        assert_eq!(Some(CancelReason::Requested), order.cancel_reason);
        let stock = books.stock("TEA").await;
        assert_eq!((1, 0), (stock.on_hand, stock.reserved), "{last:?}");
        assert_eq!(0, books.taken().await, "{last:?}");
        assert_eq!(
            None,
            books.claim_late(&order).await,
            "{last:?}: it is settled"
        );
    }
}

/// Goal: one that finds too little stock, and is overtaken, undoes nothing of what the other did.
/// Method: one is answered that stock is short, a unit is delivered, and another takes over.
async fn a_shortage_of_yesterday_undoes_nothing(place: Place) {
    let (books, mut steps) = Books::stepped(place).await;
    books.product("TEA").await;
    let (order, claim) = books.place("TEA").await;
    let mut first = JoinSet::new();
    books.advance(&order, &claim, &mut first);
    steps.pass(&[Step::Reserve]).await;
    let unanswered = steps.at(Step::Reserved).await;
    books.deliver("TEA", 1).await;
    let claim = books.claim_late(&order).await.unwrap();
    let mut second = JoinSet::new();
    books.advance(&order, &claim, &mut second);
    steps.pass(&STEPS).await;
    second.join_all().await;
    drop((unanswered, steps));
    first.join_all().await;
    assert_eq!(OrderState::Confirmed, books.now(&order).await.state);
    let stock = books.stock("TEA").await;
    assert_eq!((0, 0), (stock.on_hand, stock.reserved));
}

/// Goal: however the advances of an order fall together, what is in stock and what is confirmed
/// make up what was delivered, and what is confirmed is paid.
/// Method: two hundred orders for one unit each of a product of its own; two advances under claims
/// of their own and the delivery of that unit start at once, in a random order, or the delivery is
/// made before them or after, so that both ends come about whatever falls together.
async fn no_unit_is_lost_between_two_advances(place: Place) {
    let seed = u64::try_from(Timestamp::now().micros()).unwrap();
    let mut random = fastrand::Rng::with_seed(seed);
    let books = Books::open(place, |catalog, payments| (catalog, payments)).await;
    let mut orders = Vec::new();
    for at in 0..200 {
        let sku = format!("P-{at}");
        books.product(&sku).await;
        orders.push((books.place(&sku).await, sku));
    }
    let mut ends = BTreeSet::new();
    let mut confirmed_count = 0;
    for ((order, claim), sku) in &orders {
        let mut tasks = JoinSet::new();
        let late = books.claim_late(order).await.unwrap();
        let mut claims = [claim, &late].into_iter();
        let (catalog, parsed) = (books.catalog.clone(), Sku::parse(sku).unwrap());
        let mut delivery = Some(async move {
            catalog.adjust(&parsed, 1).await.unwrap();
        });
        let delivered_at = random.usize(0..5);
        if delivered_at == 3 {
            delivery.take().unwrap().await;
        }
        for at in 0..3 {
            if at == delivered_at {
                tasks.spawn(delivery.take().unwrap());
            } else if let Some(claim) = claims.next() {
                books.advance(order, claim, &mut tasks);
            }
        }
        tasks.join_all().await;
        if let Some(delivery) = delivery {
            delivery.await;
        }
        let state = books.now(order).await.state;
        let stock = books.stock(sku).await;
        let confirmed = i64::from(state == OrderState::Confirmed);
        confirmed_count += confirmed;
        assert_eq!(
            (1, 0),
            (stock.on_hand + confirmed, stock.reserved),
            "{sku} is {state:?}, seed {seed}"
        );
        ends.insert(format!("{state:?}"));
    }
    let all = BTreeSet::from(["Cancelled".to_owned(), "Confirmed".to_owned()]);
    assert_eq!(all, ends, "both ways to end were taken, seed {seed}");
    assert_eq!(confirmed_count * PRICE, books.taken().await, "seed {seed}");
}

/// Goal: an order that the catalog will never take is given up at once, with nothing held for it.
/// Method: more in one line than the catalog takes, as only a mistake can write it down; then an
/// identifier that stands for other lines at the catalog.
async fn a_refusal_for_good_ends_the_order(place: Place) {
    let books = Books::open(place, |catalog, payments| (catalog, payments)).await;
    books.product("TEA").await;
    books.deliver("TEA", 5_000).await;
    let too_much = books.place_units("TEA", 1_001).await;
    books.product("COFFEE").await;
    books.deliver("COFFEE", 5_000).await;
    let other = books.place("COFFEE").await;
    let lines = demand([(Sku::parse("COFFEE").unwrap(), 2)]);
    let (now, later) = (Timestamp::now(), Timestamp::now().after(LIFETIME));
    let reserved = books.catalog.reserve(&other.0.id, &lines, now, later).await;
    assert!(matches!(reserved, Ok(Reserved::Done(_))), "{reserved:?}");

    for ((order, claim), sku) in [(too_much, "TEA"), (other, "COFFEE")] {
        books.placing.advance(order.clone(), claim).await.unwrap();
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
async fn a_hanging_catalog_holds_up_no_completion(place: Place) {
    let (books, mut steps) = Books::stepped(place).await;
    for at in 0..90 {
        let (_, claim) = books.place(&format!("P-{at}")).await;
        books
            .store
            .put_off(&claim, 0, Timestamp::now())
            .await
            .unwrap();
    }
    let toml = format!(
        "[database]\nurl = '{1}'\n[orders]\ncancel_window = '10ms'\n\
         retry_pause = '10ms'\nlease = '20s'\nsweep_interval = '10ms'\n\
         [clients.catalog]\ntarget = '{0}'\n[clients.payments]\ntarget = '{0}'\n\
         [clients.accounts]\ntarget = '127.0.0.1:1'\n",
        books.service.address(),
        books.place.url_of("orders"),
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

    let (order, claim) = books.place("LATE").await;
    let confirmed = Move {
        from: OrderState::Pending,
        to: OrderState::Confirmed,
        money_held: true,
    };
    let confirmed = books.store.step(&claim, confirmed, &[], Timestamp::now());
    assert!(confirmed.await.unwrap());
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
