//! What orders tell, summed up.

// Helpers of tests fail like tests.
#![allow(clippy::unwrap_used)]

use catalog::{
    domain::{Money, Row, SoldLine},
    store::{MIGRATIONS, Store, sales},
};
use gantry_harness::database::Place;
use gantry_store::{Config, Database, Page, Transaction};

gantry_harness::on_both!(
    what_was_sold_is_beside_what_is_left,
    days_say_what_orders_came_to,
);

async fn open(place: &Place) -> (Database, Store) {
    let config = Config {
        url: place.url().parse().unwrap(),
        ..Config::default()
    };
    let database = Database::open(&config, MIGRATIONS).await.unwrap();
    (database.clone(), Store::new(database))
}

async fn begin(database: &Database) -> Transaction {
    database.begin("test.sales").await.unwrap()
}

fn euros(minor_units: i64) -> Money {
    Money {
        minor_units,
        currency_code: "EUR".to_owned(),
    }
}

fn line(sku: &str, quantity: i64) -> SoldLine {
    SoldLine {
        sku: sku.to_owned(),
        quantity,
    }
}

/// Goal: a stock level has the units of confirmed orders, and not of those that were cancelled, whichever
/// is told first; what is told twice counts once, and what there is no product of not at all.
/// Method: two products, orders of which one is told twice, one is cancelled, one is told to be cancelled
/// before, and one never was confirmed; in pages.
async fn what_was_sold_is_beside_what_is_left(place: Place) {
    let (database, store) = open(&place).await;
    let product = |sku: &str| {
        let row = Row {
            sku: sku.to_owned(),
            name: sku.to_owned(),
            description: String::new(),
            price_minor_units: 499,
            currency_code: "EUR".to_owned(),
            initial_stock: 100,
        };
        row.check().unwrap()
    };
    let products = ["COFFEE", "TEA"].map(product);
    store.import(&products).await.unwrap();
    let mut transaction = begin(&database).await;
    for (order, lines) in [
        ("one", vec![line("TEA", 2), line("COFFEE", 1)]),
        ("two", vec![line("TEA", 5)]),
        ("two", vec![line("TEA", 5)]),
        ("three", vec![line("TEA", 7)]),
    ] {
        let missing = sales::sold(&mut transaction, order, &lines).await.unwrap();
        assert_eq!(None, missing);
    }
    for order in ["three", "never", "late"] {
        let lines = [line("TEA", 7)];
        let returned = sales::returned(&mut transaction, order, &lines);
        returned.await.unwrap();
    }
    let late = [line("TEA", 7)];
    assert_eq!(
        None,
        sales::sold(&mut transaction, "late", &late).await.unwrap()
    );
    transaction.commit().await.unwrap();
    let mut transaction = begin(&database).await;
    let lines = [line("TEA", 1), line("COCOA", 1)];
    let missing = sales::sold(&mut transaction, "four", &lines).await.unwrap();
    assert_eq!(Some("COCOA"), missing);
    drop(transaction);

    let page = Page::read("levels", 1, "").unwrap();
    let mut levels = store.stock_levels(&page).await.unwrap();
    let token = page.cut(&mut levels, |level| level.sku.clone());
    assert_eq!(1, levels.len());
    let page = Page::read("levels", 10, &token).unwrap();
    levels.extend(store.stock_levels(&page).await.unwrap());
    let levels: Vec<_> = levels
        .iter()
        .map(|level| (&*level.sku, level.available, level.sold))
        .collect();
    assert_eq!(vec![("COFFEE", 100, 1), ("TEA", 100, 7)], levels);
}

/// Goal: a day has its orders, those that were paid and cancelled, and what came in by currency; days
/// are the newest first, and older ones are left out.
/// Method: orders of three days in two currencies; one that is paid and cancelled, one that is told to
/// be cancelled alone.
async fn days_say_what_orders_came_to(place: Place) {
    let (database, store) = open(&place).await;
    let mut transaction = begin(&database).await;
    let francs = Money {
        minor_units: 300,
        currency_code: "CHF".to_owned(),
    };
    for (order, day, total) in [
        ("old", 1, Some(euros(5))),
        ("one", 7, Some(euros(100))),
        ("two", 7, Some(euros(20))),
        ("three", 7, Some(francs.clone())),
        ("back", 7, Some(euros(1_000))),
        ("waits", 8, None),
    ] {
        sales::placed(&mut transaction, order, day).await.unwrap();
        if let Some(total) = &total {
            // Paid after midnight, it is still of the day it was placed.
            let paid = sales::paid(&mut transaction, order, day + 1, total);
            paid.await.unwrap();
        }
    }
    for order in ["back", "lost"] {
        let cancelled = sales::cancelled(&mut transaction, order, 8);
        cancelled.await.unwrap();
    }
    transaction.commit().await.unwrap();

    let days = store.sales_after(1).await.unwrap();
    let counts: Vec<_> = days
        .iter()
        .map(|day| (day.day, day.placed, day.paid, day.cancelled))
        .collect();
    assert_eq!(vec![(8, 2, 0, 1), (7, 4, 4, 1)], counts);
    assert!(days[0].revenues.is_empty());
    assert_eq!(vec![francs, euros(120)], days[1].revenues);
}
