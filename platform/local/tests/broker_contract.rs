//! What every broker is held to, of the local one: as a process, through a proxy.

#![allow(clippy::unwrap_used, reason = "a test, helpers included")]

use std::{fmt, sync::Arc, sync::Mutex};

use gantry::{config::Live, journal::Journal, shutdown::Tasks};
use gantry_events::broker::{
    self, Broker, Config,
    contract::{self, Running, Stand},
};
use gantry_harness::slow::Slow;
use tempfile::TempDir;

#[path = "support/process.rs"]
#[allow(dead_code, reason = "each test program uses what it needs")]
mod support;

use support::Process;

/// A broker in a process of its own, and the way to it.
struct Local {
    folder: TempDir,
    process: Mutex<Process>,
    way: Slow,
}

impl Local {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let process = Process::start("broker", "127.0.0.1:0", folder.path());
        Self {
            way: Slow::to(process.address.parse().unwrap()).await,
            process: Mutex::new(process),
            folder,
        }
    }
}

impl fmt::Debug for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Local").finish_non_exhaustive()
    }
}

impl Stand for Local {
    fn client(&self) -> Arc<dyn Broker> {
        let config = Config::to(format!("grpc://{}", self.way.address).parse().unwrap());
        let tasks = Tasks::new(Journal::new());
        broker::connect(&Live::fixed(config), &tasks, &Journal::new())
    }

    fn cut(&self) -> Running<'_, bool> {
        self.way.cut();
        Box::pin(async { true })
    }

    fn restart(&self) -> Running<'_, bool> {
        let mut process = self.process.lock().unwrap();
        process.kill();
        *process = Process::start("broker", &process.address, self.folder.path());
        Box::pin(async { true })
    }
}

/// Goal: the local broker does what every broker does.
/// Method: run the suite against a process of its own, through a proxy that can break connections off.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_keeps_the_contract() {
    contract::run(&Local::start().await).await;
}
