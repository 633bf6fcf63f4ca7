//! People who shop, so that there is something to see: the demo of `gantry up --demo`.
//!
//! They are customers like any others. All they know is the gateway and the public contracts.

pub mod config;
mod pace;
mod person;
mod shop;
mod tally;

use std::sync::Arc;

use futures_util::future::{join, join_all};
use gantry::{BoxError, app::App};

pub use config::Config;

use crate::{pace::Pace, person::Person, shop::Shop, tally::Tally};

/// Builds the demo. It serves nothing but its own health.
///
/// # Errors
///
/// None: whoever is not there yet is waited for.
pub fn start(app: &mut App<Config>) -> Result<(), BoxError> {
    let config = app.config().map(|config| &config.shopping);
    let shop = Shop::new(app.client("gateway"), Pace::new(config.clone()));
    let tally = Arc::new(Tally::default());
    let people = config.load().people;
    let people = (0..people).map(|_| Person::new(shop.clone(), Arc::clone(&tally)).live());
    // Nobody starts anything new once the process drains, and what they follow has no end.
    let everybody = join_all(people);
    let draining = app.draining();
    app.spawn("people who shop", async move {
        let all = Box::pin(join(everybody, tally.tell(config)));
        draining.run_until_cancelled(all).await;
    });
    Ok(())
}
