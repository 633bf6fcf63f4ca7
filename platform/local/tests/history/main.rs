//! The store's promises, checked on histories: what many clients asked and were told while
//! connections broke, watchers stood still, history was compacted and the server was killed.
//!
//! `TESTS_SEEDS=1000` makes so many histories; `TESTS_SEED=17` makes the one of that seed. A
//! history that is wrong is kept in a file, which the failure names.

#![allow(clippy::unwrap_used, reason = "a test, helpers included")]

mod check;
mod client;
mod planted;
mod record;
mod run;
mod server;
mod watcher;

use std::{fmt::Write as _, fs, path::Path};

use futures_util::{StreamExt as _, stream};
use gantry_harness::{
    etcd::{Etcd, Version},
    tools::setting,
};

use record::{History, Outcome, Told};
use server::Server;

/// Histories made unless the environment says otherwise.
const SEEDS: u64 = 50;

/// Histories made at once; most of their time they wait.
const AT_ONCE: usize = 16;

/// Requests of each client.
const TURNS: usize = 50;

/// Most histories made to plant faults in.
const PLANTED_MAX: u64 = 20;

/// Histories in which one fault may go unnoticed.
const PLANTED_MISSED: usize = 3;

/// What is wrong with a history; the history is kept where something is.
fn complaint(history: &History) -> Option<String> {
    let faults = check::faults(history);
    if faults.is_empty() {
        return None;
    }
    let name = format!("history-{}.txt", history.seed);
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::write(&path, format!("{faults:#?}\n{history:#?}")).expect("keep the history");
    let mut told = format!("seed {}: see {}\n", history.seed, path.display());
    for fault in faults.iter().take(3) {
        let _ = writeln!(told, "  {fault}");
    }
    Some(told)
}

fn seeds() -> Vec<u64> {
    let number = |name| setting(name).map(|text: String| text.parse().expect("a number"));
    match number("TESTS_SEED") {
        Some(seed) => vec![seed],
        None => (1..=number("TESTS_SEEDS").unwrap_or(SEEDS)).collect(),
    }
}

/// Goal: whatever fails, writes happen one after another, and watchers are told all of them once.
/// Method: histories of clients, watchers and two kills of the server, one for each seed.
#[tokio::test]
async fn histories_are_those_of_one_store() {
    let seeds = seeds();
    println!("seeds {seeds:?}");
    let histories = stream::iter(seeds).map(|seed| async move {
        let mut server = Server::local().await;
        Box::pin(run::history(&mut server, seed, TURNS, 2)).await
    });
    let mut histories = histories.buffer_unordered(AT_ONCE);
    let mut complaints = String::new();
    let mut seen = Seen::default();
    while let Some(history) = histories.next().await {
        seen.count(&history);
        complaints.extend(complaint(&history));
    }
    println!("{seen:?}");
    assert!(complaints.is_empty(), "{complaints}");
    let all = [
        seen.refused,
        seen.unknown,
        seen.progress,
        seen.skipped,
        seen.ended,
    ];
    let full = seen.made < SEEDS || all.iter().all(|count| *count > 0);
    assert!(full, "too little happened: {seen:?}");
}

/// Goal: the checker and the clients take nothing from the local etcd that a real one does not do.
/// Method: a few histories of etcd 3.6, killed and started again.
#[tokio::test]
async fn histories_of_a_real_etcd_pass_too() {
    for seed in 1..=2 {
        let Some(etcd) = Etcd::start(Version::V36).await else {
            return;
        };
        let mut server = Server::Real(etcd);
        let history = Box::pin(run::history(&mut server, seed, TURNS, 1)).await;
        let complaint = complaint(&history);
        assert_eq!(None, complaint, "{}", complaint.as_deref().unwrap_or(""));
    }
}

/// Goal: the checker finds what it is for.
/// Method: good histories, each made wrong in every way that there is something for, until every
/// fault was found; few may go unnoticed in a history that explains them otherwise.
#[tokio::test]
async fn planted_faults_are_found() {
    let mut left: Vec<_> = planted::faults().map(|fault| (fault, 0)).collect();
    for seed in 1..=PLANTED_MAX {
        let mut server = Server::local().await;
        let good = Box::pin(run::history(&mut server, seed, TURNS, 1)).await;
        assert_eq!(Vec::<String>::new(), check::faults(&good));
        left.retain_mut(|(fault, missed)| {
            let mut wrong = good.clone();
            if (fault.plant)(&mut wrong).is_none() {
                return true;
            }
            let faults = check::faults(&wrong);
            if let Some(found) = faults.iter().find(|it| it.contains(fault.found)) {
                println!("{}: {found}", fault.name);
                return false;
            }
            // What nobody answered may have happened, and explain it after all.
            *missed += 1;
            assert!(
                *missed < PLANTED_MISSED,
                "not found: {}: {faults:#?}",
                fault.name
            );
            true
        });
        if left.is_empty() {
            return;
        }
    }
    let left: Vec<_> = left.iter().map(|(fault, _)| fault.name).collect();
    panic!("no history to plant them in: {left:?}");
}

/// What histories were made of, to see that they are not empty.
#[derive(Debug, Default)]
struct Seen {
    made: u64,
    done: usize,
    refused: usize,
    unknown: usize,
    events: usize,
    progress: usize,
    skipped: usize,
    /// Keys that went though nobody is known to have deleted them: with their leases.
    ended: usize,
}

impl Seen {
    fn count(&mut self, history: &History) {
        self.made += 1;
        self.ended += check::ended(history);
        for operation in &history.operations {
            match operation.outcome {
                Outcome::Done { .. } => self.done += 1,
                Outcome::Refused(_) => self.refused += 1,
                Outcome::Unknown => self.unknown += 1,
            }
        }
        for told in history.watched.iter().flat_map(|watched| &watched.told) {
            match told {
                Told::Event(_) => self.events += 1,
                Told::Progress(_) => self.progress += 1,
                Told::Skipped(_) => self.skipped += 1,
            }
        }
    }
}
