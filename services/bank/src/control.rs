//! Bad days: slow, failing, away.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::{Deserialize, Serialize};

/// How the bank behaves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Behaviour {
    /// How long each request takes: half of it before its work, half after.
    latency_ms: u32,
    /// How many of a hundred requests fail; half of them only after their work.
    error_percent: u8,
    /// Whether everything fails at once.
    outage: bool,
}

/// Longest a request can be made to take.
const LATENCY_MAX: Duration = Duration::from_mins(1);

/// The behaviour in force; clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Control {
    behaviour: Arc<Mutex<Behaviour>>,
}

/// What happens to one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fate {
    /// To wait before the work, and again after it.
    pub(crate) pause: Duration,
    /// Whether it fails before its work.
    pub(crate) fails: bool,
    /// Whether its answer is lost after it.
    pub(crate) forgets: bool,
}

impl Control {
    /// The behaviour in force.
    pub(crate) fn get(&self) -> Behaviour {
        *self.behaviour()
    }

    /// Changes it, for requests from now on.
    ///
    /// # Errors
    ///
    /// If a number is out of its range; says which.
    pub(crate) fn set(&self, behaviour: Behaviour) -> Result<(), String> {
        let Behaviour {
            latency_ms,
            error_percent,
            ..
        } = behaviour;
        if Duration::from_millis(latency_ms.into()) > LATENCY_MAX {
            let longest = LATENCY_MAX.as_millis();
            return Err(format!(
                "latency_ms {latency_ms}: expected at most {longest}"
            ));
        }
        if error_percent > 100 {
            return Err(format!(
                "error_percent {error_percent}: expected at most 100"
            ));
        }
        *self.behaviour() = behaviour;
        Ok(())
    }

    /// What happens to the next request.
    pub(crate) fn fate(&self) -> Fate {
        let behaviour = self.get();
        let failing = fastrand::u8(0..100) < behaviour.error_percent;
        let late = fastrand::bool();
        Fate {
            pause: Duration::from_millis(behaviour.latency_ms.into()) / 2,
            fails: behaviour.outage || failing && !late,
            forgets: failing && late,
        }
    }

    fn behaviour(&self) -> MutexGuard<'_, Behaviour> {
        self.behaviour
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the share of failures is as set, before and after the work alike.
    /// Method: many fates at none, some and all.
    #[test]
    fn failures_come_in_their_share() {
        for (error_percent, expected) in [(0, 0..1), (30, 2_400..3_600), (100, 10_000..10_001)] {
            let control = Control::default();
            let behaviour = Behaviour {
                error_percent,
                ..Behaviour::default()
            };
            control.set(behaviour).unwrap();
            let fates: Vec<_> = (0..10_000).map(|_| control.fate()).collect();
            let fails = fates.iter().filter(|fate| fate.fails).count();
            let forgets = fates.iter().filter(|fate| fate.forgets).count();
            assert!(expected.contains(&(fails + forgets)), "{fails} {forgets}");
            assert!(error_percent == 0 || fails.abs_diff(forgets) < 1_000);
        }
    }

    /// Goal: what cannot be is refused, and changes nothing.
    /// Method: a number beyond each range.
    #[test]
    fn numbers_out_of_range_are_refused() {
        let control = Control::default();
        for (text, field) in [
            (r#"{"latency_ms": 60001}"#, "latency_ms"),
            (r#"{"error_percent": 101}"#, "error_percent"),
        ] {
            let refused = control.set(serde_json::from_str(text).unwrap());
            assert!(refused.unwrap_err().starts_with(field));
            assert_eq!(Behaviour::default(), control.get());
        }
    }
}
