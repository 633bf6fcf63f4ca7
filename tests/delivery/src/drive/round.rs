//! One round: people ask, one thing is done to the system, all is healed, comes to rest, and is judged.

use std::{fs, io, path::PathBuf, sync::Arc, time::Duration};

use gantry::{config::Live, journal::Journal, shutdown::Tasks};
use gantry_events::{broker, headers};
use gantry_harness::tools;
use gantry_store::{Config as DatabaseConfig, Database, Statement};
use rustix::process::Signal;
use tokio::time::{self, Instant};

use super::{
    harm::Harm,
    load::Load,
    replicas::{Replicas, Settings},
    stage::{Broker, Place},
};
use crate::{
    door::Tricks,
    evidence::{Drain, Evidence, Summary},
    history::{self, History},
    judge::Fault,
    log::Wire,
    rows,
};

/// Replicas of the service.
const REPLICAS: usize = 2;

/// Longest time until all is at rest, once everything is healed.
const REST: Duration = Duration::from_mins(1);

/// How long all must be at rest to be believed.
const STILL: Duration = Duration::from_millis(600);

/// How long a broker or a database is gone.
const GONE: Duration = Duration::from_secs(2);

/// How long one of two relays stands still: longer than its lease, and than that of a consumer.
const STANDSTILL: Duration = Duration::from_secs(5);

/// Least time that what has gathered may take to go out.
const DRAIN_MIN: Duration = Duration::from_secs(2);

/// Letters and rows that are looked at at once.
const PAGE: u16 = 500;

const OLDEST: Statement = Statement::new(
    "delivery.oldest",
    "SELECT COUNT(*) AS pending, COALESCE(MIN(created_at), 0) AS oldest FROM event_outbox
     WHERE state = 0",
);

/// What a round is made of.
#[derive(Debug)]
pub(super) struct Round<'a> {
    pub(super) harm: Harm,
    pub(super) seed: u64,
    /// Its name among all of the run.
    pub(super) name: String,
    pub(super) broker: &'a mut Broker,
    pub(super) place: &'a mut Place,
    /// Where all that is known of it is kept.
    pub(super) folder: PathBuf,
    /// How long the broker stands still.
    pub(super) stop: Duration,
}

/// How a round went.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) summary: Summary,
    pub(super) faults: Vec<Fault>,
}

