//! What watchers are told: every change once and in order, and what they cannot be told.

use super::{
    Log,
    refusals::{acknowledged, possible},
};
use crate::record::{Event, History, Operation, Skipped, Told, Watched};

pub(super) fn check(history: &History, log: &Log, faults: &mut Vec<String>) {
    for (number, watched) in history.watched.iter().enumerate() {
        if let Err(fault) = watcher(watched, history, log) {
            faults.push(format!("watcher {number} {fault}"));
        }
    }
}

/// A watcher is told of every change of its keys, once and in order, and what was there before.
fn watcher(watched: &Watched, history: &History, log: &Log) -> Result<(), String> {
    let (from, to) = &watched.keys;
    let wanted = log.told.iter();
    let mut wanted = wanted
        .filter(|event| *from <= event.key && event.key < *to)
        .peekable();
    let compacted = possible(history, |_| true).max().unwrap_or(-1);
    for told in &watched.told {
        let event = match told {
            Told::Event(event) => event,
            Told::Progress(revision) => {
                if let Some(missed) = wanted.next_if(|event| event.revision <= *revision) {
                    return Err(format!("was told progress to {revision} before {missed:?}"));
                }
                if *revision > history.last {
                    return Err(format!("was told progress to {revision}, never reached"));
                }
                continue;
            }
            Told::Skipped(skipped) => {
                if !skipped_rightly(skipped, history) {
                    return Err(format!("was told without reason: {skipped:?}"));
                }
                while wanted
                    .next_if(|event| event.revision < skipped.revision)
                    .is_some()
                {}
                continue;
            }
        };
        let same = |wanted: &Event| {
            (wanted.revision, &wanted.key, &wanted.entry)
                == (event.revision, &event.key, &event.entry)
        };
        let expected = wanted.next();
        if !expected.is_some_and(same) {
            return Err(format!("told {event:?}, not {expected:?}"));
        }
        let before = log.at(&event.key, event.revision - 1);
        let forgotten = event.before.is_none() && event.revision - 1 < compacted;
        if event.before != before && !forgotten {
            return Err(format!("told {event:?} after {before:?}"));
        }
    }
    match wanted.next() {
        Some(missed) => Err(format!("was not told {missed:?}")),
        None => Ok(()),
    }
}

/// Whether what a watcher wanted could be gone, with history beginning where it was told: someone
/// asked for just that before it was told, and nobody had more acknowledged before it asked.
fn skipped_rightly(skipped: &Skipped, history: &History) -> bool {
    let asked = |revision| {
        possible(history, |it| it.begun.order < skipped.ended.order).any(|it| it == revision)
    };
    let before = |it: &Operation| it.ended.order < skipped.begun.order;
    skipped.wanted < skipped.revision
        && asked(skipped.revision)
        && acknowledged(&history.operations, before) <= skipped.revision
}
