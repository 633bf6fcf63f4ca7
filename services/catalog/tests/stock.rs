//! Stock and reservations in databases of each engine, from several pools at once.

// Helpers of tests fail like tests.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use catalog::{
    domain::{Demand, Product, ReservationState, Row, Shortage, Sku, Stock, demand},
    store::{Adjusted, Confirmed, Imported, MIGRATIONS, Reserved, Store},
};
use gantry_harness::database::Place;
use gantry_store::{Config, Database, Page, Timestamp};
use tokio::task::JoinSet;

gantry_harness::on_both!(
    no_unit_is_promised_twice,
    the_last_units_go_to_as_many_as_there_are,
    a_short_reservation_holds_nothing,
    repeated_steps_count_once,
    a_release_may_come_first,
    held_stock_goes_back_in_time,
    imports_update_and_keep_the_stock,
    stock_stays_in_range,
    pages_survive_new_products,
);

const LIFETIME: Duration = Duration::from_mins(15);

/// Stores over one file, as replicas have them.
struct Replicas {
    _place: Place,
    stores: Vec<Store>,
}

impl Replicas {
    async fn open(place: Place, count: usize) -> Self {
        let config = Config {
            url: place.url().parse().unwrap(),
            ..Config::default()
        };
        let mut stores = Vec::new();
        for _ in 0..count {
            let database = Database::open(&config, MIGRATIONS).await.unwrap();
            stores.push(Store::new(database));
        }
        Self {
            _place: place,
            stores,
        }
    }

    /// With `units` of each of these products.
    async fn stocked(place: Place, count: usize, skus: &[&str], units: i64) -> Self {
        let replicas = Self::open(place, count).await;
        let products: Vec<Product> = skus.iter().map(|sku| product(sku, units)).collect();
        replicas.stores[0].import(&products).await.unwrap();
        replicas
    }

    fn one(&self) -> &Store {
        &self.stores[0]
    }

    async fn stock(&self, sku: &str) -> Stock {
        let sku = Sku::parse(sku).unwrap();
        self.one().get(&sku).await.unwrap().unwrap().stock
    }
}

fn product(sku: &str, units: i64) -> Product {
    let row = Row {
        sku: sku.to_owned(),
        name: format!("Product {sku}"),
        description: String::new(),
        price_minor_units: 499,
        currency_code: "EUR".to_owned(),
        initial_stock: units,
    };
    row.check().unwrap()
}

fn wish(lines: &[(&str, i64)]) -> Demand {
    demand(lines.iter().map(|(sku, n)| (Sku::parse(sku).unwrap(), *n)))
}

fn stock(on_hand: i64, reserved: i64) -> Stock {
    Stock { on_hand, reserved }
}

async fn reserve(store: &Store, id: &str, lines: &[(&str, i64)]) -> Reserved {
    let now = Timestamp::now();
    let reserved = store
        .reserve(id, &wish(lines), now, now.after(LIFETIME))
        .await;
    reserved.unwrap()
}

async fn confirm(store: &Store, id: &str) -> Confirmed {
    store.confirm(id, Timestamp::now()).await.unwrap()
}

async fn release(store: &Store, id: &str) {
    store.release(id, Timestamp::now()).await.unwrap();
}

/// Goal: however many reserve at once, over however many replicas, no unit is promised twice and
/// none is lost.
/// Method: three pools; sixty tasks each want one to three units of two products with fifty each;
/// a third of them confirm, a third release. At the end the books balance.
async fn no_unit_is_promised_twice(place: Place) {
    let replicas = Replicas::stocked(place, 3, &["A", "B"], 50).await;
    let mut tasks = JoinSet::new();
    for (task, store) in (0..60_i64).zip(replicas.stores.iter().cycle().cloned()) {
        tasks.spawn(async move {
            let (id, units) = (format!("r{task}"), 1 + task % 3);
            match reserve(&store, &id, &[("A", units), ("B", units)]).await {
                Reserved::Short(_) => return (0, 0),
                Reserved::Done(_) => {}
                other => panic!("{other:?}"),
            }
            match task % 9 {
                0..=2 => {
                    assert!(matches!(confirm(&store, &id).await, Confirmed::Done(_)));
                    (0, units)
                }
                3..=5 => {
                    release(&store, &id).await;
                    (0, 0)
                }
                _ => (units, 0),
            }
        });
    }
    let (mut held, mut taken) = (0, 0);
    for (more_held, more_taken) in tasks.join_all().await {
        held += more_held;
        taken += more_taken;
    }
    assert!(held > 0 && taken > 0, "{held} {taken}");
    for sku in ["A", "B"] {
        assert_eq!(stock(50 - taken, held), replicas.stock(sku).await, "{sku}");
    }
}

