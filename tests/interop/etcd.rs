//! The local etcd beside real ones: the same requests get the same answers.
//!
//! The cases are text, in `etcd/cases`: requests, and what etcd 3.6 answers to them. Every server
//! is asked all of them. Where etcd 3.4 answers otherwise, the case says so and names one of
//! [`DIFFERENCES`]; the local one follows 3.6. `TESTS_RECORD=1` has real etcds write the answers.

mod answer;
mod command;
mod programs;
mod run;
mod script;
mod txn;
mod watches;
mod wire;
mod words;

use std::path::PathBuf;

use etcd_client::proto::{PbStatusRequest, PbStatusResponse};
use gantry::{journal::Journal, shutdown::Tasks};
use gantry_harness::{
    etcd::{self, Version},
    tools, wait,
};
use gantry_local::etcd::{Config, Data, Etcd};

use run::Answers;
use wire::Wire;

/// Where etcd 3.4 answers otherwise than 3.6, and how.
const DIFFERENCES: [(&str, &str); 5] = [
    (
        "deletion-at-compaction",
        "a watch from the revision of the last compaction misses a deletion of that revision",
    ),
    (
        "negative-revision",
        "a watch from less than none is taken as one from now on",
    ),
    (
        "order-of-checks",
        "of a transaction's operations, those that put are checked before those that read",
    ),
    (
        "sort-option",
        "a range with an order or a target that there is not ends the server",
    ),
    (
        "status-fields",
        "has neither a version of its storage nor a bound of its size",
    ),
];

/// A local etcd with its data in a folder of its own; gone when dropped.
struct Local {
    url: String,
    tasks: Tasks,
    _folder: tempfile::TempDir,
}

impl Local {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let etcd = Etcd::open(Config {
            data: Data::Folder(folder.path().join("data")),
            ..Config::default()
        });
        let etcd = etcd.expect("a new store opens");
        let url = etcd.handle().url();
        let tasks = Tasks::new(Journal::new());
        let serving = etcd.run(tasks.clone());
        tasks.spawn("local-etcd", async {
            serving.await.expect("the disk does not fail");
        });
        Self {
            url,
            tasks,
            _folder: folder,
        }
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        self.tasks.stopping().cancel();
    }
}

fn cases() -> PathBuf {
    tools::root().join("tests/interop/etcd/cases")
}

/// Goal: the local etcd answers as etcd 3.6 does.
/// Method: every case, in this process, with its data in a folder.
#[tokio::test(flavor = "multi_thread")]
async fn the_local_etcd_answers_as_expected() {
    let local = Local::start();
    run::check(&cases(), &local.url, Answers::Current).await;
}

/// Goal: what is expected is what etcd 3.6 answers.
/// Method: every case against the real one.
#[tokio::test(flavor = "multi_thread")]
async fn etcd_36_answers_as_expected() {
    let Some(real) = etcd::Etcd::start(Version::V36).await else {
        return;
    };
    // A new one keeps its storage in the format of 3.5 at first, and looks every few seconds
    // whether it may go on to its own.
    let wire = Wire::connect(&real.url()).await;
    wait::until("storage in the format of 3.6", wait::SOON, async || {
        let told = wire.ask::<_, PbStatusResponse>("Maintenance/Status", PbStatusRequest {});
        let version = told.await.expect("etcd answers").storage_version;
        version.starts_with("3.6").then_some(())
    })
    .await;
    run::check(&cases(), &real.url(), Answers::Current).await;
}

/// Goal: etcd 3.4 differs from 3.6 where the cases say so, and nowhere else.
/// Method: every case against the real one.
#[tokio::test(flavor = "multi_thread")]
async fn etcd_34_answers_as_expected() {
    let Some(real) = etcd::Etcd::start(Version::V34).await else {
        return;
    };
    run::check(&cases(), &real.url(), Answers::Older).await;
}

/// Goal: the table of differences is complete, and has no more.
/// Method: the names in the cases against the names in the table.
#[test]
fn every_difference_is_listed() {
    let named = script::differences(&cases());
    let listed = DIFFERENCES.iter().map(|(name, _)| (*name).to_owned());
    assert_eq!(named, listed.collect());
}
