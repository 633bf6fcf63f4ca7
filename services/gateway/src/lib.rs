//! One port for every service that is registered: calls go by their method's name to whoever
//! registered it, and no service is named here.

pub mod backends;
pub mod forward;
pub mod reflection;

use gantry::{BoxError, app::App, health::Check};

use crate::{backends::Backends, forward::Forward, reflection::Merged};

/// Builds the service.
///
/// # Errors
///
/// If no registry is configured.
pub fn start(app: &mut App<()>) -> Result<(), BoxError> {
    let directory = app
        .directory()
        .ok_or("expected etcd.endpoints, where the services are registered")?;
    let backends = Backends::new(directory.clone(), app.clients());
    // Gates: a gateway that knows nobody yet would refuse what others answer.
    app.check(Check::gate("registry", move || {
        let mut directory = directory.clone();
        async move { Ok(directory.read().await?) }
    }));
    let (tidying, stopping) = (backends.clone().tidy(), app.tasks().stopping());
    app.spawn("backends", async move {
        stopping.run_until_cancelled(tidying).await;
    });
    let (server, descriptors) = reflection::server(Merged::new(backends.clone()));
    app.serve_plain(server, descriptors)?;
    app.serve_others(Forward::new(backends));
    Ok(())
}