/// Goal: when more is wanted than there is, exactly what there is is given.
/// Method: two pools, forty tasks race for ten single units.
async fn the_last_units_go_to_as_many_as_there_are(place: Place) {
    let replicas = Replicas::stocked(place, 2, &["A"], 10).await;
    let mut tasks = JoinSet::new();
    for (task, store) in (0..40).zip(replicas.stores.iter().cycle().cloned()) {
        tasks.spawn(async move {
            let reserved = reserve(&store, &format!("r{task}"), &[("A", 1)]).await;
            matches!(reserved, Reserved::Done(_))
        });
    }
    let given = tasks.join_all().await.into_iter().filter(|given| *given);
    assert_eq!(10, given.count());
    assert_eq!(stock(10, 10), replicas.stock("A").await);
}

/// Goal: a reservation takes all its lines or none, and tells everything that is missing.
/// Method: one line that fits, one that does not, one of no product.
async fn a_short_reservation_holds_nothing(place: Place) {
    let replicas = Replicas::stocked(place, 1, &["A", "B"], 5).await;
    let lines = [("A", 2), ("B", 6), ("NONE", 1)];
    let shortage = |sku, requested, available| Shortage {
        sku: Sku::parse(sku).unwrap(),
        requested,
        available,
    };
    let expected = Reserved::Short(vec![shortage("B", 6, 5), shortage("NONE", 1, 0)]);
    assert_eq!(expected, reserve(replicas.one(), "r", &lines).await);
    assert_eq!(stock(5, 0), replicas.stock("A").await);
    // The identifier is free: nothing happened under it.
    let again = reserve(replicas.one(), "r", &[("A", 2)]).await;
    assert!(matches!(again, Reserved::Done(_)), "{again:?}");
}

/// Goal: every step can be repeated, at any replica and at once, and counts once.
/// Method: ten times reserve, then confirm, then release, from two pools; look at the stock after
/// each.
async fn repeated_steps_count_once(place: Place) {
    let replicas = Replicas::stocked(place, 2, &["A"], 10).await;
    let ten = || replicas.stores.iter().cycle().take(10).cloned();
    let mut tasks = JoinSet::new();
    for store in ten() {
        tasks.spawn(async move { reserve(&store, "r", &[("A", 2), ("A", 1)]).await });
    }
    for reserved in tasks.join_all().await {
        let Reserved::Done(reservation) = reserved else {
            panic!("{reserved:?}")
        };
        assert_eq!(ReservationState::Held, reservation.state);
        assert_eq!(3, reservation.lines[0].quantity);
        assert_eq!(499, reservation.lines[0].unit_price.minor_units);
    }
    assert_eq!(stock(10, 3), replicas.stock("A").await);
    let different = reserve(replicas.one(), "r", &[("A", 2)]).await;
    assert_eq!(Reserved::Different, different);

    let mut tasks = JoinSet::new();
    for store in ten() {
        tasks.spawn(async move { confirm(&store, "r").await });
    }
    for confirmed in tasks.join_all().await {
        assert!(matches!(confirmed, Confirmed::Done(_)), "{confirmed:?}");
    }
    assert_eq!(stock(7, 0), replicas.stock("A").await);
    let known = reserve(replicas.one(), "r", &[("A", 3)]).await;
    assert!(
        matches!(&known, Reserved::Done(known) if known.state == ReservationState::Confirmed),
        "{known:?}"
    );

    let mut tasks = JoinSet::new();
    for store in ten() {
        tasks.spawn(async move { release(&store, "r").await });
    }
    tasks.join_all().await;
    assert_eq!(stock(10, 0), replicas.stock("A").await);
    assert_eq!(Confirmed::Released, confirm(replicas.one(), "r").await);
    assert_eq!(
        Reserved::Released,
        reserve(replicas.one(), "r", &[("A", 3)]).await
    );
    assert_eq!(stock(10, 0), replicas.stock("A").await);
}

/// Goal: a release that overtakes its reservation wins.
/// Method: release an identifier nobody knows, then reserve under it.
async fn a_release_may_come_first(place: Place) {
    let replicas = Replicas::stocked(place, 1, &["A"], 10).await;
    assert_eq!(Confirmed::Unknown, confirm(replicas.one(), "r").await);
    release(replicas.one(), "r").await;
    assert_eq!(
        Reserved::Released,
        reserve(replicas.one(), "r", &[("A", 1)]).await
    );
    assert_eq!(stock(10, 0), replicas.stock("A").await);
}