impl Round<'_> {
    /// Plays it to its end.
    pub(super) async fn play(mut self) -> io::Result<Ended> {
        fs::create_dir_all(&self.folder)?;
        let history = Arc::new(History::open(&self.folder.join("history.jsonl"))?);
        let mut random = fastrand::Rng::with_seed(self.seed);
        let settings = self.settings(&mut random);
        let mut replicas = Replicas::start(settings.clone(), REPLICAS).await;
        let watch = Watch::of(&settings).await;
        let load = Load::of(random.u64(..), &replicas.addresses(), &history);
        pause(&mut random, 300..900).await;
        history.done(self.harm.name())?;
        let drain = self.harm(&mut random, &mut replicas, &watch, &load).await;
        history.done("healed")?;
        pause(&mut random, 500..900).await;
        load.end().await;
        history.done("no more requests")?;
        let mut evidence = self.evidence(&settings, &replicas, &watch).await?;
        evidence.drain = drain;
        for (name, output) in replicas.outputs() {
            fs::write(self.folder.join(format!("{name}.output")), output)?;
        }
        drop(replicas);
        watch.end(&settings.group()).await;
        let faults = evidence.faults();
        let json = serde_json::to_string_pretty(&evidence)?;
        fs::write(self.folder.join("evidence.json"), json)?;
        Ok(Ended {
            summary: evidence.summary(),
            faults,
        })
    }

    fn settings(&self, random: &mut fastrand::Rng) -> Settings {
        let tricks = match self.harm {
            Harm::Tricks => Tricks {
                double: 20,
                swap: 20,
                seed: random.u64(..),
            },
            _ => Tricks::default(),
        };
        Settings {
            database: self.place.url(&self.name),
            broker: self.broker.url(),
            logs: self.folder.join("logs"),
            consumer: self.name.clone(),
            tricks,
        }
    }

    /// Does it, and heals it.
    async fn harm(
        &mut self,
        random: &mut fastrand::Rng,
        replicas: &mut Replicas,
        watch: &Watch,
        load: &Load,
    ) -> Option<Drain> {
        let victim = random.usize(..REPLICAS);
        match self.harm {
            Harm::Nothing | Harm::Tricks => time::sleep(Duration::from_secs(1)).await,
            Harm::Crash(point) => replicas.crash(victim, point).await,
            Harm::ProcessKilled => replicas.kill(victim).await,
            Harm::BrokerKilled => {
                let asked = (Instant::now(), load.asked());
                self.broker.kill().await;
                time::sleep(GONE).await;
                self.broker.restart().await;
                return Some(watch.drained(asked, load).await);
            }
            Harm::BrokerStopped => {
                let asked = (Instant::now(), load.asked());
                self.broker.freeze();
                time::sleep(self.stop).await;
                self.broker.thaw();
                return Some(watch.drained(asked, load).await);
            }
            Harm::DatabaseKilled => match self.place {
                Place::Server(server) => {
                    server.kill().await;
                    time::sleep(GONE).await;
                    server.restart().await;
                }
                Place::File(_) => {
                    for number in 0..REPLICAS {
                        replicas.signal(number, Signal::KILL);
                    }
                    for number in 0..REPLICAS {
                        replicas.again(number, Signal::KILL).await;
                    }
                }
            },
            Harm::RelayStopped => {
                replicas.signal(victim, Signal::STOP);
                time::sleep(STANDSTILL).await;
                replicas.signal(victim, Signal::CONT);
            }
        }
        None
    }

    /// What is known once all is at rest, or has had its time.
    async fn evidence(
        &self,
        settings: &Settings,
        replicas: &Replicas,
        watch: &Watch,
    ) -> io::Result<Evidence> {
        let group = settings.group();
        let until = Instant::now() + REST;
        let mut evidence = watch.rest(&group, replicas, until).await?;
        evidence.requests = history::requests(&self.folder.join("history.jsonl"))?;
        let wire = Wire::read(&settings.logs)?;
        evidence.publications = wire.publications;
        evidence.deliveries = wire.deliveries;
        evidence.processes = replicas.processes().await;
        evidence.must = self.harm.must();
        if let Some(unsettled) = self.broker.unsettled(&group) {
            evidence.left.unsettled = unsettled;
        }
        Ok(evidence)
    }
}

/// Who looks at the tables and at the broker from outside.
struct Watch {
    database: Database,
    broker: Arc<dyn broker::Broker>,
    tasks: Tasks,
    logs: PathBuf,
}

impl Watch {
    async fn of(settings: &Settings) -> Self {
        let config = DatabaseConfig {
            url: settings.database.parse().expect("a database"),
            ..DatabaseConfig::default()
        };
        let database = Database::open_existing(&config)
            .await
            .expect("a database that is there");
        let config = broker::Config::to(settings.broker.parse().expect("a broker"));
        let journal = Journal::new();
        let tasks = Tasks::new(journal.clone());
        let broker = broker::connect(&Live::fixed(config), &tasks, &journal);
        let logs = settings.logs.clone();
        Self {
            database,
            broker,
            tasks,
            logs,
        }
    }

