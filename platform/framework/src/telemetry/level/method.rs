//! Levels that hold while a call of some method is served.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tracing::{Metadata, level_filters::LevelFilter};
use tracing_subscriber::filter::Targets;

use super::Directives;
use crate::{call, config, contract::Patterns};

config::choice! {
    /// Which log lines are written while a call is served.
    pub enum Level {
        /// None.
        Off = "off",
        /// Someone must act.
        Error = "error",
        /// Degraded, and going on.
        Warn = "warn",
        /// Changes of state.
        Info = "info",
        /// What each call does.
        Debug = "debug",
        /// Everything.
        Trace = "trace",
    }
}

impl Level {
    fn filter(self) -> LevelFilter {
        match self {
            Self::Off => LevelFilter::OFF,
            Self::Error => LevelFilter::ERROR,
            Self::Warn => LevelFilter::WARN,
            Self::Info => LevelFilter::INFO,
            Self::Debug => LevelFilter::DEBUG,
            Self::Trace => LevelFilter::TRACE,
        }
    }
}

/// The level of each pattern of methods; nothing where the general one holds.
pub type ByPattern = BTreeMap<String, Option<Level>>;

/// Whether any method has had a level of its own: calls have nothing to do where none has.
static ANY: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// The method of a call that ends and has no context any more.
    static ENDING: RefCell<Option<Arc<str>>> = const { RefCell::new(None) };
}

/// Has what `log` logs count as said while a call of `method` is served, by its full name, though there
/// is no context of it.
pub(crate) fn while_serving(method: &Arc<str>, log: impl FnOnce()) {
    if !ANY.load(Ordering::Relaxed) {
        return log();
    }
    let before = ENDING.replace(Some(Arc::clone(method)));
    log();
    ENDING.set(before);
}

/// Which lines are written while calls are served.
#[derive(Debug, Default)]
pub(super) struct Methods {
    levels: ByPattern,
    /// What follows from those and the general directives. Empty where no pattern has a level.
    targets: Patterns<Option<Targets>>,
}

impl Methods {
    /// Those that follow from `levels` beside `general` directives, which keep the modules they name.
    pub(super) fn new(levels: ByPattern, general: &Directives) -> Self {
        let mut targets = Patterns::default();
        let any = levels.values().any(Option::is_some);
        for (name, level) in levels.iter().filter(|_| any) {
            // A configuration with a name that is no pattern was refused.
            if let Ok(pattern) = name.parse() {
                targets.insert(
                    pattern,
                    level.map(|level| general.beginning(level.filter())),
                );
            }
        }
        if any {
            ANY.store(true, Ordering::Relaxed);
        }
        Self { levels, targets }
    }

    /// The same beside other directives.
    pub(super) fn beside(&self, general: &Directives) -> Self {
        Self::new(self.levels.clone(), general)
    }

    pub(super) fn levels(&self) -> &ByPattern {
        &self.levels
    }

    /// All that hold anywhere.
    pub(super) fn all(&self) -> impl Iterator<Item = &Targets> {
        self.targets.values().flatten()
    }

    /// Whether a line is written here and now, if the method of the call being served has a say.
    pub(super) fn wants(&self, metadata: &Metadata<'_>) -> Option<bool> {
        self.all().next()?;
        let of = |method: &str| {
            let targets = self.targets.find(method)?.as_ref()?;
            Some(targets.would_enable(metadata.target(), metadata.level()))
        };
        let ending = ENDING.with_borrow(|method| method.as_deref().map(of));
        ending.unwrap_or_else(|| call::with_current(|call| of(call?.method.full_name())))
    }
}
