//! One port for every service that is registered: calls go by their method's name to whoever
//! registered it, and no service is named here. What is not gRPC becomes calls by what the services
//! say of themselves.

pub mod access;
pub mod backends;
mod call;
pub mod catalogue;
pub mod config;
mod connect;
mod cors;
pub mod edge;
pub mod forward;
mod headers;
pub mod hop;
pub mod json;
pub mod pages;
pub mod reflection;
pub mod stale;
pub mod streams;
mod unread;
mod web;

use gantry::{BoxError, app::App, discovery::Directory, health::Check};

pub use config::Config;

use crate::{
    access::Access, backends::Backends, catalogue::Follower, edge::Edge, forward::Forward,
    reflection::Merged, stale::Stale, streams::Streams,
};

/// Builds the service.
///
/// # Errors
///
/// If no registry is configured.
pub fn start(app: &mut App<Config>) -> Result<(), BoxError> {
    let directory = app
        .directory()
        .ok_or("expected etcd.endpoints, where the services are registered")?;
    serve(app, directory)
}

/// Serves what `directory` has.
///
/// # Errors
///
/// If the descriptors of reflection are broken.
pub fn serve(app: &mut App<Config>, directory: Directory) -> Result<(), BoxError> {
    let backends = Backends::new(directory.clone(), app.clients());
    let (follower, catalogue) = Follower::new(backends.clone(), directory.clone());
    // Both gate: a gateway that knows nobody yet would refuse what others answer.
    app.check(Check::gate("registry", move || {
        let mut directory = directory.clone();
        async move { Ok(directory.read().await?) }
    }));
    let described = catalogue.clone();
    app.check(Check::gate("descriptors", move || {
        let mut described = described.clone();
        async move { Ok(described.read().await?) }
    }));
    let (tidying, stopping) = (backends.clone().tidy(), app.tasks().stopping());
    app.spawn("backends", async move {
        stopping.run_until_cancelled(tidying).await;
    });
    let (following, stopping) = (follower.run(), app.tasks().stopping());
    app.spawn("catalogue", async move {
        stopping.run_until_cancelled(following).await;
    });
    app.serve_reflection(Merged::new(backends.clone()))?;
    let config = app.config();
    let tokens = config.map(|config| &config.tokens);
    let access = Access::new(catalogue.clone(), backends.clone(), &tokens);
    let (fresh, stopping) = (access.clone().keep_fresh(), app.tasks().stopping());
    app.spawn("token keys", async move {
        stopping.run_until_cancelled(fresh).await;
    });
    let limiter = app.limiter();
    let streams = Streams::new(config.map(|config| &config.streams));
    let stale = Stale::new(&app.policies(), config.map(|config| &config.stale_cache));
    let (tidying, stopping) = (stale.clone().tidy(), app.tasks().stopping());
    app.spawn("stale answers", async move {
        stopping.run_until_cancelled(tidying).await;
    });
    let forward = Forward::new(backends, access, limiter.clone(), streams, stale.clone());
    let named = app.serve_others(forward);
    let (telling, stopping) = (catalogue.clone().tell(named), app.tasks().stopping());
    app.spawn("names of methods", async move {
        stopping.run_until_cancelled(telling).await;
    });
    let http = config.map(|config| &config.http);
    app.serve_http(Edge::new(catalogue, http, limiter, stale));
    Ok(())
}
