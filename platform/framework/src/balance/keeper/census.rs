//! Whether so few endpoints can take calls that what is held against the others is passed over.

use super::{Keeper, Member};
use crate::{
    balance::panic::Census,
    discovery::Resolution,
    journal::Kind,
    names::metric::{BALANCER_PANIC, BALANCER_PANIC_PICKS},
    telemetry::metric::{Counter, Gauge, Value, series},
    transport::subchannel::Connectivity,
};

/// Whether that is so, and what is told of it.
pub(super) struct Scarcity {
    now: bool,
    gauge: Gauge,
    picks: Counter,
}

impl Scarcity {
    pub(super) fn new(name: Value) -> Self {
        let labels = [name];
        Self {
            now: false,
            gauge: series(&BALANCER_PANIC, &labels),
            picks: series(&BALANCER_PANIC_PICKS, &labels),
        }
    }

    /// Counts picks while it is so.
    pub(super) fn picks(&self) -> Option<Counter> {
        self.now.then(|| self.picks.clone())
    }

    /// Whether it changed.
    fn set(&mut self, now: bool) -> bool {
        self.gauge.set(f64::from(u8::from(now)));
        std::mem::replace(&mut self.now, now) != now
    }

    pub(super) fn end(&mut self) {
        self.set(false);
    }
}

impl Keeper {
    /// Counts who can take calls, and connects more where there are more.
    pub(super) fn take_census(&mut self, resolution: &Resolution) {
        let forced = self.members.iter().all(|it| it.gate.is_forced());
        let percent = self.builder.config.read(|config| config.panic_percent);
        // Where operators want no calls at all there is nobody to pass over, and nobody is missed.
        let percent = if forced { 0 } else { percent };
        let mut census = self.census();
        if census.is_scarce(percent) && self.grow(resolution, census) {
            self.look();
            census = self.census();
        }
        if self.scarcity.set(census.is_scarce(percent)) {
            let detail = if self.scarcity.now {
                census.to_string()
            } else {
                format!("over: {census}")
            };
            let name = &*self.builder.name;
            self.builder.journal.record(Kind::Panic, name, detail);
        }
    }

    fn census(&self) -> Census {
        Census::new(self.members.iter().map(Member::is_available))
    }
}

impl Member {
    /// Whether it can take calls, as far as is known: one that was never reached may.
    pub(super) fn is_available(&self) -> bool {
        !self.is_out() && self.seen != Some(Connectivity::TransientFailure)
    }
}
