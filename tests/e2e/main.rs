//! Built binaries together, by behaviour. `cargo build --workspace --all-features` first; tests/run does.

mod access;
mod audit;
mod bad_input;
mod bank;
mod concurrency;
mod crashes;
mod deadlines;
mod demo;
mod discovery;
mod drain;
mod gateway;
mod json;
mod kinds;
mod live_config;
mod live_policies;
mod money;
mod news;
mod one_of_three;
mod overload;
mod paused;
mod postgres;
mod rate;
mod shop;
mod stand;
mod support;
mod up;
