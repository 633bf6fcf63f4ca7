//! How instances of a consumer share its partitions.
//!
//! Each instance counts on in a row of its own; others see that it lives by the number changing, each
//! measured by its own clock, so clocks need not agree. Each that is not about to end, and whose service
//! is ready, has its fair share of the partitions: it takes those that are nobody's or of an instance that was silent for too long, and gives back what
//! it has beyond its share, each once nothing of it is in flight. Taking one makes its fence higher,
//! which every transaction of an effect compares: whoever stood still meanwhile writes no more.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use gantry_store::{Database, Error, Statement};
use tokio::time::Instant;

use super::inbox::Claim;

const SEED: Statement = Statement::new(
    "events.seed_partition",
    "INSERT INTO event_partitions (consumer, part, owner, fence) VALUES ($1, $2, '', 0)
     ON CONFLICT (consumer, part) DO NOTHING",
);
const BEAT: Statement = Statement::new(
    "events.beat",
    "INSERT INTO event_members (consumer, instance, beat, shares, topics) VALUES ($1, $2, 1, $3, $4)
     ON CONFLICT (consumer, instance) DO UPDATE SET
         beat = event_members.beat + 1, shares = excluded.shares, topics = excluded.topics",
);
const MEMBERS: Statement = Statement::new(
    "events.list_members",
    "SELECT instance, beat, shares, topics FROM event_members
     WHERE consumer = $1 ORDER BY instance LIMIT 1000",
);
const PARTITIONS: Statement = Statement::new(
    "events.list_partitions",
    "SELECT part, owner, fence FROM event_partitions WHERE consumer = $1 AND part < $2 ORDER BY part",
);
const TAKE: Statement = Statement::new(
    "events.take_partition",
    "UPDATE event_partitions SET owner = $3, fence = fence + 1
     WHERE consumer = $1 AND part = $2 AND owner = $4 AND fence = $5",
);
const GIVE: Statement = Statement::new(
    "events.give_partition",
    "UPDATE event_partitions SET owner = ''
     WHERE consumer = $1 AND part = $2 AND owner = $3 AND fence = $4",
);
const LEAVE: Statement = Statement::new(
    "events.leave",
    "DELETE FROM event_members WHERE consumer = $1 AND instance = $2",
);
const BURY: Statement = Statement::new(
    "events.bury_member",
    "DELETE FROM event_members WHERE consumer = $1 AND instance = $2 AND beat = $3",
);

/// One instance among those of a consumer.
#[derive(Debug)]
pub(crate) struct Shares {
    database: Database,
    consumer: Arc<str>,
    instance: Arc<str>,
    partitions: u16,
    /// What it handles, each in a line.
    topics: Arc<str>,
    /// How long an instance may be silent.
    lease: Duration,
    /// When it last showed itself, and whether it takes a share since then.
    beaten: Option<(Instant, bool)>,
    looked: Option<Instant>,
    seen: BTreeMap<String, Seen>,
}

/// What is known of another instance.
#[derive(Debug)]
struct Seen {
    beat: i64,
    /// For how long it did not change while we looked.
    silent: Duration,
}

/// An instance that lives.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Member {
    beat: i64,
    /// Whether it takes a share.
    shares: bool,
    topics: String,
}

/// How things stand.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct View {
    /// How many partitions are this instance's share.
    pub(crate) share: usize,
    /// What is to be had: with owner and fence, as they were read.
    pub(crate) free: Vec<(u16, String, i64)>,
    /// Which partitions are this instance's, with their fences.
    pub(crate) own: BTreeMap<u16, i64>,
    /// Instances that live.
    pub(crate) members: BTreeSet<String>,
    /// Whether this one is the first of them.
    pub(crate) is_first: bool,
    /// What any of them handles.
    pub(crate) topics: BTreeSet<String>,
}

impl Shares {
    /// The instance `instance` of `consumer`, which has `partitions`, and here handles `topics`.
    pub(crate) fn new(
        database: Database,
        consumer: &str,
        instance: &str,
        (partitions, topics): (u16, &[String]),
        lease: Duration,
    ) -> Self {
        Self {
            database,
            consumer: consumer.into(),
            instance: instance.into(),
            partitions,
            topics: topics.join("\n").into(),
            lease,
            beaten: None,
            looked: None,
            seen: BTreeMap::new(),
        }
    }

    /// Pause between two signs of life.
    fn interval(&self) -> Duration {
        self.lease / 3
    }

    /// Pause until the next look, for an instance that `wants` more than it has, or not.
    pub(crate) fn pause(&self, wants: bool) -> Duration {
        if wants {
            self.lease / 15
        } else {
            self.interval()
        }
    }

    /// Makes the rows of the partitions where they are missing.
    pub(crate) async fn seed(&self) -> Result<(), Error> {
        for part in 0..self.partitions {
            let seed = self.database.statement(&SEED).bind(&*self.consumer);
            seed.bind(i32::from(part)).execute().await?;
        }
        Ok(())
    }

