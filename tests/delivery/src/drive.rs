//! Runs the service under test with real servers, does one thing after the other to it, and judges.

mod harm;
mod load;
mod replicas;
mod round;
mod stage;

use std::{
    fmt, fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    time::Duration,
};

use crate::evidence::Summary;

pub use harm::Harm;
pub use stage::{BrokerKind, DatabaseKind};

use round::{Ended, Round};
use stage::{Broker, Place};

/// Faults of a round that are printed; all are in its folder.
const PRINTED_MAX: usize = 20;

/// What is to be run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// On which broker.
    pub broker: BrokerKind,
    /// On which database.
    pub database: DatabaseKind,
    /// What is done, a round each.
    pub harms: Vec<Harm>,
    /// All of that for each of them.
    pub seeds: Vec<u64>,
    /// How long a broker stands still.
    pub stop: Duration,
    /// Where what is known of each round is kept while it is needed: of good ones no longer than they
    /// last.
    pub folder: PathBuf,
}

/// How all rounds with one thing done to the system went.
#[derive(Debug, Clone)]
pub struct Row {
    harm: Harm,
    broker: BrokerKind,
    database: DatabaseKind,
    rounds: u64,
    faulty: u64,
    summary: Summary,
}

impl Row {
    /// Whether no round had a fault.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.faulty == 0
    }
}

impl Plan {
    /// Runs it; none where a server cannot be had on this machine.
    ///
    /// # Errors
    ///
    /// If the folder cannot be written.
    ///
    /// # Panics
    ///
    /// If a process or a server does not do what it must before anything can be judged. The folder of
    /// the round is named.
    pub async fn run(&self) -> io::Result<Option<Vec<Row>>> {
        let stage = self
            .folder
            .join(format!("{}-{}", self.broker, self.database));
        fs::create_dir_all(&stage)?;
        let Some(mut broker) = Broker::start(self.broker, &stage).await else {
            return Ok(None);
        };
        let Some(mut place) = Place::start(self.database, &stage).await? else {
            return Ok(None);
        };
        let mut rows = Vec::new();
        for (number, harm) in self.harms.iter().enumerate() {
            let mut row = Row {
                harm: *harm,
                broker: self.broker,
                database: self.database,
                rounds: 0,
                faulty: 0,
                summary: Summary::default(),
            };
            for (turn, seed) in self.seeds.iter().enumerate() {
                let folder = stage.join(format!("{}-{seed}", harm.name()));
                let round = Round {
                    harm: *harm,
                    seed: *seed,
                    name: format!("r{number}_{turn}"),
                    broker: &mut broker,
                    place: &mut place,
                    folder: folder.clone(),
                    stop: self.stop,
                };
                let kept = Kept {
                    folder,
                    round: self.told(*harm, *seed),
                    good: false,
                };
                row.add(&kept.judged(round.play().await?));
            }
            say(&row.to_string());
            rows.push(row);
        }
        Ok(Some(rows))
    }

    /// How a round is run alone.
    fn told(&self, harm: Harm, seed: u64) -> String {
        let (broker, database, harm) = (self.broker, self.database, harm.name());
        format!("--broker {broker} --database {database} --only {harm} --seed {seed}")
    }
}

impl Row {
    fn add(&mut self, ended: &Ended) {
        self.rounds += 1;
        self.faulty += u64::from(!ended.faults.is_empty());
        self.summary.add(ended.summary);
    }

    /// What its columns are.
    #[must_use]
    pub fn heading() -> String {
        format!(
            "{:<16} {:<9} {:<9} {:>5} {:>7} {:>10} {:>10} {:>9} {:>11} {:>7} {:>5}  VERDICT",
            "DONE TO IT",
            "BROKER",
            "DATABASE",
            "SEEDS",
            "EVENTS",
            "DELIVERIES",
            "DUPLICATES",
            "REWRITTEN",
            "REDELIVERED",
            "KNOWN",
            "DEAD",
        )
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Summary {
            committed,
            deliveries,
            duplicates,
            doubled,
            ..
        } = self.summary;
        let Summary {
            redelivered,
            deduplicated,
            dead,
            ..
        } = self.summary;
        let [broker, database] = [self.broker.to_string(), self.database.to_string()];
        write!(
            f,
            "{:<16} {broker:<9} {database:<9} {:>5} {committed:>7} {deliveries:>10} \
             {duplicates:>10} {doubled:>9} {redelivered:>11} {deduplicated:>7} {dead:>5}  ",
            self.harm.name(),
            self.rounds,
        )?;
        match self.faulty {
            0 => f.write_str("good"),
            count => write!(f, "{count} of {} FAULTY", self.rounds),
        }
    }
}

/// Names the folder of a round that did not go well, whatever that was.
struct Kept {
    folder: PathBuf,
    round: String,
    good: bool,
}

impl Kept {
    /// Prints what is wrong, or forgets the round.
    fn judged(mut self, ended: Ended) -> Ended {
        self.good = ended.faults.is_empty();
        for fault in ended.faults.iter().take(PRINTED_MAX) {
            say(&fault.to_string());
        }
        if ended.faults.len() > PRINTED_MAX {
            say(&format!("and {} more", ended.faults.len() - PRINTED_MAX));
        }
        ended
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if self.good {
            forget(&self.folder);
        } else {
            say(&format!(
                "FAULTY: {}\nall of it is in {}",
                self.round,
                self.folder.display()
            ));
        }
    }
}

fn forget(folder: &Path) {
    // It is only in the way.
    drop(fs::remove_dir_all(folder));
}

fn say(text: &str) {
    // Nobody may listen.
    drop(writeln!(io::stdout().lock(), "{text}"));
}
