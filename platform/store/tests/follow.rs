//! The pool of a database and the configuration it follows.

// Helpers of tests fail like tests.
#![allow(clippy::unwrap_used)]

#[path = "database/files.rs"]
#[allow(dead_code)] // The other tests use the rest.
mod files;

use std::time::Duration;

use files::Files;
use gantry::config::Publisher;
use gantry_store::Config;
use tokio::{task::JoinSet, time};

gantry_harness::on_both!(
    () the_pool_follows_published_configuration,
    a_change_before_the_first_step_is_applied,
    a_change_does_not_wait_for_an_older_pool
);

/// Goal: the pool follows the configuration that is published, and ignores what stays the same.
/// Method: publish a new size, the same again, and another.
async fn the_pool_follows_published_configuration(files: Files) {
    let database = files.open().await;
    let size = |pool_max| Config {
        pool_max,
        ..files.config()
    };
    let mut publisher = Publisher::new(size(4));
    let mut tasks = JoinSet::new();
    tasks.spawn(database.clone().follow(publisher.live()));
    tokio::task::yield_now().await;
    for (pool_max, swaps) in [(7, 1), (7, 1), (3, 2)] {
        publisher.publish(size(pool_max));
        while database.swaps() < swaps {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(2, database.swaps());
    database.ping().await.unwrap();
}

/// Goal: a change that is published before anybody follows is not lost.
/// Method: publish a new size between the opening and the first step of `follow`.
async fn a_change_before_the_first_step_is_applied(files: Files) {
    let database = files.open().await;
    let mut publisher = Publisher::new(files.config());
    let following = database.clone().follow(publisher.live());
    publisher.publish(Config {
        pool_max: 7,
        ..files.config()
    });
    let mut tasks = JoinSet::new();
    tasks.spawn(following);
    let swapped = async {
        while database.swaps() == 0 {
            tokio::task::yield_now().await;
        }
    };
    let swapped = time::timeout(Duration::from_secs(30), swapped).await;
    swapped.expect("the change is applied");
}

/// Goal: a change takes effect while an older pool still drains.
/// Method: hold a connection of the first pool, publish two sizes one after the other.
async fn a_change_does_not_wait_for_an_older_pool(files: Files) {
    let database = files.open().await;
    let held = database.begin("test.held").await.unwrap();
    let mut publisher = Publisher::new(files.config());
    let mut tasks = JoinSet::new();
    tasks.spawn(database.clone().follow(publisher.live()));
    for (pool_max, swaps) in [(7, 1), (3, 2)] {
        publisher.publish(Config {
            pool_max,
            ..files.config()
        });
        let swapped = async {
            while database.swaps() < swaps {
                tokio::task::yield_now().await;
            }
        };
        let swapped = time::timeout(Duration::from_secs(20), swapped).await;
        swapped.expect("a change is applied while the pool before it drains");
    }
    held.commit().await.unwrap();
}
