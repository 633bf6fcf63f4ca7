//! People who shop, so that there is something to see: the demo of `gantry up --demo`.
//!
//! They are customers like any others. All they know is the gateway and the public contracts. One
//! more fills the shelves: a clerk, whose account is made one of the staff as whoever runs the shop
//! does it, at the port of accounts.

mod account;
mod clerk;
pub mod config;
mod pace;
mod person;
mod shop;
mod tally;

use std::sync::Arc;

use futures_util::future::{join_all, join3};
use gantry::{BoxError, app::App};

pub use config::Config;

use crate::{clerk::Clerk, pace::Pace, person::Person, shop::Shop, tally::Tally};

/// Builds the demo. It serves nothing but its own health.
///
/// # Errors
///
/// None: whoever is not there yet is waited for.
pub fn start(app: &mut App<Config>) -> Result<(), BoxError> {
    let config = app.config().map(|config| &config.shopping);
    let (gateway, accounts) = (app.client("gateway"), app.client("accounts"));
    let shop = Shop::new(gateway, accounts, Pace::new(config.clone()));
    let tally = Arc::new(Tally::default());
    let people = config.load().people;
    let (clerk, bell) = Clerk::new(shop.clone(), Arc::clone(&tally));
    let person = |_| Person::new(shop.clone(), bell.clone(), Arc::clone(&tally)).live();
    let people: Vec<_> = (0..people).map(person).collect();
    // Nobody starts anything new once the process drains, and what they follow has no end.
    let everybody = join_all(people);
    let draining = app.draining();
    app.spawn("people who shop", async move {
        let all = Box::pin(join3(everybody, clerk.live(), tally.tell(config)));
        draining.run_until_cancelled(all).await;
    });
    Ok(())
}
