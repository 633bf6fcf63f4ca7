//! Which log lines are written, changed while the process runs.

use std::{borrow::Cow, fmt, str::FromStr, sync::Arc};

use arc_swap::ArcSwap;
use tracing::{Metadata, Subscriber, level_filters::LevelFilter, subscriber::Interest};
use tracing_subscriber::{
    filter::Targets,
    layer::{Context, Filter},
};

use crate::config::{Given, Mismatch, Setting};

mod method;

pub(crate) use method::while_serving;
pub use method::{ByPattern, Level};

use method::Methods;

/// Crates that tell of every frame below INFO. A plain `debug` leaves them at INFO; naming one
/// (`debug,h2=debug`) lets it speak.
const TALKATIVE: [&str; 10] = [
    "h2",
    "hyper",
    "hyper_util",
    "mio",
    "notify",
    "opentelemetry",
    "rustls",
    "sqlx",
    "tonic",
    "tower",
];

/// A crate that tells of the same as we do, and of messages with all that is in them at `trace`: it says
/// nothing unless it is named, and never that.
const TELLTALE: &str = "lapin";

/// Where it tells of messages that came back, with all that is in them, at any level: that is never
/// written, whatever is named.
const TELLTALE_OF_MESSAGES: &str = "lapin::returned_messages";

/// What holds where no directive says otherwise.
const DEFAULT: LevelFilter = LevelFilter::INFO;

const EXPECTED: &str = "off, error, warn, info, debug or trace, and module=level for single \
                        modules, joined by commas";

/// Reads and changes which log lines are written; clones change the same.
#[derive(Debug, Clone)]
pub struct LogLevel {
    shared: Arc<ArcSwap<State>>,
}

#[derive(Debug)]
struct State {
    general: Directives,
    methods: Methods,
}

/// Which log lines are written, as it stands in a configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Directives {
    text: String,
    targets: Targets,
    /// Those for single modules.
    modules: Vec<(String, LevelFilter)>,
}

impl Default for Directives {
    fn default() -> Self {
        Self {
            text: DEFAULT.to_string(),
            targets: Self::targets(DEFAULT, []),
            modules: Vec::new(),
        }
    }
}

/// Why a log level was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{directive:?} is not a log level, expected {EXPECTED}")]
pub struct LevelError {
    directive: String,
}

impl LogLevel {
    /// A handle that begins with `directives`.
    #[must_use]
    pub fn new(directives: Directives) -> Self {
        let state = State {
            general: directives,
            methods: Methods::default(),
        };
        Self {
            shared: Arc::new(ArcSwap::from_pointee(state)),
        }
    }

    /// The level in use, as it was written.
    #[must_use]
    pub fn get(&self) -> String {
        self.shared.load().general.to_string()
    }

    /// Changes the level for all threads, from their next log line on.
    ///
    /// `text` is a level for everything, levels for single modules, or both:
    /// `info,orders::domain=debug,h2=off`.
    ///
    /// # Errors
    ///
    /// If it is none; the old level stays.
    pub fn set(&self, text: &str) -> Result<(), LevelError> {
        self.replace(&text.parse()?);
        Ok(())
    }

    /// Changes the level to one that was checked before.
    pub fn replace(&self, directives: &Directives) {
        self.shared.rcu(|before| State {
            methods: before.methods.beside(directives),
            general: directives.clone(),
        });
        tracing::callsite::rebuild_interest_cache();
    }

    /// Has a level of their own hold while calls of some methods are served, in place of the general
    /// one. Modules that the level in use names keep theirs.
    pub fn set_methods(&self, levels: &ByPattern) {
        self.shared.rcu(|before| State {
            methods: Methods::new(levels.clone(), &before.general),
            general: before.general.clone(),
        });
        tracing::callsite::rebuild_interest_cache();
    }

    /// What holds by methods, as it was last set.
    #[must_use]
    pub fn methods(&self) -> ByPattern {
        self.shared.load().methods.levels().clone()
    }

    /// The filter of the log layer that follows this handle.
    pub(crate) fn filter(&self) -> LogFilter {
        LogFilter(self.clone())
    }
}

impl fmt::Display for Directives {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Directives {
    type Err = LevelError;

    // Not `Targets::from_str`: that takes a mistyped level for the name of a module and lets all
    // of it through.
    fn from_str(text: &str) -> Result<Self, LevelError> {
        let mut general = None;
        let mut modules: Vec<(&str, LevelFilter)> = Vec::new();
        for directive in text.split(',').map(str::trim) {
            let bad = || LevelError {
                directive: directive.to_owned(),
            };
            match directive.split_once('=') {
                None if general.is_none() => general = Some(level(directive).ok_or_else(bad)?),
                None => return Err(bad()),
                Some((module, text)) => {
                    let module = module.trim();
                    if !is_module(module) {
                        return Err(bad());
                    }
                    modules.push((module, level(text.trim()).ok_or_else(bad)?));
                }
            }
        }
        Ok(Self {
            text: text.trim().to_owned(),
            targets: Self::targets(general.unwrap_or(DEFAULT), modules.iter().copied()),
            modules: modules
                .into_iter()
                .map(|(module, level)| (module.to_owned(), level))
                .collect(),
        })
    }
}

impl Directives {
    /// What they come to with another general level.
    fn beginning(&self, general: LevelFilter) -> Targets {
        let modules = self.modules.iter();
        Self::targets(
            general,
            modules.map(|(name, level)| (name.as_str(), *level)),
        )
    }

