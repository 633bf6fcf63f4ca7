//! How much faster a consumer is with several instances, whose handlers wait.

use std::{fmt, fs, io, path::PathBuf, time::Duration};

use gantry_events::Outbox;
use gantry_store::{Config as DatabaseConfig, Database, Statement};
use tokio::time::{self, Instant};

use super::{
    replicas::{Replicas, Settings},
    stage::{self, Combination, Stage},
};
use crate::{contract::PostRequest, evidence::Measure, ledger, service::NAME};

/// How long a handler waits for each event.
const WAIT: Duration = Duration::from_millis(20);

/// Instances that share the work.
const INSTANCES: usize = 3;

/// Queues: as many for each instance.
const PARTITIONS: u16 = 12;

/// Events of one key are done one after the other: enough of them that it is not for that.
const KEYS: u64 = 120;

/// Longest time until anything comes about.
const SOON: Duration = Duration::from_mins(3);

const LOOK: Duration = Duration::from_millis(20);

const PENDING: Statement = Statement::new(
    "delivery.pending",
    "SELECT COUNT(*) AS pending FROM event_outbox WHERE state = 0",
);
const EFFECTS: Statement = Statement::new(
    "delivery.effects",
    "SELECT COUNT(*) AS effects FROM effects",
);
const SHARES: Statement = Statement::new(
    "delivery.shares",
    "SELECT (SELECT COUNT(*) FROM event_members) AS members,
            (SELECT COUNT(DISTINCT owner) FROM event_partitions) AS owners,
            (SELECT COUNT(*) FROM event_partitions
             WHERE owner NOT IN (SELECT instance FROM event_members)) AS strays",
);

/// What is to be measured.
#[derive(Debug, Clone)]
pub struct Scale {
    /// On which broker and database.
    pub on: Combination,
    /// Events that each process handles at once.
    pub handlers_max: usize,
    /// Events that are there to be consumed each time.
    pub events: u64,
    /// How often one instance and three take turns at it.
    pub turns: usize,
    /// Where the servers keep what they have.
    pub folder: PathBuf,
}

/// How fast events were consumed, each time.
#[derive(Debug, Clone)]
pub struct Scaled {
    turns: Vec<Turn>,
}

/// What one instance did, and what three did right after it.
#[derive(Debug, Clone)]
struct Turn {
    one: Work,
    three: Work,
}

/// What instances did.
#[derive(Debug, Clone)]
struct Work {
    /// Events per second of all.
    rate: f64,
    /// Events of each, since all had their share.
    done: Vec<u64>,
}

impl Turn {
    fn ratio(&self) -> f64 {
        self.three.rate / self.one.rate
    }
}

impl Work {
    /// The share of whoever did least.
    fn least(&self) -> f64 {
        let least = self.done.iter().min().copied().unwrap_or_default();
        float(least) / float(self.done.iter().sum::<u64>().max(1))
    }
}

impl Scaled {
    /// How many times as fast three are: in the middle of all turns.
    #[must_use]
    pub fn ratio(&self) -> f64 {
        self.spread(Turn::ratio)[1]
    }

    /// The smallest share of the work that one of three did, in any turn: a third where all do the same.
    #[must_use]
    pub fn least(&self) -> f64 {
        self.spread(|turn| turn.three.least())[0]
    }

    /// The smallest, the one in the middle and the largest of a figure.
    fn spread(&self, figure: impl Fn(&Turn) -> f64) -> [f64; 3] {
        let mut all: Vec<_> = self.turns.iter().map(figure).collect();
        all.sort_by(f64::total_cmp);
        let last = all.len() - 1;
        [all[0], all[last / 2], all[last]]
    }
}

impl fmt::Display for Scaled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [least, one, most] = self.spread(|turn| turn.one.rate);
        write!(f, "one instance {one:.0}/s ({least:.0} to {most:.0}), ")?;
        let [least, three, most] = self.spread(|turn| turn.three.rate);
        write!(f, "three {three:.0}/s ({least:.0} to {most:.0}): ")?;
        let [least, ratio, most] = self.spread(Turn::ratio);
        write!(f, "{ratio:.2} times as much ({least:.2} to {most:.2}); ")?;
        let (turns, least) = (self.turns.len(), self.least() * 100.0);
        write!(
            f,
            "turns: {turns}; none of three did less than {least:.0} % of it"
        )
    }
}

