//! One process of the ledger, as far as its events go, within the process of the model.

use std::{sync::Arc, time::Duration};

use gantry::{config::Live, journal::Journal, shutdown::Tasks};
use gantry_events::{
    Outbox, Relay,
    broker::{Broker, memory::Memory},
    testing::Alone,
};
use gantry_store::{Database, Error, testing::Steps};
use tokio::{task::JoinSet, time};
use tokio_util::sync::CancellationToken;

use super::{
    behind::Behind,
    gate::{Gate, Run},
    handler::{Plan, Troubled},
    measured::{Measured, Metrics},
};
use crate::{
    contract::{Credited, Debited, PostRequest},
    door::{Door, Tricks},
    evidence,
    ledger::{self, Apply, Posted},
    log::{Line, Log},
    service::NAME,
};

/// The consumer, and its group.
const CONSUMER: &str = "effects";
pub(super) const GROUP: &str = "ledger.effects";

/// How long a process may take to finish what it is at.
const FINISH: Duration = Duration::from_secs(20);

/// What a process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Roles {
    pub(super) relays: bool,
    pub(super) consumes: bool,
}

/// What all processes of a run are made of.
#[derive(Debug, Clone)]
pub(super) struct Make {
    pub(super) run: Run,
    pub(super) database: Database,
    pub(super) broker: Memory,
    pub(super) config: gantry_events::Config,
    pub(super) in_sequence: bool,
    pub(super) tricks: Tricks,
    pub(super) plan: Plan,
}

/// A process.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) gate: Arc<Gate>,
    pub(super) roles: Roles,
    pub(super) metrics: Metrics,
    database: Database,
    outbox: Outbox,
    log: Arc<Log>,
    tasks: Tasks,
    draining: CancellationToken,
    relay_stops: CancellationToken,
    /// Its relay, and the requests that it serves.
    work: JoinSet<()>,
}

impl Process {
    /// Starts the process `name`.
    pub(super) fn start(make: &Make, name: &str, roles: Roles, seed: u64) -> Self {
        let metrics = Metrics::new();
        metrics.of(|| Self::measured(make, name, roles, seed, &metrics))
    }

    fn measured(make: &Make, name: &str, roles: Roles, seed: u64, metrics: &Metrics) -> Self {
        let gate = Gate::new(name, make.run.clone(), seed);
        gate.note(format!("starts: {roles:?}"));
        let steps: Arc<dyn Steps> = Arc::clone(&gate) as _;
        let database = make.database.in_steps(steps);
        let log = Arc::new(Log::Tape(
            Arc::clone(&make.run.tape),
            Arc::clone(&gate.name),
        ));
        let tricks = Tricks {
            seed: seed.wrapping_add(1),
            ..make.tricks
        };
        let door = Door::of(Arc::new(make.broker.clone()), Arc::clone(&log), tricks);
        let broker: Arc<dyn Broker> = Arc::new(Behind {
            gate: Arc::clone(&gate),
            broker: door,
        });
        let tasks = Tasks::new(Journal::new());
        let draining = CancellationToken::new();
        let alone = Alone {
            service: NAME,
            instance: name.to_owned(),
            tasks: tasks.clone(),
            draining: draining.clone(),
        };
        let config = Live::fixed(make.config.clone());
        let events = alone.attach(&database, Arc::clone(&broker), config.clone());
        let mut work = JoinSet::new();
        let relay_stops = CancellationToken::new();
        let outbox = events.outbox();
        if roles.relays {
            let relay = Relay::new(&outbox, broker, config.map(|config| &config.relay));
            work.spawn(Measured::new(relay.run(relay_stops.clone()), metrics));
        }
        if roles.consumes {
            let troubled = Troubled {
                apply: Apply {
                    log: Arc::clone(&log),
                    wait: Duration::ZERO,
                },
                plan: Arc::clone(&make.plan),
                counts: make.run.counts.clone(),
            };
            let consumer = events.consumer(CONSUMER);
            let consumer = consumer
                .on::<Credited>(troubled.clone())
                .on::<Debited>(troubled);
            if make.in_sequence {
                consumer.in_sequence().start();
            } else {
                consumer.start();
            }
        }
        Self {
            gate,
            roles,
            metrics: metrics.clone(),
            database,
            outbox,
            log,
            tasks,
            draining,
            relay_stops,
            work,
        }
    }

    /// Serves a request; `answer` is told what came of it, unless the process ends before.
    pub(super) fn serve(
        &mut self,
        request: PostRequest,
        answer: impl FnOnce(Result<Posted, Error>) + Send + 'static,
    ) {
        let (database, outbox) = (self.database.clone(), self.outbox.clone());
        let log = Arc::clone(&self.log);
        let posted = async move {
            let posted = ledger::post(&database, &outbox, request).await;
            if matches!(posted, Ok(Posted::New)) {
                log.add(&Line::Added);
            }
            answer(posted);
        };
        self.work.spawn(Measured::new(posted, &self.metrics));
    }

    /// Ends at once, wherever it is.
    pub(super) async fn kill(mut self) {
        self.gate.end();
        self.work.shutdown().await;
        self.tasks.stop().await;
    }

    /// Finishes what it is at, and ends; what it told in the end. At once, and nothing, where that takes
    /// too long; nothing as well where it stood still, as it may not have waited for all then.
    pub(super) async fn finish(mut self) -> Option<(String, evidence::Process)> {
        self.gate.note("finishes");
        self.gate.is_to_end();
        self.draining.cancel();
        let finished = async {
            // Consumers, requests and the relay, in the order in which a process ends.
            while self.tasks.running() > 0 && !self.gate.is_dead() {
                time::sleep(Duration::from_millis(10)).await;
            }
            self.relay_stops.cancel();
            while !self.gate.is_dead() && self.work.join_next().await.is_some() {}
        };
        let outcome = time::timeout(FINISH, finished).await;
        self.gate.note(match outcome {
            Ok(()) => "has finished",
            Err(_) => "did not finish",
        });
        let has_finished = outcome.is_ok() && !self.gate.is_dead() && !self.gate.stood();
        let told = has_finished.then(|| self.told());
        self.kill().await;
        told
    }

    /// What it tells, under its name.
    pub(super) fn told(&self) -> (String, evidence::Process) {
        let process = evidence::Process {
            told: self.metrics.told(GROUP),
            least: None,
        };
        (self.gate.name.to_string(), process)
    }
}
