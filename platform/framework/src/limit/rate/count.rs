//! Judges calls by the quotas of one pattern, all at once.

use std::{
    cell::Cell,
    hash::{BuildHasher, Hash, Hasher},
    net::IpAddr,
    time::Duration,
};

use governor::{
    RateLimiter, clock::Clock, middleware::NoOpMiddleware, nanos::Nanos, state::StateStore,
};
use http::HeaderMap;
use tokio::time::Instant;

use super::{
    settings::{Per, Quota, Quotas},
    table::{Place, Table},
};
use crate::{
    contract::Pattern,
    limit::{
        board::{self, Fill, Kind, number},
        client::Key,
    },
    telemetry::platform::RefusedByLimit,
};

/// Who makes a call, as far as quotas tell callers apart.
#[derive(Debug, Clone, Copy)]
pub struct Caller<'a> {
    /// Where it comes from, see [`client`](crate::limit::client::client).
    pub address: IpAddr,
    /// Its metadata.
    pub headers: &'a HeaderMap,
    /// Whom a verified token speaks for, where there is one.
    pub identity: Option<&'a str>,
}

/// Which quotas a call is judged by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// All of them.
    Whole,
    /// Those that need no identity.
    Before,
    /// The others.
    Identified,
}

impl Stage {
    fn has(self, quota: &Quota) -> bool {
        match self {
            Self::Whole => true,
            Self::Before => quota.per != Per::Identity,
            Self::Identified => quota.per == Per::Identity,
        }
    }
}

/// The quotas of one pattern and what is counted for them.
#[derive(Debug)]
pub(super) struct Counts {
    pub(super) pattern: Pattern,
    each: Vec<Count>,
    pub(super) keys_max: usize,
}

/// One quota and what is counted for it.
#[derive(Debug)]
pub(super) struct Count {
    quota: Quota,
    limiter: RateLimiter<Slot, Apart, Time, NoOpMiddleware<Duration>>,
    table: Table,
    refused: board::Count,
}

/// Why a call is refused.
pub(super) struct Late<'a> {
    count: &'a Count,
    /// How long until all quotas would let it in.
    pub(super) pause: Duration,
    pub(super) why: RefusedByLimit,
}

impl Late<'_> {
    pub(super) fn text(&self) -> String {
        self.count.quota.refusal()
    }

    /// The one that lasts longer: who comes back then is refused by neither.
    fn or_later(self, other: Self) -> Self {
        if other.pause > self.pause {
            other
        } else {
            self
        }
    }
}

impl Counts {
    pub(super) fn new(pattern: Pattern, quotas: &Quotas, keys_max: usize) -> Self {
        let each = quotas.iter().map(|quota| Count::new(quota, keys_max));
        Self {
            pattern,
            each: each.collect(),
            keys_max,
        }
    }

    /// Whether it counts for these quotas.
    pub(super) fn is_for(&self, quotas: &Quotas) -> bool {
        self.each.iter().map(|count| &count.quota).eq(quotas)
    }

    /// Each quota and how much of it is used.
    pub(super) fn fills(&self) -> Vec<Fill> {
        let each = self.each.iter();
        each.map(|count| count.fill(&self.pattern)).collect()
    }

    /// The bytes that the keys take.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.each.iter().map(|count| count.table.bytes()).sum()
    }

    /// Whether there is a quota of `stage`.
    pub(super) fn has(&self, stage: Stage) -> bool {
        self.each.iter().any(|count| stage.has(&count.quota))
    }

    /// Counts a call for every quota of `stage`, or for none.
    pub(super) fn take(&self, caller: &Caller<'_>, stage: Stage) -> Result<(), Late<'_>> {
        take(&self.each, caller, stage, true)
    }

    /// Takes back what a call was counted for the quotas of `stage`.
    pub(super) fn give_back(&self, caller: &Caller<'_>, stage: Stage) {
        for count in self.each.iter().filter(|count| stage.has(&count.quota)) {
            let each = count.quota.each().into();
            count.table.give_back(count.key(caller), each);
        }
    }

    /// Lets go of keys that need no count any more.
    pub(super) fn sweep(&self) {
        for count in &self.each {
            count.table.sweep(count.now());
        }
    }
}