/// Goal: what is not confirmed in time goes back by itself, what is confirmed does not.
/// Method: two reservations, one confirmed; look at both sides of the moment they expire, then
/// sweep, and sweep again after a week.
async fn held_stock_goes_back_in_time(place: Place) {
    let replicas = Replicas::stocked(place, 1, &["A"], 10).await;
    let store = replicas.one();
    for id in ["held", "late", "confirmed"] {
        reserve(store, id, &[("A", 2)]).await;
    }
    confirm(store, "confirmed").await;
    assert_eq!(0, store.sweep(Timestamp::now()).await.unwrap());
    assert_eq!(stock(8, 4), replicas.stock("A").await);

    let later = Timestamp::now().after(LIFETIME);
    // Expired counts as gone even where no sweep has come by.
    assert_eq!(
        Confirmed::Released,
        store.confirm("late", later).await.unwrap()
    );
    let again = store
        .reserve("late", &wish(&[("A", 2)]), later, later.after(LIFETIME))
        .await;
    assert_eq!(Reserved::Released, again.unwrap());
    assert_eq!(2, store.sweep(later).await.unwrap());
    assert_eq!(stock(8, 0), replicas.stock("A").await);
    assert_eq!(0, store.sweep(later).await.unwrap());

    let next_day = later.after(Duration::from_hours(24));
    store.sweep(next_day).await.unwrap();
    // Remembered: a late attempt finds it released.
    let late = reserve(store, "held", &[("A", 1)]).await;
    assert_eq!(Reserved::Released, late);

    let next_week = later.after(Duration::from_hours(8 * 24));
    store.sweep(next_week).await.unwrap();
    // Forgotten: the identifier is free. The confirmed one is not.
    let fresh = reserve(store, "held", &[("A", 1)]).await;
    assert!(matches!(fresh, Reserved::Done(_)), "{fresh:?}");
    assert!(matches!(
        confirm(store, "confirmed").await,
        Confirmed::Done(_)
    ));
}

/// Goal: importing again updates what people read and leaves the stock alone.
/// Method: import, reserve, import the same and one more with another price.
async fn imports_update_and_keep_the_stock(place: Place) {
    let replicas = Replicas::stocked(place, 1, &["A"], 10).await;
    let store = replicas.one();
    reserve(store, "r", &[("A", 4)]).await;
    let mut changed = product("A", 99);
    changed.price.minor_units = 1;
    let imported = store.import(&[changed, product("B", 1)]).await.unwrap();
    let expected = Imported {
        created: 1,
        updated: 1,
    };
    assert_eq!(expected, imported);
    assert_eq!(stock(10, 4), replicas.stock("A").await);
    let product = store.get(&Sku::parse("A").unwrap()).await.unwrap().unwrap();
    assert_eq!(1, product.price.minor_units);
}

/// Goal: stock can be changed as far as it makes sense, and is then seen by every replica.
/// Method: changes up to the limits and beyond, read through another pool.
async fn stock_stays_in_range(place: Place) {
    let replicas = Replicas::stocked(place, 2, &["A"], 10).await;
    let store = replicas.one();
    let sku = Sku::parse("A").unwrap();
    reserve(store, "r", &[("A", 4)]).await;
    for (delta, expected) in [
        (-6, Adjusted::Applied(stock(4, 4))),
        (-1, Adjusted::OutOfRange(stock(4, 4))),
        (0, Adjusted::Applied(stock(4, 4))),
        (999_999_996, Adjusted::Applied(stock(1_000_000_000, 4))),
        (1, Adjusted::OutOfRange(stock(1_000_000_000, 4))),
    ] {
        assert_eq!(
            expected,
            store.adjust(&sku, delta).await.unwrap(),
            "{delta}"
        );
        let seen = replicas.stores[1].get(&sku).await.unwrap().unwrap().stock;
        assert!(matches!(expected, Adjusted::Applied(s) | Adjusted::OutOfRange(s) if s == seen));
    }
    let nothing = Sku::parse("NONE").unwrap();
    assert_eq!(
        Adjusted::UnknownSku,
        store.adjust(&nothing, 1).await.unwrap()
    );
}

/// Goal: pages join into the whole list although products come meanwhile.
/// Method: walk by twos, adding one before and one behind the place reached.
async fn pages_survive_new_products(place: Place) {
    let replicas = Replicas::stocked(place, 1, &["B", "D", "F", "H", "J"], 1).await;
    let store = replicas.one();
    let (mut seen, mut token) = (Vec::new(), String::new());
    loop {
        let page = Page::read("products", 2, &token).unwrap();
        let mut products = store.list(&page).await.unwrap();
        token = page.cut(&mut products, |product| product.sku.to_string());
        seen.extend(products.into_iter().map(|product| product.sku.to_string()));
        if seen.len() == 2 {
            store
                .import(&[product("A", 1), product("I", 1)])
                .await
                .unwrap();
        }
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(["B", "D", "F", "H", "I", "J"].to_vec(), seen);
}
