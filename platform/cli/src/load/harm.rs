//! What is done to instances on purpose while they are called: at its time, and undone again,
//! however the run ends.

mod up;

use std::time::Duration;

use futures_util::future::join_all;
use gantry_api::admin::v1::Fault;
use tokio::{
    sync::watch,
    time::{self, Instant},
};

use crate::{failure::Failure, fault};

pub(crate) use up::Up;

/// How long something may take to be done, or undone.
const DONE_MAX: Duration = Duration::from_secs(10);

/// Something to be done, as somebody asked for it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Planned {
    /// Where it is asked for, `file:line`.
    pub(crate) place: String,
    /// A service or an instance of the running `up`.
    pub(crate) whom: String,
    /// Since the beginning of the run.
    pub(crate) at: Duration,
    /// How long it goes on; nothing for what is done once.
    pub(crate) time: Duration,
    pub(crate) harm: Harm,
}

/// What can be done to an instance.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Harm {
    /// Its calls are late or fail, as by `gantry fault`; how long is not said here.
    Calls(Fault),
    /// Its process stands still.
    Stop,
    /// Its process is ended without a warning.
    Kill,
    /// It is taken out of the registry, as by `gantry pause`.
    Pause,
}

/// What was done.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Done {
    pub(crate) whom: String,
    pub(crate) what: String,
    /// Since the beginning of the run; none if its time never came, or it could not be done.
    pub(crate) from: Option<Duration>,
    /// When it was undone.
    pub(crate) until: Option<Duration>,
    /// Why it was not done, or not undone.
    pub(crate) error: Option<String>,
}

/// Who does it.
pub(crate) trait Hand {
    /// What has to be undone.
    type Held: Default;

    /// Does something that goes on for `time`. What is done, or may be, is in `held` before it is
    /// done, so that a failure or a cut half way is undone as well.
    async fn harm(
        &self,
        planned: &Planned,
        time: Duration,
        held: &mut Self::Held,
    ) -> Result<(), Failure>;

    /// Undoes what is held.
    async fn heal(&self, planned: &Planned, held: Self::Held) -> Result<(), Failure>;
}

impl Harm {
    /// What it is, for people.
    pub(crate) fn in_words(&self) -> String {
        match self {
            Self::Calls(fault) => {
                let parts = fault::in_words(fault);
                match (&*fault.pattern, &*fault.metadata) {
                    ("*", "") => parts,
                    ("*", of) => format!("{parts}, of {of}"),
                    (pattern, "") => format!("{parts}, {pattern}"),
                    (pattern, of) => format!("{parts}, {pattern} of {of}"),
                }
            }
            Self::Stop => "stopped".to_owned(),
            Self::Kill => "killed".to_owned(),
            Self::Pause => "out of the registry".to_owned(),
        }
    }
}

/// Does everything `planned` at its time after `began`, and undoes it; what is on when `stop` turns
/// true is undone at once, and what was not done by then never is. Returns when nothing is on any
/// more. `tell` hears of each change.
pub(crate) async fn run<H: Hand>(
    planned: &[Planned],
    began: Instant,
    hand: &H,
    stop: &watch::Receiver<bool>,
    tell: impl Fn(&str),
) -> Vec<Done> {
    let tell = &tell;
    let all = planned.iter().map(|planned| {
        let stop = stop.clone();
        one(planned, began, hand, stop, tell)
    });
    join_all(all).await
}

async fn one<H: Hand>(
    planned: &Planned,
    began: Instant,
    hand: &H,
    mut stop: watch::Receiver<bool>,
    tell: &impl Fn(&str),
) -> Done {
    let what = planned.harm.in_words();
    let mut done = Done {
        whom: planned.whom.clone(),
        what: what.clone(),
        from: None,
        until: None,
        error: None,
    };
    if !reached(began + planned.at, &mut stop).await {
        return done;
    }
    let whom = &planned.whom;
    let mut held = H::Held::default();
    let doing = hand.harm(planned, planned.time, &mut held);
    let harmed = within(doing).await;
    if let Err(failure) = harmed {
        done.error = Some(failure.to_string());
        tell(&format!("{whom}: not {what}: {failure}"));
    } else {
        done.from = Some(began.elapsed());
        tell(&format!("{whom}: {what}"));
        reached(began + planned.at + planned.time, &mut stop).await;
    }
    let healed = within(hand.heal(planned, held)).await;
    if let Err(failure) = healed {
        tell(&format!("{whom}: still {what}: {failure}"));
        let why = format!("not undone: {failure}");
        let before = done
            .error
            .map(|before| format!("{before}; "))
            .unwrap_or_default();
        done.error = Some(before + &why);
    } else if done.from.is_some() && !planned.time.is_zero() {
        tell(&format!("{whom}: no longer {what}"));
    }
    done.until = done.from.map(|_| began.elapsed());
    done
}

/// Waits; false if `stop` came first.
async fn reached(at: Instant, stop: &mut watch::Receiver<bool>) -> bool {
    tokio::select! {
        biased;
        // Whoever could stop it is gone: it is over, too.
        _ = stop.wait_for(|stopped| *stopped) => false,
        () = time::sleep_until(at) => true,
    }
}

async fn within(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let done = time::timeout(DONE_MAX, work).await;
    done.unwrap_or_else(|_| Err(Failure::failed(format!("no answer after {DONE_MAX:?}"))))
}

#[cfg(test)]
mod tests;
