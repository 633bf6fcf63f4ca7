//! Histories made wrong on purpose: what finds nothing is no checker.

mod events;
mod requests;

use crate::record::{Event, History, Operation, Told, What};

/// What is done to a history, by what name, and what is to be found then.
pub(crate) struct Fault {
    pub(crate) name: &'static str,
    pub(crate) found: &'static str,
    /// Answers with none where the history has nothing of which it could be made.
    pub(crate) plant: fn(&mut History) -> Option<()>,
}

/// All of them.
pub(crate) fn faults() -> impl Iterator<Item = &'static Fault> {
    events::FAULTS.iter().chain(&requests::FAULTS)
}

/// The first operation that is as `wanted`.
fn find(history: &mut History, wanted: impl Fn(&Operation) -> bool) -> Option<&mut Operation> {
    history.operations.iter_mut().find(|it| wanted(it))
}

fn revision(operation: &Operation) -> i64 {
    operation.done().map_or(0, |(revision, ..)| revision)
}

/// What watchers were told as events; the first watcher's are all there are.
fn told(history: &History) -> impl Iterator<Item = &Event> {
    let told = history.watched[0].told.iter();
    told.filter_map(|told| match told {
        Told::Event(event) => Some(event),
        _ => None,
    })
}

/// Takes a change from all that watchers were told.
fn lose(history: &mut History, revision: i64, key: &str) {
    for watched in &mut history.watched {
        watched.told.retain(
            |told| !matches!(told, Told::Event(it) if it.revision == revision && it.key == key),
        );
    }
}

/// A put that was acknowledged, by its revision and key.
fn written(history: &History) -> Option<(i64, String)> {
    let puts = history.operations.iter();
    let mut puts = puts.filter(|it| matches!(it.what, What::Put { .. }) && it.applied());
    let put = puts.nth(3)?;
    Some((revision(put), put.key.clone()))
}

/// A transaction that put two keys or more: its place among the operations, its revision, and the
/// last key it put.
fn torn(history: &History) -> Option<(usize, i64, String)> {
    let mut all = history.operations.iter().enumerate();
    all.find_map(|(place, operation)| {
        let What::Many { changes, .. } = &operation.what else {
            return None;
        };
        let puts: Vec<_> = changes
            .iter()
            .filter(|(_, value)| value.is_some())
            .collect();
        let (key, _) = puts
            .last()
            .filter(|_| puts.len() > 1 && operation.applied())?;
        Some((place, revision(operation), key.clone()))
    })
}
