//! The least a service can be: health, metrics, the side port and a bounded end, and nothing of
//! its own. The tests of signals and exit codes run it as a process.

use std::process::ExitCode;

use gantry::app::{self, App, BoxError};

gantry::config::section! {
    /// What the tests ask for.
    pub struct Config {
        /// How the service misbehaves.
        pub bare: section Bare;
    }
}

gantry::config::section! {
    /// How the service misbehaves.
    pub struct Bare {
        /// Fail to start, with this reason.
        pub fail: Option<String> = None, restart;
        /// Never finish what is closed at the end.
        pub hang: bool = false, restart;
        /// Panic in a background task once this key is set.
        pub panic: bool = false, live;
    }
}

fn main() -> ExitCode {
    app::run(app::identity!(), start)
}

async fn start(app: &mut App<Config>) -> Result<(), BoxError> {
    let config = app.config();
    let bare = config.load().bare.clone();
    if let Some(reason) = bare.fail {
        return Err(reason.into());
    }
    app.on_close("store", async move {
        if bare.hang {
            std::future::pending::<()>().await;
        }
    });
    let stopping = app.tasks().stopping();
    app.spawn("watcher", async move {
        let mut changes = config.subscribe();
        while let Some(Ok(changed)) = stopping
            .run_until_cancelled(changes.wait_for(|config| config.bare.panic))
            .await
        {
            assert!(!changed.bare.panic, "asked to");
        }
    });
    Ok(())
}
