//! The outbox, the relay and the consumer as they are, in one process with a broker in memory that fails
//! in every way: thousands of runs, each of a seed of its own, judged like those of real servers.
//!
//! ```text
//! seed ─▶ script ─▶ processes, each behind a gate ─┬▶ database, a file in memory
//!            │                                     └▶ broker, in memory
//!            └─▶ requests        tape ◀── all of it ─▶ Evidence
//! ```
//!
//! A run has one thread and a clock that stands still while anything is done, and its statements are
//! done [one after the other](gantry_store::testing): so it is the same whenever its seed is played, but
//! for the identifiers of its events. A process ends, or stands still, at its [gate](gate): wherever it
//! asks its database or its broker for something.
//!
//! Of the seven assertions, that of how fast a backlog goes away says nothing on such a clock, and is
//! left out but for that all must come to rest.

mod behind;
mod drawn;
mod gate;
mod handler;
mod measured;
mod process;
mod said;
mod script;
mod tape;
mod world;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{self, Write as _},
    path::PathBuf,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use tokio::{
    runtime::{Builder, Runtime},
    time::Instant,
};

pub(crate) use self::tape::{Tape, What};
use self::{
    gate::{Counts, Point},
    script::Played,
    world::World,
};
use crate::{evidence::Summary, judge::Fault};

/// How often it is said how far it is.
const SAY: Duration = Duration::from_secs(5);

/// Faulty runs after which no further one begins.
const FAULTY_MAX: u64 = 5;

/// Faults of a run, and lines of its history, that are printed; all are kept.
const FAULTS_MAX: usize = 10;
const LINES_MAX: usize = 60;

/// From so many runs on, everything must have happened: fewer prove nothing of it by chance.
const EVERYTHING: u64 = 1_000;

/// What must have happened, beside the ends at each point.
const MUST: [&str; 24] = [
    "killed",
    "stood still",
    "stood still at a point",
    "relays passed by",
    "joined",
    "left",
    "the broker was away",
    "the broker took nothing",
    "subscriptions ended",
    "refused",
    "unroutable",
    "blocked",
    "not confirmed in time",
    "disconnected while publishing",
    "taken and not confirmed",
    "attempts failed",
    "attempts panicked",
    "attempts took too long",
    "events rejected",
    "stale claims refused",
    "instances taken over from",
    "published again",
    "redelivered",
    "known",
];

/// Runs that are to be played.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// The first seed; the others follow it.
    pub first: u64,
    /// How many.
    pub seeds: u64,
    /// How many at once.
    pub threads: usize,
}

/// How the runs go.
#[derive(Debug, Default)]
struct Progress {
    begun: AtomicU64,
    played: AtomicU64,
    faulty: AtomicU64,
    working: AtomicUsize,
    summary: Mutex<Summary>,
    counts: Counts,
}

impl Plan {
    /// Plays them, saying how far they are; answers whether all were good, and everything happened that
    /// must.
    ///
    /// # Errors
    ///
    /// If a history cannot be kept.
    ///
    /// # Panics
    ///
    /// If there is no room for a database.
    pub fn run(self) -> io::Result<bool> {
        let began = Instant::now();
        let progress = Progress::default();
        let first = self.first;
        say(&format!("{} runs from seed {first} on", self.seeds));
        let errors = thread::scope(|scope| {
            progress.working.store(self.threads, Ordering::Release);
            let this = thread::current();
            let workers: Vec<_> = (0..self.threads)
                .map(|_| {
                    let (this, progress) = (this.clone(), &progress);
                    scope.spawn(move || {
                        let worked = self.work(progress);
                        progress.working.fetch_sub(1, Ordering::Release);
                        this.unpark();
                        worked
                    })
                })
                .collect();
            let mut said = Instant::now();
            while progress.working.load(Ordering::Acquire) > 0 {
                thread::park_timeout(SAY);
                if said.elapsed() >= SAY {
                    said = Instant::now();
                    let played = progress.played.load(Ordering::Relaxed);
                    let (seeds, seconds) = (self.seeds, began.elapsed().as_secs());
                    say(&format!("{played} of {seeds} runs in {seconds} s"));
                }
            }
            let ended = workers.into_iter().map(thread::ScopedJoinHandle::join);
            ended.collect::<Vec<_>>()
        });
        for error in errors {
            error.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        Ok(progress.tell(self, began.elapsed()))
    }

    /// Plays one after the other, as long as there are any.
    fn work(self, progress: &Progress) -> io::Result<()> {
        let stage = Stage::make()?;
        while progress.faulty.load(Ordering::Relaxed) < FAULTY_MAX {
            let number = progress.begun.fetch_add(1, Ordering::Relaxed);
            if number >= self.seeds {
                break;
            }
            let seed = self.first.wrapping_add(number);
            let played = stage.play(seed, &progress.counts)?;
            let faults = played.evidence.faults();
            let summary = played.evidence.summary();
            let mut sum = progress.summary.lock();
            sum.as_mut().map_or_else(
                |poisoned| poisoned.get_mut().add(summary),
                |sum| sum.add(summary),
            );
            progress.played.fetch_add(1, Ordering::Relaxed);
            if !faults.is_empty() {
                progress.faulty.fetch_add(1, Ordering::Relaxed);
                keep(seed, &played, &faults)?;
            }
        }
        Ok(())
    }
}

/// What runs are played on, one after the other.
struct Stage {
    world: World,
    // The connections belong to it.
    _runtime: Runtime,
}

impl Stage {
    fn make() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let world = runtime.block_on(World::make());
        Ok(Self {
            world,
            _runtime: runtime,
        })
    }

