//! Whether a history could be of a store that does one thing after another.
//!
//! Revisions say the order, so nothing has to be searched: the first watcher's events are replayed,
//! and then every answer must fit the state at its revision, every revision the real order of
//! requests, every event someone who asked for it, and every other watcher the first. What was
//! refused must have been wrong, and keys must go with their leases, neither before nor after.

mod answers;
mod leases;
mod refusals;
mod watchers;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::Duration,
};

use crate::record::{Entries, Entry, Event, History, Operation, Told, What};
use leases::Leases;

pub(crate) use leases::SLACK;

/// What happened, replayed from the first watcher's events.
struct Log {
    /// In the order in which the first watcher was told.
    told: Vec<Event>,
    events: BTreeMap<(i64, String), Event>,
    /// Each key through time.
    keys: HashMap<String, BTreeMap<i64, Option<Entry>>>,
    /// When each revision had happened at the latest, by its number.
    known: Vec<Duration>,
}

/// Finds what is wrong with a history.
pub(crate) fn faults(history: &History) -> Vec<String> {
    let (log, mut faults) = replay(history);
    let leases = Leases::new(history);
    answers::check(&history.operations, &log, &mut faults);
    refusals::check(history, &leases, &mut faults);
    leases.check(history, &log, &mut faults);
    origins(history, &log, &leases, &mut faults);
    watchers::check(history, &log, &mut faults);
    faults
}

/// How many keys went with their leases, as far as can be told.
pub(crate) fn ended(history: &History) -> usize {
    let (log, _) = replay(history);
    let leases = Leases::new(history);
    let events = log.events.iter();
    let gone = events.filter(|(_, event)| event.entry.is_none());
    gone.filter(|((revision, key), _)| leases.could_end(&log, key, *revision))
        .count()
}

fn replay(history: &History) -> (Log, Vec<String>) {
    let mut faults = Vec::new();
    let mut log = Log {
        told: Vec::new(),
        events: BTreeMap::new(),
        keys: HashMap::new(),
        known: known(history),
    };
    for told in &history.watched[0].told {
        let event = match told {
            Told::Event(event) => event,
            Told::Progress(_) => continue,
            Told::Skipped(_) => {
                faults.push("the first watcher missed something".to_owned());
                continue;
            }
        };
        let before = log.at(&event.key, event.revision - 1);
        let right = match (&event.entry, &before) {
            (None, before) => before.is_some(),
            (Some(new), None) => new.version == 1 && new.created == event.revision,
            (Some(new), Some(old)) => new.version == old.version + 1 && new.created == old.created,
        };
        if !right {
            faults.push(format!("{event:?} does not follow {before:?}"));
        }
        let versions = log.keys.entry(event.key.clone()).or_default();
        versions.insert(event.revision, event.entry.clone());
        log.told.push(event.clone());
        let place = (event.revision, event.key.clone());
        if log.events.insert(place, event.clone()).is_some() {
            faults.push(format!("two events of one key at once: {event:?}"));
        }
    }
    let revisions: HashSet<_> = log.events.keys().map(|(revision, _)| *revision).collect();
    for revision in 2..=history.last {
        if !revisions.contains(&revision) {
            faults.push(format!("nothing was changed at revision {revision}"));
        }
    }
    (log, faults)
}

/// When each revision had happened at the latest: when anyone was told of it, or of a later one.
fn known(history: &History) -> Vec<Duration> {
    let last = usize::try_from(history.last).expect("a revision");
    let mut known = vec![Duration::MAX; last + 1];
    let mut seen = |revision: i64, at: Duration| {
        let place = usize::try_from(revision).map_or(0, |it| it.min(last));
        known[place] = known[place].min(at);
    };
    for told in history.watched.iter().flat_map(|it| &it.told) {
        if let Told::Event(event) = told {
            seen(event.revision, event.at);
        }
    }
    for operation in &history.operations {
        if let Some((revision, ..)) = operation.done() {
            seen(revision, operation.ended.at);
        }
    }
    for revision in (0..last).rev() {
        known[revision] = known[revision].min(known[revision + 1]);
    }
    known
}

impl Log {
    fn at(&self, key: &str, revision: i64) -> Option<Entry> {
        let versions = self.keys.get(key)?;
        versions.range(..=revision).next_back()?.1.clone()
    }

    /// What was there at a revision, of the keys that `operation` is about.
    fn state(&self, operation: &Operation, revision: i64) -> Entries {
        let keys = self.keys.keys().filter(|key| operation.covers(key));
        keys.filter_map(|key| Some((key.clone(), self.at(key, revision)?)))
            .collect()
    }

    fn event(&self, key: &str, revision: i64) -> Option<&Event> {
        self.events.get(&(revision, key.to_owned()))
    }

    /// When a revision had happened at the latest.
    fn known(&self, revision: i64) -> Duration {
        let place = usize::try_from(revision).unwrap_or(0);
        self.known.get(place).copied().unwrap_or(Duration::MAX)
    }
}

/// Every event is someone's, of whom it is not known that it is not; and all of a revision are of
/// the same.
fn origins(history: &History, log: &Log, leases: &Leases<'_>, faults: &mut Vec<String>) {
    let mut puts = HashMap::new();
    let mut deletes: HashMap<&str, Vec<&Operation>> = HashMap::new();
    for operation in &history.operations {
        match &operation.what {
            What::Put { value, .. } | What::Swap { value, .. } => {
                puts.insert((operation.key.as_str(), value.as_str()), operation);
            }
            What::Delete => deletes.entry(&operation.key).or_default().push(operation),
            What::Many { changes, .. } => {
                for (key, value) in changes {
                    match value {
                        Some(value) => drop(puts.insert((key, value), operation)),
                        None => deletes.entry(key).or_default().push(operation),
                    }
                }
            }
            _ => {}
        }
    }
    let could = |operation: &Operation, revision: i64| match operation.done() {
        Some((at, applied, _)) => applied && at == revision,
        None => operation.possible(),
    };
    let mut used = HashSet::new();
    let mut origin: HashMap<i64, u64> = HashMap::new();
    for ((revision, key), event) in &log.events {
        let known = if let Some(entry) = &event.entry {
            let operation = puts.get(&(key.as_str(), entry.value.as_str()));
            let whose = operation.map_or(0, |it| it.begun.order);
            if *origin.entry(*revision).or_insert(whose) != whose {
                faults.push(format!(
                    "{event:?} shares its revision with another request"
                ));
            }
            used.insert(entry.value.as_str()) && operation.is_some_and(|it| could(it, *revision))
        } else {
            let asked = deletes.get(key.as_str());
            asked.is_some_and(|all| all.iter().any(|it| could(it, *revision)))
                || leases.could_end(log, key, *revision)
        };
        if !known {
            faults.push(format!("nobody asked for {event:?}"));
        }
    }
}