    /// Shows that this instance lives, and whether it takes a share, and looks how things stand.
    pub(crate) async fn look(&mut self, shares: bool) -> Result<View, Error> {
        let due = |(at, shown): (Instant, bool)| shown != shares || at.elapsed() >= self.interval();
        if self.beaten.is_none_or(due) {
            let begun = Instant::now();
            let beat = self.database.statement(&BEAT).bind(&*self.consumer);
            let beat = beat.bind(&*self.instance).bind(i32::from(shares));
            beat.bind(&*self.topics).execute().await?;
            self.beaten = Some((begun, shares));
        }
        let rows = self.database.statement(&MEMBERS).bind(&*self.consumer);
        let mut members = BTreeMap::new();
        for row in &rows.fetch_all().await? {
            let member = Member {
                beat: row.integer("beat")?,
                shares: row.integer("shares")? == 1,
                topics: row.text("topics")?,
            };
            members.insert(row.text("instance")?, member);
        }
        let partitions = self.database.statement(&PARTITIONS).bind(&*self.consumer);
        let partitions = partitions.bind(i32::from(self.partitions));
        let mut rows = Vec::new();
        for row in &partitions.fetch_all().await? {
            let owner = row.text("owner")?;
            rows.push((row.narrow("part")?, owner, row.integer("fence")?));
        }
        let silent = self.hear(&members);
        for instance in &silent {
            let bury = self.database.statement(&BURY).bind(&*self.consumer);
            let bury = bury.bind(instance).bind(members[instance].beat);
            if bury.execute().await? == 1 {
                tracing::warn!(consumer = %self.consumer, %instance, "an instance is silent; others take over");
            }
            members.remove(instance);
        }
        Ok(view(&members, &self.instance, rows))
    }

    /// Which of the others were silent for too long. What cannot be read says nothing about them: time
    /// without a look counts as one interval at most.
    fn hear(&mut self, members: &BTreeMap<String, Member>) -> Vec<String> {
        let now = Instant::now();
        let passed = self.looked.map_or(Duration::ZERO, |looked| now - looked);
        let passed = passed.min(self.interval());
        self.looked = Some(now);
        self.seen
            .retain(|instance, _| members.contains_key(instance));
        let mut silent = Vec::new();
        for (instance, Member { beat, .. }) in members {
            if **instance == *self.instance {
                continue;
            }
            let seen = self.seen.entry(instance.clone()).or_insert(Seen {
                beat: *beat,
                silent: Duration::ZERO,
            });
            if seen.beat == *beat {
                seen.silent += passed;
            } else {
                *seen = Seen {
                    beat: *beat,
                    silent: Duration::ZERO,
                };
            }
            if seen.silent > self.lease {
                silent.push(instance.clone());
            }
        }
        silent
    }

    /// Takes a partition that [`View::free`] has; none if another was quicker.
    pub(crate) async fn take(
        &self,
        (part, owner, fence): &(u16, String, i64),
    ) -> Result<Option<Claim>, Error> {
        let take = self.database.statement(&TAKE).bind(&*self.consumer);
        let take = take.bind(i32::from(*part)).bind(&*self.instance);
        let taken = take.bind(owner).bind(*fence).execute().await? == 1;
        Ok(taken.then(|| self.claim(*part, fence + 1)))
    }

    /// A partition that this instance has.
    pub(crate) fn claim(&self, part: u16, fence: i64) -> Claim {
        Claim {
            part,
            owner: Arc::clone(&self.instance),
            fence,
        }
    }

    /// Gives a partition back, of which nothing is in flight.
    pub(crate) async fn give(&self, claim: &Claim) -> Result<(), Error> {
        let give = self.database.statement(&GIVE).bind(&*self.consumer);
        let give = give.bind(i32::from(claim.part)).bind(&*claim.owner);
        give.bind(claim.fence).execute().await?;
        Ok(())
    }

    /// Goes, if it was ever there: what it had is for the others.
    pub(crate) async fn leave(&mut self) -> Result<(), Error> {
        if self.beaten.take().is_none() {
            return Ok(());
        }
        let leave = self.database.statement(&LEAVE).bind(&*self.consumer);
        leave.bind(&*self.instance).execute().await?;
        Ok(())
    }
}

/// What follows from who is alive and whose the partitions are. The shares of all instances that see
/// the same add up to all partitions, where any takes one.
fn view(members: &BTreeMap<String, Member>, instance: &str, rows: Vec<(u16, String, i64)>) -> View {
    let mut view = View::default();
    let sharing = || members.iter().filter(|(_, member)| member.shares);
    let count = sharing().count().max(1);
    if let Some(rank) = sharing().position(|(it, _)| it == instance) {
        // The first of them have one more where it does not come out even.
        view.share = rows.len() / count + usize::from(rank < rows.len() % count);
    }
    for (part, owner, fence) in rows {
        if owner == instance {
            view.own.insert(part, fence);
        } else if !members.contains_key(&owner) {
            view.free.push((part, owner, fence));
        }
    }
    let topics = members.values().flat_map(|member| member.topics.lines());
    view.topics = topics.map(str::to_owned).collect();
    view.members = members.keys().cloned().collect();
    view.is_first = view.members.first().is_some_and(|first| first == instance);
    view
}

#[cfg(test)]
mod tests;