    fn play(&self, seed: u64, counts: &Counts) -> io::Result<Played> {
        let mut builder = Builder::new_current_thread();
        let runtime = builder.enable_time().start_paused(true).build()?;
        let _ear = tracing::subscriber::set_default(said::Ear);
        let played = runtime.block_on(script::play(&self.world, seed, counts));
        let played = played.map_err(io::Error::other)?;
        let Summary {
            doubled,
            redelivered,
            deduplicated,
            ..
        } = played.evidence.summary();
        counts.add("published again", doubled);
        counts.add("redelivered", redelivered);
        counts.add("known", deduplicated);
        Ok(played)
    }
}

impl Progress {
    /// Says how it went; answers whether it went well.
    fn tell(self, plan: Plan, took: Duration) -> bool {
        let played = self.played.into_inner();
        let faulty = self.faulty.into_inner();
        let counts = self.counts.all();
        let must = Point::ALL.iter().map(|it| it.name()).chain(MUST);
        let missing: Vec<_> = must
            .filter(|what| counts.get(what).copied().unwrap_or(0) == 0)
            .collect();
        for (what, count) in &counts {
            say(&format!("{count:>9}  {what}"));
        }
        let summary = self
            .summary
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        let Summary {
            requests,
            committed,
            deliveries,
            duplicates,
            dead,
            ..
        } = summary;
        let proven = played < EVERYTHING || missing.is_empty();
        if !proven {
            say(&format!("never happened: {}", missing.join(", ")));
        }
        let good = faulty == 0 && proven && played == plan.seeds;
        let verdict = if good { "good" } else { "FAULTY" };
        let (first, seconds) = (plan.first, took.as_secs_f64());
        say(&format!(
            "{played} runs from seed {first} on in {seconds:.1} s: {requests} requests, {committed} events, \
             {deliveries} deliveries, {duplicates} of them duplicates, {dead} dead letters; {faulty} \
             faulty: {verdict}"
        ));
        good
    }
}

/// Plays the run of one seed, and prints all that happens in it; answers whether it was good.
///
/// # Errors
///
/// If it cannot be played.
///
/// # Panics
///
/// If there is no room for a database.
pub fn replay(seed: u64) -> io::Result<bool> {
    let stage = Stage::make()?;
    let played = stage.play(seed, &Counts::default())?;
    for line in played.tape.told() {
        say(&line);
    }
    let faults = played.evidence.faults();
    for fault in &faults {
        say(&fault.to_string());
    }
    let again = stage.play(seed, &Counts::default())?;
    if let Some(line) = difference(&played, &again) {
        say(&format!("played again, it is another run: {line}"));
    }
    Ok(faults.is_empty())
}

/// The first line of `other` that is not the same, but for the identifiers of events.
fn difference(one: &Played, other: &Played) -> Option<String> {
    let (one, other) = (nameless(one), nameless(other));
    let lines = one.iter().zip(&other);
    let same = lines.take_while(|(one, other)| one == other).count();
    let line = other.get(same).cloned();
    line.or_else(|| one.get(same).map(|_| "it ends before".to_owned()))
}

/// The history of a run with a number for each identifier.
fn nameless(played: &Played) -> Vec<String> {
    let mut names = BTreeMap::<String, usize>::new();
    let mut lines = played.tape.told();
    for line in &mut lines {
        let parts = line.split_inclusive(|it: char| !(it.is_ascii_hexdigit() || it == '-'));
        let parts = parts.map(|part| {
            let name = part.trim_end_matches(|it: char| !(it.is_ascii_hexdigit() || it == '-'));
            if name.len() != 36 {
                return part.to_owned();
            }
            let count = names.len();
            let number = *names.entry(name.to_owned()).or_insert(count);
            format!("#{number}{}", &part[36..])
        });
        *line = parts.collect();
    }
    lines
}

/// Keeps the history of a run that is not good, and prints what it is about.
fn keep(seed: u64, played: &Played, faults: &[Fault]) -> io::Result<()> {
    let path: PathBuf = std::env::temp_dir().join(format!("gantry-delivery-model-{seed}.txt"));
    let lines = played.tape.told();
    let told: Vec<_> = faults.iter().map(ToString::to_string).collect();
    let evidence = serde_json::to_string_pretty(&played.evidence)?;
    fs::write(
        &path,
        format!(
            "{}\n\n{}\n\n{evidence}\n",
            lines.join("\n"),
            told.join("\n")
        ),
    )?;
    let ids: BTreeSet<_> = faults.iter().flat_map(|it| &it.ids).collect();
    let about = lines
        .iter()
        .filter(|line| line.contains(" -- ") || ids.iter().any(|id| line.contains(&**id)));
    for fault in told.iter().take(FAULTS_MAX) {
        say(&format!("seed {seed}: {fault}"));
    }
    for line in about.take(LINES_MAX) {
        say(line);
    }
    let path = path.display();
    say(&format!(
        "FAULTY: all of it is in {path}; again with: delivery model --seed {seed}"
    ));
    Ok(())
}

fn say(text: &str) {
    // Nobody may listen.
    drop(writeln!(io::stdout().lock(), "{text}"));
}

#[cfg(test)]
mod tests;
