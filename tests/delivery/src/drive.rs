//! Runs the service under test with real servers, does one thing after the other to it, and judges.

mod doing;
mod harm;
mod load;
mod matrix;
mod replicas;
mod round;
mod scale;
mod stage;
mod watch;

use std::{
    any::Any,
    fs,
    io::{self, Write as _},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
    time::Duration,
};

use tokio::{runtime, time::Instant};

use crate::{evidence::Evidence, judge::Fault};

pub use harm::Harm;
pub use matrix::{Matrix, Row};
pub use scale::{Scale, Scaled};
pub use stage::{BrokerKind, Combination, DatabaseKind};

use doing::Doing;
use round::Round;
use stage::Stage;

/// Faults of a round that are printed; all are in its folder.
const PRINTED_MAX: usize = 20;

/// Longest time that a round may take beside what is done in it, and that each of that may take. All that
/// is waited for has shorter bounds of its own; this is for what nobody thought of.
const ROUND_MAX: Duration = Duration::from_mins(5);
const STRIKE_MAX: Duration = Duration::from_secs(40);

/// Longest wait for the work of a round that is over.
const LEAVING: Duration = Duration::from_secs(5);

/// What is to be run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// On which brokers and databases, all at once.
    pub on: Vec<Combination>,
    /// What is done in each round, in an order that its seed decides.
    pub harms: Vec<Harm>,
    /// A round on each for each of them.
    pub seeds: Vec<u64>,
    /// How long a broker stands still.
    pub stop: Duration,
    /// Where what is known of each round is kept while it is needed: of good ones no longer than they
    /// last.
    pub folder: PathBuf,
    /// A file that tells how it went, anew after each round.
    pub matrix: Option<PathBuf>,
}

/// How a round went.
enum Outcome {
    /// It came to its end.
    Ended(Box<Evidence>),
    /// It did not, and why.
    Broken(String),
    /// It has not, and nobody waits any longer; it has the servers.
    Stuck(String),
    /// There is no such server on this machine.
    Skipped,
}

impl Plan {
    /// Runs it. Where a server cannot be had on this machine, nothing is run on it.
    ///
    /// # Errors
    ///
    /// If the folder or the matrix cannot be written.
    ///
    /// # Panics
    ///
    /// If there is no further thread.
    pub fn run(&self) -> io::Result<Matrix> {
        let matrix = Arc::<Mutex<Matrix>>::default();
        let works = self.on.iter().map(|on| {
            let (plan, matrix, on) = (self.clone(), Arc::clone(&matrix), *on);
            thread::spawn(move || plan.rounds(on, &matrix))
        });
        let works: Vec<_> = works.collect();
        for work in works {
            work.join().expect("rounds that end")?;
        }
        let matrix = matrix.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(matrix.clone())
    }

    /// All rounds on one broker and database.
    fn rounds(&self, on: Combination, matrix: &Mutex<Matrix>) -> io::Result<()> {
        let mut stage = None;
        for (turn, seed) in self.seeds.iter().enumerate() {
            let began = Instant::now();
            let folder = self.folder.join(on.to_string()).join(seed.to_string());
            let doing = Doing::default();
            let round = Round {
                harms: self.harms.clone(),
                seed: *seed,
                name: format!("r{turn}"),
                folder: folder.clone(),
                stop: self.stop,
                doing: doing.clone(),
            };
            let outcome;
            (outcome, stage) = self.play(on, round, stage);
            let faults = match &outcome {
                Outcome::Skipped => return Ok(()),
                Outcome::Ended(evidence) => evidence.faults(),
                Outcome::Broken(_) | Outcome::Stuck(_) => Vec::new(),
            };
            {
                let mut matrix = matrix.lock().unwrap_or_else(PoisonError::into_inner);
                match &outcome {
                    Outcome::Ended(evidence) => matrix.add(on, evidence, &faults),
                    _ => matrix.broken(on, &doing.what()),
                }
                if let Some(path) = &self.matrix {
                    fs::write(path, matrix.to_string())?;
                }
            }
            let took = began.elapsed().as_secs();
            let told = format!("{on}, round {} of {}", turn + 1, self.seeds.len());
            match outcome {
                Outcome::Ended(it) if faults.is_empty() => {
                    let events = it.committed.len();
                    say(&format!(
                        "{told}: good, {events} events in {took} s, seed {seed}"
                    ));
                    forget(&folder);
                }
                Outcome::Broken(why) => self.told(on, *seed, &folder, &[], Some(why)),
                Outcome::Stuck(why) => {
                    self.told(on, *seed, &folder, &[], Some(why));
                    break;
                }
                _ => self.told(on, *seed, &folder, &faults, None),
            }
        }
        Ok(())
    }

