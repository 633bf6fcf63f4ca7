//! Who looks at the tables, at the broker and at the logs from outside.

use std::{collections::BTreeMap, io, path::PathBuf, sync::Arc, time::Duration};

use gantry::{config::Live, journal::Journal, shutdown::Tasks};
use gantry_events::{broker, headers};
use gantry_harness::{broker::Broker, tools};
use gantry_store::{Config as DatabaseConfig, Database, Statement, Timestamp};
use tokio::time::{self, Instant};

use super::{
    load::Load,
    replicas::{Replicas, Settings},
};
use crate::{
    evidence::{Drain, Evidence, Measure, Strike},
    log::Wire,
    rows,
};

/// Longest time until all is at rest, once everything is healed.
const REST: Duration = Duration::from_mins(1);

/// How long all must be at rest to be believed.
const STILL: Duration = Duration::from_millis(600);

/// Longest wait for what must happen by what was done.
const SEEN: Duration = Duration::from_secs(12);

/// Longest time until a broker that is there again is tried again.
const AGAIN_MAX: Duration = Duration::from_secs(5);

/// Longest wait for an answer of the broker or the database.
const ANSWER: Duration = Duration::from_secs(10);

/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(100);

/// Letters that are looked at at once.
const PAGE: u16 = 500;

const OLDEST: Statement = Statement::new(
    "delivery.oldest",
    "SELECT COUNT(*) AS pending, COALESCE(MIN(created_at), 0) AS oldest FROM event_outbox
     WHERE state = 0",
);
const EFFECTS: Statement = Statement::new(
    "delivery.effects.count",
    "SELECT (SELECT COUNT(*) FROM effects) AS effects,
            (SELECT COUNT(*) FROM event_outbox) AS events",
);

/// Looks at a round from outside.
pub(super) struct Watch {
    database: Database,
    broker: Arc<dyn broker::Broker>,
    tasks: Tasks,
    logs: PathBuf,
    wire: Wire,
}

/// What is counted while a round comes to rest.
#[derive(Debug, Default)]
struct Counts {
    pending: u64,
    moving: u64,
    events: u64,
    effects: u64,
}

impl Watch {
    pub(super) async fn of(settings: &Settings) -> Self {
        let config = DatabaseConfig {
            url: settings.database.parse().expect("a database"),
            ..DatabaseConfig::default()
        };
        let database = Database::open_existing(&config)
            .await
            .expect("a database that is there");
        let journal = Journal::new();
        let tasks = Tasks::new(journal.clone());
        let broker = Live::fixed(settings.broker.clone());
        let broker = broker::connect(&broker, &tasks, &journal);
        Self {
            database,
            broker,
            tasks,
            logs: settings.logs.clone(),
            wire: Wire::default(),
        }
    }

    /// Waits until what must happen by a strike has happened; whether it has.
    pub(super) async fn seen(&mut self, strike: &mut Strike) -> io::Result<bool> {
        let until = Instant::now() + SEEN;
        loop {
            let new = self.wire.read_on(&self.logs)?;
            strike.time.end = Timestamp::now().micros();
            let seen = || strike.seen(&self.wire.publications(), &self.wire.deliveries());
            let is_met = new && strike.must.is_met_by(seen());
            if is_met || Instant::now() >= until {
                return Ok(is_met);
            }
            time::sleep(PAUSE).await;
        }
    }

    /// What a process has counted so far, by its log.
    pub(super) fn counted(&mut self, process: &str) -> io::Result<BTreeMap<Measure, u64>> {
        self.wire.read_on(&self.logs)?;
        let mut evidence = Evidence::default();
        self.wire.tell(&mut evidence);
        Ok(evidence.counted(process))
    }

    /// Whether a process that does not run now was in the midst of a publication when it stopped.
    pub(super) fn is_publishing(&mut self, process: &str) -> io::Result<bool> {
        self.wire.read_on(&self.logs)?;
        Ok(self.wire.is_publishing(process))
    }

    /// What tables, broker and logs say once nothing changes any more, or when that takes too long.
    pub(super) async fn rest(
        &mut self,
        group: &str,
        replicas: &Replicas,
        broker: &Broker,
    ) -> io::Result<Evidence> {
        let until = Instant::now() + REST;
        let mut dead = Vec::new();
        let mut since = Instant::now();
        while Instant::now() < until && since.elapsed() < STILL {
            time::sleep(PAUSE).await;
            let new = self.wire.read_on(&self.logs)?;
            let quiet = match self.counts(group, &mut dead).await {
                Ok(it) => {
                    let done = it.effects + u64::try_from(dead.len()).unwrap_or(u64::MAX);
                    it.pending + it.moving == 0 && done >= it.events && replicas.told_all().await
                }
                Err(_) => false,
            };
            if new || !quiet {
                since = Instant::now();
            }
        }
        let moving = since.elapsed() < STILL;
        if moving {
            replicas.tell(&broker.told()).await;
        }
        let mut evidence = self.look(group, dead).await.map_err(io::Error::other)?;
        evidence.left.moving = moving;
        while let Some(unsettled) = broker.unsettled(group) {
            evidence.left.unsettled = unsettled;
            if unsettled == 0 || Instant::now() >= until {
                break;
            }
            time::sleep(PAUSE).await;
        }
        self.wire.read_on(&self.logs)?;
        self.wire.tell(&mut evidence);
        Ok(evidence)
    }

