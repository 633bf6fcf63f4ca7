//! What accounts may do beside what everybody may, as it is kept.

// Helpers of tests fail like tests.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use accounts::{
    domain::{Account, Email},
    store::{MIGRATIONS, Store},
};
use gantry_harness::database::Place;
use gantry_store::{Config, Database, Timestamp};
use tokio::task::JoinSet;

gantry_harness::on_both!(
    roles_are_the_last_that_were_set,
    whoever_sets_roles_at_once_sets_all_of_theirs,
);

async fn open(place: &Place) -> Store {
    let config = Config {
        url: place.url().parse().unwrap(),
        ..Config::default()
    };
    Store::new(Database::open(&config, MIGRATIONS).await.unwrap())
}

async fn add(store: &Store, id: &str) {
    let account = Account {
        id: id.to_owned(),
        email: Email::parse(&format!("{id}@example.org")).unwrap(),
        display_name: String::new(),
        created_at: Timestamp::now(),
    };
    assert!(store.insert(&account, "a hash").await.unwrap());
}

fn roles(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// Goal: an account has the roles that it was given last, nobody else has them, and nobody who is not
/// there gets any.
/// Method: two accounts, one of them with roles, then others, then none; an account that is not there.
async fn roles_are_the_last_that_were_set(place: Place) {
    let store = open(&place).await;
    for id in ["ada", "eve"] {
        add(&store, id).await;
        assert_eq!(roles(&[]), store.roles(id).await.unwrap());
    }
    for (given, kept) in [
        (&["staff", "night"][..], &["night", "staff"][..]),
        (&["staff"], &["staff"]),
        (&["staff"], &["staff"]),
        (&[], &[]),
    ] {
        assert!(store.set_roles("ada", &roles(given)).await.unwrap());
        assert_eq!(roles(kept), store.roles("ada").await.unwrap());
        assert_eq!(roles(&[]), store.roles("eve").await.unwrap());
    }
    assert!(!store.set_roles("bob", &roles(&["staff"])).await.unwrap());
    assert_eq!(roles(&[]), store.roles("bob").await.unwrap());
}

/// Goal: of those who set roles of one account at once one has the last word, whole.
/// Method: eight at once, over two pools, each with two roles of its own and one that all have.
async fn whoever_sets_roles_at_once_sets_all_of_theirs(place: Place) {
    let stores = [Arc::new(open(&place).await), Arc::new(open(&place).await)];
    add(&stores[0], "ada").await;
    let mut setting = JoinSet::new();
    for number in 0..8 {
        let store = Arc::clone(&stores[number % 2]);
        setting.spawn(async move {
            let own = [format!("a{number}"), format!("b{number}"), "c".to_owned()];
            assert!(store.set_roles("ada", &own).await.unwrap());
        });
    }
    setting.join_all().await;
    let kept = stores[0].roles("ada").await.unwrap();
    assert_eq!(3, kept.len(), "{kept:?}");
    assert_eq!(kept[0][1..], kept[1][1..], "{kept:?}");
}