    /// Plays a round on a thread of its own; how it went and, where they are as they were, the servers.
    fn play(
        &self,
        on: Combination,
        round: Round,
        stage: Option<Stage>,
    ) -> (Outcome, Option<Stage>) {
        let (done, ended) = mpsc::sync_channel(1);
        let (doing, folder) = (round.doing.clone(), self.folder.join(on.to_string()));
        thread::spawn(move || {
            let played = catch_unwind(AssertUnwindSafe(|| played(on, round, stage, &folder)));
            let played = played.unwrap_or_else(|panic| (Outcome::Broken(said(&*panic)), None));
            // Nobody waits for it where it took too long.
            drop(done.send(played));
        });
        let strikes = u32::try_from(self.harms.len()).unwrap_or(u32::MAX);
        let bound = ROUND_MAX + self.stop + STRIKE_MAX * strikes;
        ended.recv_timeout(bound).unwrap_or_else(|_| {
            let what = doing.what();
            (
                Outcome::Stuck(format!("not over in {bound:?}: {what}")),
                None,
            )
        })
    }

    /// Says what is wrong with a round, where all of it is, and how it is run again.
    fn told(
        &self,
        on: Combination,
        seed: u64,
        folder: &Path,
        faults: &[Fault],
        why: Option<String>,
    ) {
        let stop = humantime::format_duration(self.stop);
        let mut command = format!("delivery real --on {on} --seed {seed} --stop {stop}");
        if self.harms.len() < Harm::all().len() {
            let only = self.harms.iter().flat_map(|it| [" --only ", it.name()]);
            command.extend(only);
        }
        let place = format!("all of it is in {}", folder.display());
        let why = why.map(|why| format!("it did not come to its end: {why}"));
        let printed = faults.iter().take(PRINTED_MAX).map(Fault::to_string);
        let more = faults.len().saturating_sub(PRINTED_MAX);
        let more = (more > 0).then(|| format!("and {more} more"));
        let lines = [format!("FAULTY: {command}"), place].into_iter().chain(why);
        let lines: Vec<_> = lines.chain(printed).chain(more).collect();
        let text = lines.join("\n");
        drop(fs::write(folder.join("faults"), &text));
        say(&text);
    }
}

/// Plays a round, on servers that are started where there are none.
fn played(
    on: Combination,
    round: Round,
    stage: Option<Stage>,
    folder: &Path,
) -> (Outcome, Option<Stage>) {
    let runtime = runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("threads for a round");
    let played = runtime.block_on(async {
        let mut stage = if let Some(stage) = stage {
            stage
        } else {
            round.doing.say("the start of its servers");
            let Some(stage) = Stage::start(on, folder).await? else {
                return Ok((Outcome::Skipped, None));
            };
            stage
        };
        let evidence = Box::pin(round.play(&mut stage)).await?;
        Ok::<_, io::Error>((Outcome::Ended(Box::new(evidence)), Some(stage)))
    });
    runtime.shutdown_timeout(LEAVING);
    played.unwrap_or_else(|error| (Outcome::Broken(error.to_string()), None))
}

/// What a panic says.
fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(|it| (*it).to_owned()));
    text.unwrap_or_else(|| "a panic without words".to_owned())
}

fn forget(folder: &Path) {
    // It is only in the way.
    drop(fs::remove_dir_all(folder));
}

fn say(text: &str) {
    // Nobody may listen.
    drop(writeln!(io::stdout().lock(), "{text}"));
}
