//! The servers that histories are made on.

use std::net::SocketAddr;

use gantry::{journal::Journal, shutdown::Tasks};
use gantry_harness::{
    etcd,
    wait::{self, SOON},
};
use gantry_local::etcd::{Config, Data, Etcd, Listen};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

/// A server that can be killed and come back with its data.
pub(crate) enum Server {
    Local(Local),
    Real(etcd::Etcd),
}

/// The local etcd on threads of its own, so that all of it can be dropped at once.
pub(crate) struct Local {
    folder: TempDir,
    address: SocketAddr,
    runtime: Option<Runtime>,
}

impl Server {
    pub(crate) async fn local() -> Self {
        let mut local = Local {
            folder: tempfile::tempdir().expect("a temporary folder"),
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            runtime: None,
        };
        local.start().await;
        Self::Local(local)
    }

    pub(crate) fn url(&self) -> String {
        match self {
            Self::Local(local) => format!("http://{}", local.address),
            Self::Real(etcd) => etcd.url(),
        }
    }

    /// Kills it wherever it is, and starts it again.
    pub(crate) async fn restart(&mut self) {
        match self {
            Self::Local(local) => {
                local.kill();
                local.start().await;
            }
            Self::Real(etcd) => etcd.restart(etcd::Data::Kept).await,
        }
    }
}

impl Local {
    async fn start(&mut self) {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build();
        let runtime = runtime.expect("a runtime");
        // What was being written when it was killed is written to its end, and holds the file.
        let etcd = wait::until("the data to be free", SOON, async || {
            let _inside = runtime.handle().enter();
            Etcd::open(Config {
                data: Data::Folder(self.folder.path().to_owned()),
                listen: Listen::Address(self.address),
                ..Config::default()
            })
            .ok()
        })
        .await;
        self.address = etcd.handle().address();
        runtime.spawn(async {
            // Where it is killed in the midst of a write, it says so.
            drop(etcd.run(Tasks::new(Journal::new())).await);
        });
        self.runtime = Some(runtime);
    }

    /// Drops every task where it stands, and with them every connection.
    fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        self.kill();
    }
}