/// Judges a call by the first quota and then by the others, and counts it once all are known to let
/// it in, those before (`fine`) as well. The counts are locked meanwhile, in the order in which every call
/// locks them.
fn take<'a>(
    counts: &'a [Count],
    caller: &Caller<'_>,
    stage: Stage,
    fine: bool,
) -> Result<(), Late<'a>> {
    let Some((first, rest)) = counts.split_first() else {
        return Ok(());
    };
    if !stage.has(&first.quota) {
        return take(rest, caller, stage, fine);
    }
    let place = first.table.place(first.key(caller), first.now());
    let own = first.judge(&place);
    let others = take(rest, caller, stage, fine && own.is_ok());
    match (own, others) {
        (Ok(count), Ok(())) => {
            if fine {
                place.set(count);
            }
            Ok(())
        }
        (Ok(_), Err(late)) | (Err(late), Ok(())) => Err(late),
        (Err(one), Err(other)) => Err(one.or_later(other)),
    }
}

impl Count {
    fn new(quota: &Quota, keys_max: usize) -> Self {
        let keys_max = if quota.per == Per::All { 0 } else { keys_max };
        Self {
            limiter: RateLimiter::new(quota.rate(), Apart, Time(Instant::now())),
            table: Table::new(keys_max),
            quota: quota.clone(),
            refused: board::Count::default(),
        }
    }

    fn now(&self) -> Nanos {
        self.limiter.clock().now().into()
    }

    /// Whose count it is. Who lacks what is counted by is counted by address, like those who lack it
    /// there.
    fn key(&self, caller: &Caller<'_>) -> u64 {
        // Nobody is another's by a choice of words: each kind begins with a number of its own.
        let secret = self.table.secret();
        let address = || secret.hash_one((0_u8, Key::of(caller.address)));
        match &self.quota.per {
            Per::All => 0,
            Per::Address => address(),
            Per::Identity => caller
                .identity
                .map_or_else(address, |identity| secret.hash_one((1_u8, identity))),
            Per::Metadata(name) => {
                let mut values = caller.headers.get_all(name).iter().peekable();
                if values.peek().is_none() {
                    return address();
                }
                let mut key = secret.build_hasher();
                2_u8.hash(&mut key);
                values.for_each(|value| value.as_bytes().hash(&mut key));
                key.finish()
            }
        }
    }

    /// What the count would be with one more call, if there may be one.
    fn judge(&self, place: &Place<'_>) -> Result<Nanos, Late<'_>> {
        let slot = Slot(Cell::new(place.count()));
        let judged = self.limiter.check_key(&slot);
        judged.map(|()| slot.0.get()).map_err(|until| {
            self.refused.add();
            let is_crowded = place.is_shared() && self.quota.per != Per::All;
            Late {
                count: self,
                pause: until.wait_time_from(self.limiter.clock().now()),
                why: if is_crowded {
                    RefusedByLimit::Keys
                } else {
                    RefusedByLimit::Quota
                },
            }
        })
    }

    /// How much of it is used: of the keys there may be, or of the calls where all share them.
    fn fill(&self, pattern: &Pattern) -> Fill {
        let (used, max) = if self.quota.per == Per::All {
            (f64::from(self.spent()), f64::from(self.quota.calls.get()))
        } else {
            let table = &self.table;
            (number(table.held()), number(table.keys_max()))
        };
        Fill {
            method: match pattern {
                Pattern::All => String::new(),
                pattern => pattern.to_string(),
            },
            key: self.quota.to_string(),
            max: Some(max),
            refused: self.refused.get(),
            ..Fill::new(Kind::Rate, used)
        }
    }

    /// How many calls of it have not come back, where all share it; one that has in part counts.
    fn spent(&self) -> u32 {
        let each = Nanos::from(self.quota.each()).as_u64();
        let spent = self.table.shared().saturating_sub(self.now());
        u32::try_from(spent.as_u64().div_ceil(each)).unwrap_or(u32::MAX)
    }
}

/// Time as tokio has it, so that tests can pause it.
#[derive(Debug, Clone, Copy)]
struct Time(Instant);

impl Clock for Time {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}

/// A count, which governor is given as its key: where counts are kept, and under which lock, is said
/// elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Slot(Cell<Nanos>);

/// Governor wants it of keys, and does not use it.
impl Hash for Slot {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.get().as_u64().hash(state);
    }
}

/// Counts that are kept elsewhere.
#[derive(Debug, Clone, Copy)]
struct Apart;

impl StateStore for Apart {
    type Key = Slot;

    fn measure_and_replace<T, F, E>(&self, slot: &Slot, measure: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let (outcome, next) = measure(Some(slot.0.get()))?;
        slot.0.set(next);
        Ok(outcome)
    }
}