    fn targets<'a>(
        general: LevelFilter,
        modules: impl IntoIterator<Item = (&'a str, LevelFilter)>,
    ) -> Targets {
        let quiet = general.min(DEFAULT);
        let modules = modules.into_iter().map(|(name, level)| {
            let told = name.starts_with(TELLTALE);
            (
                name,
                if told {
                    level.min(LevelFilter::DEBUG)
                } else {
                    level
                },
            )
        });
        Targets::new()
            .with_default(general)
            .with_targets(TALKATIVE.map(|module| (module, quiet)))
            .with_target(TELLTALE, LevelFilter::OFF)
            .with_targets(modules)
            .with_target(TELLTALE_OF_MESSAGES, LevelFilter::OFF)
    }
}

impl Setting for Directives {
    fn kind() -> Cow<'static, str> {
        "log level".into()
    }

    fn expected() -> Cow<'static, str> {
        EXPECTED.into()
    }

    fn read(given: Given<'_>) -> Result<Self, Mismatch> {
        let text = given.text().ok_or_else(Mismatch::default)?;
        text.parse().map_err(|error: LevelError| {
            Mismatch::because(format!("{:?} is none", error.directive))
        })
    }

    fn show(&self) -> Option<String> {
        Some(toml::Value::String(self.text.clone()).to_string())
    }
}

fn level(text: &str) -> Option<LevelFilter> {
    let levels = [
        ("off", LevelFilter::OFF),
        ("error", LevelFilter::ERROR),
        ("warn", LevelFilter::WARN),
        ("info", LevelFilter::INFO),
        ("debug", LevelFilter::DEBUG),
        ("trace", LevelFilter::TRACE),
    ];
    levels
        .into_iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(text))
        .map(|(_, level)| level)
}

fn is_module(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b':'))
}

/// Lets through the events of the current level, and no span: log lines know their call by its
/// context, so spans cost nothing unless traces are exported.
#[derive(Debug)]
pub(crate) struct LogFilter(LogLevel);

impl LogFilter {
    fn wants(&self, metadata: &Metadata<'_>) -> bool {
        if !metadata.is_event() {
            return false;
        }
        let state = self.0.shared.load();
        let general = || {
            let targets = &state.general.targets;
            targets.would_enable(metadata.target(), metadata.level())
        };
        state.methods.wants(metadata).unwrap_or_else(general)
    }

    /// What is to be asked at each line of a place: nothing where all answers are the same.
    fn interest(&self, metadata: &Metadata<'_>) -> Interest {
        if !metadata.is_event() {
            return Interest::never();
        }
        let state = self.0.shared.load();
        let wants = |targets: &Targets| targets.would_enable(metadata.target(), metadata.level());
        let general = wants(&state.general.targets);
        if state.methods.all().any(|it| wants(it) != general) {
            Interest::sometimes()
        } else if general {
            Interest::always()
        } else {
            Interest::never()
        }
    }
}

impl<S: Subscriber> Filter<S> for LogFilter {
    fn enabled(&self, metadata: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        self.wants(metadata)
    }

    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        self.interest(metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        let state = self.0.shared.load();
        let all = state.methods.all().chain([&state.general.targets]);
        all.filter_map(Filter::<S>::max_level_hint).max()
    }
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    fn enables(text: &str, target: &str, level: Level) -> bool {
        text.parse::<Directives>()
            .unwrap()
            .targets
            .would_enable(target, &level)
    }

    /// Goal: a general level, a module's own, and the talkative crates follow the text.
    /// Method: one target and level per rule.
    #[test]
    fn directives_hold_for_their_modules() {
        let cases = [
            ("info", "orders", Level::INFO, true),
            ("info", "orders", Level::DEBUG, false),
            ("DEBUG", "orders", Level::DEBUG, true),
            ("debug", "h2::codec", Level::DEBUG, false),
            ("debug", "h2::codec", Level::INFO, true),
            ("debug,h2=trace", "h2::codec", Level::TRACE, true),
            ("error", "h2::codec", Level::WARN, false),
            ("off", "orders", Level::ERROR, false),
            ("trace", "lapin::channels", Level::ERROR, false),
            ("info,lapin=debug", "lapin::channels", Level::DEBUG, true),
            ("trace,lapin=trace", "lapin::channels", Level::TRACE, false),
            (
                "lapin::channels=trace",
                "lapin::channels",
                Level::TRACE,
                false,
            ),
            (
                "info,lapin=debug",
                "lapin::returned_messages",
                Level::WARN,
                false,
            ),
            (
                "lapin::returned_messages=trace",
                "lapin::returned_messages",
                Level::ERROR,
                false,
            ),
            ("orders::domain=trace", "orders::domain", Level::TRACE, true),
            ("orders::domain=trace", "orders::store", Level::DEBUG, false),
            ("orders::domain=trace", "orders::store", Level::INFO, true),
            (" warn , orders = debug ", "orders", Level::DEBUG, true),
        ];
        for (text, target, level, expected) in cases {
            assert_eq!(
                expected,
                enables(text, target, level),
                "{text}: {target} at {level}"
            );
        }
    }

    /// Goal: a mistyped level is refused by name and changes nothing.
    /// Method: bad texts against a handle that had a good one.
    #[test]
    fn bad_levels_are_refused_by_name() {
        let level = LogLevel::new("warn".parse().unwrap());
        let cases = [
            ("inof", "inof"),
            ("", ""),
            ("info,debug", "debug"),
            ("info,h2=loud", "h2=loud"),
            ("info,=debug", "=debug"),
            ("info,", ""),
            ("my service=debug", "my service=debug"),
        ];
        for (text, part) in cases {
            let error = level.set(text).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{part:?} is not")), "{error}");
        }
        assert_eq!("warn", level.get());
    }
}