    /// What the tables and the broker say once nothing changes any more, or at `until`.
    async fn rest(&self, group: &str, replicas: &Replicas, until: Instant) -> io::Result<Evidence> {
        let mut still: Option<(Instant, usize)> = None;
        loop {
            let over = Instant::now() >= until;
            let looked = self.look(group).await;
            let evidence = match looked {
                Ok(evidence) => evidence,
                Err(error) if over => return Err(io::Error::other(error)),
                Err(_) => {
                    time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let left = evidence.left;
            let moving = left.pending + left.ready + left.unsettled + left.delayed;
            let done = evidence.effects.len() + evidence.dead.len();
            let told = replicas
                .backlogs()
                .await
                .iter()
                .all(|it| it.unwrap_or(0) == 0);
            let lines = Wire::read(&self.logs)?.deliveries.len();
            let quiet = moving == 0 && done >= evidence.committed.len() && told;
            let since = match still {
                Some((since, before)) if quiet && before == lines => since,
                _ => Instant::now(),
            };
            still = Some((since, lines));
            if over || (quiet && since.elapsed() >= STILL) {
                return Ok(evidence);
            }
            time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn look(&self, group: &str) -> Result<Evidence, gantry::BoxError> {
        let mut evidence = Evidence::default();
        rows::read(&self.database, &mut evidence).await?;
        let fill = self.broker.fill(group).await?;
        evidence.left.ready = fill.ready.iter().sum();
        evidence.left.unsettled = fill.unsettled;
        evidence.left.delayed = fill.delayed;
        let mut after = 0;
        loop {
            let letters = self.broker.dead_letters(group, after, PAGE).await?;
            let Some(last) = letters.last() else { break };
            after = last.place;
            let ids = letters
                .iter()
                .map(|it| it.message.headers.get(headers::ID).cloned());
            evidence.dead.extend(ids.map(Option::unwrap_or_default));
        }
        Ok(evidence)
    }

    /// How long it takes from the first event that goes out again until none that waits is older than
    /// a second. People asked since `since`, when they had asked for so many.
    async fn drained(&self, since: (Instant, u64), load: &Load) -> Drain {
        let (began, asked_before) = since;
        let asked = load.asked() - asked_before;
        let gathering = began.elapsed();
        let (backlog, _) = self.waiting().await;
        // By the number of those that gathered and the rate at which they came, five times as fast. Only
        // where nothing else is done is that asked for: a busy machine is slow by chance.
        let rate = f64::from(u32::try_from(asked).unwrap_or(u32::MAX)) / gathering.as_secs_f64();
        let allowed = f64::from(u32::try_from(backlog).unwrap_or(u32::MAX)) / (5.0 * rate.max(1.0));
        let allowed = if tools::timed() {
            Duration::from_secs_f64(allowed).max(DRAIN_MIN)
        } else {
            REST
        };
        let until = Instant::now() + REST;
        let (mut most, mut moving) = (backlog, None);
        loop {
            let now = Instant::now();
            let (pending, age) = self.waiting().await;
            if pending < most && moving.is_none() {
                moving = Some(now);
            }
            most = most.max(pending);
            let over = age < Duration::from_secs(1);
            if over || now >= until {
                let took = moving.map_or(Duration::ZERO, |moving| moving.elapsed());
                let millis = |it: Duration| u64::try_from(it.as_millis()).unwrap_or(u64::MAX);
                return Drain {
                    backlog,
                    millis_max: millis(allowed),
                    millis: over.then(|| millis(took)),
                };
            }
            time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// How many events wait, and how old the oldest is.
    async fn waiting(&self) -> (u64, Duration) {
        let row = self
            .database
            .statement(&OLDEST)
            .fetch_one()
            .await
            .expect("rows of the outbox");
        let pending: u64 = row.narrow("pending").expect("a count");
        let oldest = row.time("oldest").expect("a time");
        let age = gantry_store::Timestamp::now().micros() - oldest.micros();
        let age = Duration::from_micros(u64::try_from(age).unwrap_or_default());
        (pending, if pending == 0 { Duration::ZERO } else { age })
    }

    /// Removes the group, whose queues would fill up otherwise, and lets go.
    async fn end(self, group: &str) {
        drop(time::timeout(Duration::from_secs(10), self.broker.remove(group)).await);
        self.database.close().await;
        self.tasks.stopping().cancel();
    }
}

async fn pause(random: &mut fastrand::Rng, millis: std::ops::Range<u64>) {
    time::sleep(Duration::from_millis(random.u64(millis))).await;
}
