//! Histories made wrong on purpose: what finds nothing is no checker.

use crate::record::{Event, History, Operation, Outcome, Told, What};

/// What is done to a history, and by what name.
pub(crate) type Fault = (&'static str, fn(&mut History));

pub(crate) const FAULTS: [Fault; 9] = [
    ("a write is lost", |history| {
        let key = written(history);
        for watched in &mut history.watched {
            watched.told.retain(|told| {
                !matches!(told, Told::Event(event) if (event.revision, &event.key) == (key.0, &key.1))
            });
        }
    }),
    ("a write is replaced", |history| {
        let key = written(history);
        for event in history.watched.iter_mut().flat_map(|it| &mut it.told) {
            if let Told::Event(Event {
                revision,
                key: at,
                entry: Some(entry),
                ..
            }) = event
                && (*revision, &*at) == (key.0, &key.1)
            {
                "another".clone_into(&mut entry.value);
            }
        }
    }),
    ("an event comes twice", |history| {
        let told = &mut history.watched[1].told;
        let middle = told.len() / 2;
        told.insert(middle, told[middle].clone());
    }),
    ("events change places", |history| {
        let told = &mut history.watched[1].told;
        let middle = told.len() / 2;
        told.swap(middle, middle + 1);
    }),
    ("an event is missing", |history| {
        let told = &mut history.watched[1].told;
        told.remove(told.len() / 2);
    }),
    ("the last event is missing", |history| {
        history.watched[1].told.pop();
    }),
    ("what was there before is wrong", |history| {
        let events = history.watched[1].told.iter_mut().rev();
        let mut events = events.filter_map(|told| match told {
            Told::Event(Event {
                before: Some(entry),
                ..
            }) => Some(entry),
            _ => None,
        });
        events
            .next()
            .expect("an event of a key that was there")
            .version += 1;
    }),
    ("a read is stale", |history| {
        let reads = |it: &&Operation| it.what == What::Read && done(it);
        let reads: Vec<_> = history.operations.iter().filter(reads).cloned().collect();
        let old = reads.first().expect("a read").outcome.clone();
        let new = reads.last().expect("a read");
        // It reads what was true once, at that revision: only its time is wrong.
        let place = history
            .operations
            .iter_mut()
            .find(|it| it.begun == new.begun);
        let place = place.expect("the last read");
        place.outcome = old;
        place.key.clone_from(&reads[0].key);
    }),
    ("a refused write happened", |history| {
        let (revision, key) = written(history);
        let operations = history.operations.iter_mut();
        let mut written = operations.filter(|it| it.key == key && at(it) == Some(revision));
        written.next().expect("the write").outcome = Outcome::Refused("planted".to_owned());
    }),
];

fn done(operation: &Operation) -> bool {
    matches!(operation.outcome, Outcome::Done { .. })
}

fn at(operation: &Operation) -> Option<i64> {
    match operation.outcome {
        Outcome::Done {
            revision,
            applied: true,
            ..
        } => Some(revision),
        _ => None,
    }
}

/// A put that was acknowledged, by its revision and key.
fn written(history: &History) -> (i64, String) {
    let puts = history.operations.iter();
    let mut puts = puts.filter(|it| matches!(it.what, What::Put { .. }) && at(it).is_some());
    let put = puts.nth(3).expect("four puts");
    (at(put).expect("it was acknowledged"), put.key.clone())
}