impl Scale {
    /// Measures it; none where a server cannot be had on this machine.
    ///
    /// # Errors
    ///
    /// If the folder cannot be written.
    ///
    /// # Panics
    ///
    /// If events are not consumed within three minutes.
    pub async fn run(&self) -> io::Result<Option<Scaled>> {
        fs::create_dir_all(&self.folder)?;
        let Some(stage) = Stage::start(self.on, &self.folder).await? else {
            return Ok(None);
        };
        let settings = |name: &str| Settings {
            database: stage.place.url(name),
            broker: stage::config(&stage.broker),
            outputs: self.folder.clone(),
            logs: self.folder.join(name),
            consumer: name.to_owned(),
            more: vec![
                ("LEDGER__WAIT", format!("{}ms", WAIT.as_millis())),
                ("EVENTS__CONSUMER__PARTITIONS", PARTITIONS.to_string()),
                (
                    "EVENTS__CONSUMER__HANDLERS_MAX",
                    self.handlers_max.to_string(),
                ),
            ],
        };
        let mut turns = Vec::new();
        for turn in 0..self.turns {
            turns.push(Turn {
                one: self.work(settings(&format!("one{turn}")), 1).await,
                three: self
                    .work(settings(&format!("three{turn}")), INSTANCES)
                    .await,
            });
        }
        Ok(Some(Scaled { turns }))
    }

    /// What so many instances do.
    async fn work(&self, settings: Settings, instances: usize) -> Work {
        // Makes the queues, so that there is somebody to publish for.
        let first = Replicas::start(settings.clone(), 1).await;
        let config = DatabaseConfig {
            url: settings.database.parse().expect("a database"),
            ..DatabaseConfig::default()
        };
        let database = Database::open_existing(&config)
            .await
            .expect("a database that is there");
        until("a first instance has all", async || {
            shared(&database, 1).await
        })
        .await;
        first.stop().await;
        let mut publishers = settings.clone();
        let idle = ("LEDGER__CONSUMES", "false".to_owned());
        publishers.more.push(idle);
        let publisher = Replicas::start(publishers, 1).await;
        self.publish(&database).await;
        until("all is published", async || {
            let row = database.statement(&PENDING).fetch_one().await;
            row.expect("rows of the outbox").integer("pending").ok() == Some(0)
        })
        .await;
        publisher.stop().await;

        let consumers = Replicas::start(settings, instances).await;
        until("all have their share", async || {
            shared(&database, instances).await
        })
        .await;
        let before = done(&consumers).await;
        let (began, from) = (Instant::now(), effects(&database).await);
        // The last keys and queues are done by few.
        let all = i64::try_from(self.events).unwrap_or(i64::MAX);
        let enough = from + (all - from) * 4 / 5;
        until("most is consumed", async || {
            effects(&database).await >= enough
        })
        .await;
        let count = effects(&database).await - from;
        let took = began.elapsed();
        until("all is consumed", async || effects(&database).await >= all).await;
        let after = done(&consumers).await;
        consumers.stop().await;
        database.close().await;
        let count = u64::try_from(count).unwrap_or_default();
        Work {
            rate: float(count) / took.as_secs_f64(),
            done: after
                .iter()
                .zip(before)
                .map(|(after, before)| after - before)
                .collect(),
        }
    }

    async fn publish(&self, database: &Database) {
        let outbox = Outbox::open(database, NAME).await.expect("an outbox");
        for number in 0..self.events {
            let request = PostRequest {
                request_id: format!("{number}"),
                account: format!("{}", number % KEYS),
                amount: 1,
                ..PostRequest::default()
            };
            let posted = ledger::post(database, &outbox, request).await;
            posted.expect("a change that is written down");
        }
    }
}

/// Effects so far.
async fn effects(database: &Database) -> i64 {
    let row = database.statement(&EFFECTS).fetch_one().await;
    let row = row.expect("rows of a consumer");
    row.integer("effects").expect("a count")
}

/// Events that each instance has done so far.
async fn done(consumers: &Replicas) -> Vec<u64> {
    let processes = consumers.processes().await.into_values();
    let done = processes.map(|it| it.told.get(&Measure::Acked).copied());
    done.map(Option::unwrap_or_default).collect()
}

fn float(count: u64) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

/// Whether so many instances, and no others, have all queues.
async fn shared(database: &Database, instances: usize) -> bool {
    let row = database.statement(&SHARES).fetch_one().await;
    let row = row.expect("rows of a consumer");
    let column = |name| row.narrow::<usize>(name).expect("a count");
    (column("members"), column("owners"), column("strays")) == (instances, instances, 0)
}

async fn until(what: &str, met: impl AsyncFn() -> bool) {
    let looked = async {
        while !met().await {
            time::sleep(LOOK).await;
        }
    };
    let met = time::timeout(SOON, looked).await;
    assert!(met.is_ok(), "{what}: not in time");
}
