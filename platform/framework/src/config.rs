//! Configuration: typed settings with defaults, read from files, the environment and the command
//! line.
//!
//! Each module declares its settings beside its code with [`section!`]; a process reads all of
//! them from one root with [`load`]. A configuration that exists is valid: [`load`] reports every
//! [`Fault`] at once, each with the line or variable that it comes from.
//!
//! ```text
//! defaults → default.toml → <service>.toml → local.toml → environment → command line
//! ```
//!
//! A key `calls_max` of a section `limits` is `calls_max` under `[limits]` in a file,
//! `GANTRY_LIMITS__CALLS_MAX` in the environment and `--set limits.calls_max=…` on the command
//! line. Unknown keys are refused wherever they stand, because a misspelt limit is no limit.

mod fault;
mod given;
mod hold;
mod inherited;
mod layers;
mod live;
mod notice;
mod print;
mod reader;
mod reload;
mod rule;
mod secret;
mod section;
mod setting;
mod size;
mod sources;
mod tree;
mod unknown;

use std::{cell::RefCell, time::Duration};

use hold::Running;
use layers::{Layers, Origins};
use reader::{Mode, Notes};
use sources::Texts;
use tree::Table;

pub use crate::{__config_choice as choice, __config_section as section};
pub(crate) use fault::nearest;
pub use fault::{Fault, Faults, Origin};
pub use given::Given;
pub use inherited::inherited_socket;
pub use live::{Live, Publisher};
pub use print::markdown;
pub use reader::{Check, Reader};
pub use reload::{Handle, Status};
pub use secret::Secret;
pub use section::{Apply, Both, Key, Section};
pub use setting::{Mismatch, Setting};
pub use size::Size;
pub(crate) use sources::opentelemetry_variable;
pub use sources::{Sources, variables_of};

/// Longest time that a setting can be, a year as people write it: longer than any process runs,
/// and within what clocks hold. Without it, a moment that far from now could not be computed.
pub const LONGEST: Duration = Duration::from_hours(8_766);

/// The path of a key as [`Entry::key`] and faults have it, of the names of its sections and its own.
#[must_use]
pub fn path<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let steps: Vec<_> = names.into_iter().map(str::to_owned).collect();
    tree::join(&steps)
}

/// One key of a configuration that is in use.
#[derive(Clone, PartialEq, Eq)]
pub struct Entry {
    /// Full path, as in `limits.calls_max`.
    pub key: String,
    /// The value in TOML; nothing where it is not set. A secret is `***` and eight digits.
    pub value: Option<String>,
    /// The default in TOML.
    pub default: Option<String>,
    /// Type and bounds in words.
    pub kind: String,
    /// Which layer had the last word.
    pub origin: Origin,
    /// When a change takes effect.
    pub apply: Apply,
    /// The key's documentation, line by line.
    pub doc: &'static [&'static str],
    /// What the key will be after a restart, where that differs.
    pub pending: Option<Pending>,
    identity: Option<String>,
    steps: Vec<String>,
}

/// A changed value that waits for a restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// As [`Entry::value`].
    pub value: Option<String>,
    /// As [`Entry::origin`].
    pub origin: Origin,
}

/// Without what identifies a secret.
impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Entry")
            .field("key", &self.key)
            .field("value", &self.value)
            .field("origin", &self.origin)
            .field("apply", &self.apply)
            .field("pending", &self.pending)
            .finish_non_exhaustive()
    }
}

/// Reads a configuration.
///
/// # Errors
///
/// If anything is wrong with it: everything that is.
pub fn load<C: Section>(sources: Sources) -> Result<Loaded<C>, Faults> {
    let texts = sources.read();
    let layers = sources.layers(&texts);
    let table = layers.merge();
    let (config, notes) = understand(&layers, &table)?;
    Ok(Loaded {
        config,
        running: notes.running(table, layers.origins),
        sources,
        texts,
    })
}

/// Reads `table`, which is what `layers` merge to, and judges both.
fn understand<C: Section>(layers: &Layers, table: &Table) -> Result<(C, Notes), Faults> {
    let mode = if layers.incomplete {
        Mode::Part
    } else {
        Mode::Values
    };
    let (config, mut notes) = read(table, &layers.origins, mode);
    notes.faults.extend(layers.faults.iter().cloned());
    notes
        .faults
        .extend(unknown::find(&layers.said, &notes.known));
    if notes.faults.is_empty() {
        return Ok((config, notes));
    }
    Err(Faults::new(notes.faults))
}

fn read<C: Section>(table: &Table, origins: &Origins, mode: Mode) -> (C, Notes) {
    let notes = RefCell::new(Notes::default());
    let config = C::read(
        &mut Reader::root(table, origins, &notes, mode),
        C::default(),
    );
    (config, notes.into_inner())
}

/// A valid configuration and where each value comes from.
#[derive(Debug, Clone)]
pub struct Loaded<C> {
    config: C,
    running: Running,
    sources: Sources,
    texts: Texts,
}

impl<C: Section> Loaded<C> {
    /// The settings.
    pub fn config(&self) -> &C {
        &self.config
    }

    /// Every key with its value and origin, in the order of declaration.
    pub fn entries(&self) -> &[Entry] {
        &self.running.entries
    }

    /// What `--print-config` shows: TOML with each key's documentation, when a change of it
    /// applies, and which layer had the last word. Secrets are `***` and eight digits.
    pub fn print(&self) -> String {
        print::toml(&self.running.entries)
    }

    /// The sources it was read from.
    pub fn sources(&self) -> &Sources {
        &self.sources
    }
}

#[cfg(test)]
mod tests;