    /// Counts, and adds the dead letters that are new.
    async fn counts(
        &self,
        group: &str,
        dead: &mut Vec<(u64, String)>,
    ) -> Result<Counts, gantry::BoxError> {
        let (pending, _) = self.waiting().await?;
        let row = self.database.statement(&EFFECTS).fetch_one();
        let row = time::timeout(ANSWER, row).await??;
        let fill = time::timeout(ANSWER, self.broker.fill(group)).await??;
        loop {
            let after = dead.last().map_or(0, |(place, _)| *place);
            let letters = self.broker.dead_letters(group, after, PAGE);
            let letters = time::timeout(ANSWER, letters).await??;
            if letters.is_empty() {
                break;
            }
            dead.extend(letters.into_iter().map(|it| {
                let id = it.message.headers.get(headers::ID).cloned();
                (it.place, id.unwrap_or_default())
            }));
        }
        Ok(Counts {
            pending,
            moving: fill.ready.iter().sum::<u64>() + fill.unsettled + fill.delayed + fill.strays,
            events: row.narrow("events")?,
            effects: row.narrow("effects")?,
        })
    }

    async fn look(
        &self,
        group: &str,
        mut dead: Vec<(u64, String)>,
    ) -> Result<Evidence, gantry::BoxError> {
        let mut evidence = Evidence::default();
        rows::read(&self.database, &mut evidence).await?;
        self.counts(group, &mut dead).await?;
        let fill = self.broker.fill(group).await?;
        evidence.left.ready = fill.ready.iter().sum();
        evidence.left.unsettled = fill.unsettled;
        evidence.left.delayed = fill.delayed;
        evidence.dead = dead.into_iter().map(|(_, id)| id).collect();
        Ok(evidence)
    }

    /// How long it takes from now, when the broker is there again, until none that waits is older than a
    /// second. People asked since `since`, when they had asked for so many.
    pub(super) async fn drained(&self, since: (Instant, u64), load: &Load) -> Drain {
        let (began, asked_before) = since;
        let asked = load.asked() - asked_before;
        let gathering = began.elapsed();
        let mut backlog = None;
        // By the number of those that gathered and the rate at which they came, five times as fast. Only
        // where nothing else is done is that asked for: a busy machine is slow by chance.
        let rate = f64::from(u32::try_from(asked).unwrap_or(u32::MAX)) / gathering.as_secs_f64();
        let allowed = |backlog| {
            let backlog = f64::from(u32::try_from(backlog).unwrap_or(u32::MAX));
            if tools::timed() {
                AGAIN_MAX + Duration::from_secs_f64(backlog / (5.0 * rate.max(1.0)))
            } else {
                REST
            }
        };
        let back = Instant::now();
        loop {
            let waiting = self.waiting().await.ok();
            let (pending, age) = waiting.unwrap_or((0, Duration::MAX));
            if waiting.is_some() {
                backlog.get_or_insert(pending);
            }
            let over = age < Duration::from_secs(1);
            if over || back.elapsed() >= REST {
                let backlog = backlog.unwrap_or_default();
                let millis = |it: Duration| u64::try_from(it.as_millis()).unwrap_or(u64::MAX);
                return Drain {
                    backlog,
                    millis_max: millis(allowed(backlog)),
                    millis: over.then(|| millis(back.elapsed())),
                };
            }
            time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// How many events wait, and how old the oldest is.
    async fn waiting(&self) -> Result<(u64, Duration), gantry::BoxError> {
        let row = self.database.statement(&OLDEST).fetch_one();
        let row = time::timeout(ANSWER, row).await??;
        let pending: u64 = row.narrow("pending")?;
        let age = Timestamp::now().micros() - row.time("oldest")?.micros();
        let age = Duration::from_micros(u64::try_from(age).unwrap_or_default());
        Ok((pending, if pending == 0 { Duration::ZERO } else { age }))
    }

    /// Removes the group, whose queues would fill up otherwise, and lets go.
    pub(super) async fn end(self, group: &str) {
        drop(time::timeout(ANSWER, self.broker.remove(group)).await);
        self.database.close().await;
        self.tasks.stopping().cancel();
    }
}
