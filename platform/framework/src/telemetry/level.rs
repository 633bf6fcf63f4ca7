//! Which log lines are written, changed while the process runs.

use std::{fmt, sync::Arc};

use arc_swap::ArcSwap;
use tracing::{Metadata, Subscriber, level_filters::LevelFilter, subscriber::Interest};
use tracing_subscriber::{
    filter::Targets,
    layer::{Context, Filter},
};

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

/// What holds where no directive says otherwise.
const DEFAULT: LevelFilter = LevelFilter::INFO;

/// Reads and changes which log lines are written; clones change the same.
#[derive(Debug, Clone)]
pub struct LogLevel {
    shared: Arc<ArcSwap<Setting>>,
}

#[derive(Debug)]
struct Setting {
    text: String,
    targets: Targets,
}

/// Why a log level was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{directive:?} is not a log level: use off, error, warn, info, debug or trace, and for one \
     module module=level, joined by commas"
)]
pub struct LevelError {
    directive: String,
}

impl LogLevel {
    /// The level written as `text`.
    ///
    /// # Errors
    ///
    /// If it is none; the error quotes the part that is wrong.
    pub fn new(text: &str) -> Result<Self, LevelError> {
        Ok(Self {
            shared: Arc::new(ArcSwap::from_pointee(Setting::parse(text)?)),
        })
    }

    /// The level in use, as it was written.
    #[must_use]
    pub fn get(&self) -> String {
        self.shared.load().text.clone()
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
        self.shared.store(Arc::new(Setting::parse(text)?));
        tracing::callsite::rebuild_interest_cache();
        Ok(())
    }

    /// The filter of the log layer that follows this handle.
    pub(super) fn filter(&self) -> LogFilter {
        LogFilter(self.clone())
    }
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shared.load().text)
    }
}

/// Checks a level without using it.
///
/// # Errors
///
/// If `text` is no level; the error quotes the part that is wrong.
pub fn check(text: &str) -> Result<(), LevelError> {
    Setting::parse(text).map(drop)
}

impl Setting {
    // Not `Targets::from_str`: that takes a mistyped level for the name of a module and lets all
    // of it through.
    fn parse(text: &str) -> Result<Self, LevelError> {
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
        let general = general.unwrap_or(DEFAULT);
        let quiet = general.min(DEFAULT);
        let targets = Targets::new()
            .with_default(general)
            .with_targets(TALKATIVE.map(|module| (module, quiet)))
            .with_targets(modules);
        Ok(Self {
            text: text.trim().to_owned(),
            targets,
        })
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
pub(super) struct LogFilter(LogLevel);

impl LogFilter {
    fn wants(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event()
            && self
                .0
                .shared
                .load()
                .targets
                .would_enable(metadata.target(), metadata.level())
    }
}

impl<S: Subscriber> Filter<S> for LogFilter {
    fn enabled(&self, metadata: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        self.wants(metadata)
    }

    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.wants(metadata) {
            Interest::always()
        } else {
            Interest::never()
        }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        let setting = self.0.shared.load();
        Filter::<S>::max_level_hint(&setting.targets)
    }
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    fn enables(text: &str, target: &str, level: Level) -> bool {
        Setting::parse(text)
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
        let level = LogLevel::new("warn").unwrap();
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
