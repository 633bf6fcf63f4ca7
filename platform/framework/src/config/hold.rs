//! Keeps what only a restart changes.

use std::collections::HashMap;

use super::{
    Apply, Entry, Pending,
    layers::Origins,
    reader::{Group, Notes},
    tree::{self, Table},
};

/// A configuration as it runs: its values, and what was noted while they were read.
#[derive(Clone)]
pub(super) struct Running {
    pub(super) table: Table,
    pub(super) origins: Origins,
    pub(super) entries: Vec<Entry>,
    pub(super) groups: Vec<Group>,
}

/// Values are left out: they may be secrets.
impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running")
            .field("entries", &self.entries)
            .finish_non_exhaustive()
    }
}

/// The values to run with while others wait for a restart.
pub(super) struct Held {
    pub(super) table: Table,
    pub(super) origins: Origins,
    /// The keys, and members of maps, that wait.
    pub(super) pending: Vec<String>,
}

impl Held {
    /// Takes `table`, which is valid and was noted as `notes`, but for what differs from `running`
    /// and needs a restart.
    ///
    /// A member that joins a `live` map is taken whole: nothing of it runs yet.
    pub(super) fn new(running: &Running, table: &Table, origins: &Origins, notes: &Notes) -> Self {
        let mut held = Self {
            table: table.clone(),
            origins: origins.clone(),
            pending: Vec::new(),
        };
        for group in &notes.groups {
            if group.apply == Apply::Restart && running.groups.contains(group) {
                held.keep_members(running, group);
            }
        }
        let after = by_key(&notes.entries);
        for before in &running.entries {
            let after = after.get(before.key.as_str());
            let changed = after.is_some_and(|after| after.identity != before.identity);
            if before.apply == Apply::Restart && changed {
                held.keep(running, &before.steps);
            }
        }
        held
    }

    /// Undoes the coming and going of members.
    fn keep_members(&mut self, running: &Running, group: &Group) {
        if !group.named {
            let was = tree::get(&running.table, &group.steps).is_some();
            let is = tree::get(&self.table, &group.steps).is_some();
            if was != is {
                self.keep(running, &group.steps);
            }
            return;
        }
        let before = tree::names(&running.table, &group.steps);
        let after = tree::names(&self.table, &group.steps);
        let come = after.iter().filter(|name| !before.contains(name));
        let gone = before.iter().filter(|name| !after.contains(name));
        let changed: Vec<_> = come.chain(gone).map(|name| (*name).clone()).collect();
        for name in changed {
            let mut steps = group.steps.clone();
            steps.push(name);
            self.keep(running, &steps);
        }
    }

    /// Puts back what runs, or that nothing does.
    fn keep(&mut self, running: &Running, steps: &[String]) {
        match tree::get(&running.table, steps) {
            Some(value) => {
                let value = self.origins.adopt(value, &running.origins);
                tree::set(&mut self.table, steps, value);
            }
            None => tree::remove(&mut self.table, steps),
        }
        self.pending.push(tree::join(steps));
    }

    /// Says at each entry that waits what it will be; `after` are the entries of what waits.
    pub(super) fn mark(&self, entries: &mut [Entry], after: &[Entry]) {
        if self.pending.is_empty() {
            return;
        }
        let after = by_key(after);
        for entry in entries {
            if self.pending.contains(&entry.key) {
                let after = after.get(entry.key.as_str());
                entry.pending = after.map(|after| Pending {
                    value: after.value.clone(),
                    origin: after.origin.clone(),
                });
            }
        }
    }
}

/// The keys whose values differ between two configurations, those of members that come or go
/// among them.
pub(super) fn changed(before: &[Entry], after: &[Entry]) -> Vec<String> {
    let (was, is) = (by_key(before), by_key(after));
    let differs = |entry: &&Entry| {
        let other = was.get(entry.key.as_str());
        other.is_none_or(|other| other.identity != entry.identity)
    };
    let mut keys: Vec<_> = after
        .iter()
        .filter(differs)
        .map(|entry| entry.key.clone())
        .collect();
    let gone = before
        .iter()
        .filter(|entry| !is.contains_key(entry.key.as_str()));
    keys.extend(gone.map(|entry| entry.key.clone()));
    keys
}

/// Configurations have thousands of keys where they have hundreds of patterns.
fn by_key(entries: &[Entry]) -> HashMap<&str, &Entry> {
    let each = entries.iter();
    each.map(|entry| (entry.key.as_str(), entry)).collect()
}
