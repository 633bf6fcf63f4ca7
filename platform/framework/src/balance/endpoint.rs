//! One endpoint: its connections and what is known of its load.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{sync::Notify, time::Instant};

use super::{config::Config, gate::Gate, load::Load, outlier::Tally};
use crate::{
    breaker::{Cause, Change, Ended, Mode, Policy, Ticket},
    classify::Verdict,
    discovery::Attributes,
    journal::{Journal, Kind},
    telemetry::platform::EndpointBreakers,
    transport::subchannel::{NoSlot, Slot, Subchannel},
};

/// Charged instead of a latency when a call failed, so that failing fast attracts no calls.
const PENALTY: Duration = Duration::from_secs(5);
/// An endpoint that asks for a longer pause is charged no more than this.
const PENALTY_MAX: Duration = Duration::from_mins(5);
/// A call was given a fair time if it had this many times the endpoint's latency.
const FAIR_FACTOR: f32 = 4.0;
/// A time that is fair at any endpoint; less than the default of calls, of which the pick takes some.
const FAIR: Duration = Duration::from_secs(4);

#[derive(Debug)]
pub(super) struct Endpoint {
    pub(super) addr: SocketAddr,
    pub(super) attributes: Attributes,
    pub(super) subchannel: Arc<Subchannel>,
    pub(super) load: Arc<Load>,
    pub(super) record: Arc<Record>,
}

/// What calls came to at an endpoint, beside its load: looked at when a call ends, not at a pick.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) tally: Tally,
    pub(super) gate: Gate,
    /// What it is in the journal.
    pub(super) subject: String,
    pub(super) journal: Journal,
    pub(super) metrics: EndpointBreakers,
    /// Wakes whoever publishes, as something changed.
    pub(super) on_change: Arc<Notify>,
}

impl Endpoint {
    pub(super) fn is_ready(&self) -> bool {
        self.subchannel.is_ready()
    }

    /// Whether a call would have a place at once.
    pub(super) fn has_room(&self) -> bool {
        self.subchannel.has_room()
    }

    /// Lets a call pass, as its breaker goes.
    fn pass(&self, now: Instant, config: &Config) -> Option<Ticket> {
        let (ticket, change) = self.record.gate.pass(now, config);
        if change.is_some() {
            self.follow(change, Cause::ByHand, now);
        }
        ticket
    }

    /// Takes in what its breaker makes of a call that ended.
    fn end(&self, ticket: Ticket, ended: Ended, policy: Policy) {
        let change = self.record.gate.end(ticket, ended, policy);
        if change.is_some() {
            self.follow(change, Cause::ByHand, ended.now);
        }
    }

    /// Has its breaker do as `mode` says in the place of its configuration, or as that says.
    pub(super) fn obey(&self, mode: Option<Mode>, cause: Cause, now: Instant) {
        if self.record.gate.force(mode) {
            self.follow(None, cause, now);
        }
    }

    /// Closes its breaker: somebody wants it so.
    pub(super) fn close(&self, now: Instant) {
        let change = self.record.gate.close(Cause::ByHand);
        self.follow(change, Cause::ByHand, now);
    }

    /// The configuration may say otherwise what its breaker does.
    pub(super) fn configured(&self, now: Instant) {
        self.follow(None, Cause::Configured, now);
    }

    /// What was held against it belonged to another.
    pub(super) fn begin_anew(&self, now: Instant) {
        self.load.begin_anew();
        let change = self.record.gate.close(Cause::Anew);
        self.follow(change, Cause::Anew, now);
    }

    /// Has picks heed what changed at the breaker, by calls or without a change of them for `cause`,
    /// and tells of it.
    fn follow(&self, change: Option<Change>, cause: Cause, now: Instant) {
        let record = &*self.record;
        self.load.set_shut(record.gate.state(now).is_shut());
        let told = record.gate.tell(change, cause, now);
        record.on_change.notify_one();
        if let Some(change) = told {
            record.metrics.transition(change.to);
            let (kind, subject) = (Kind::BreakerChanged, record.subject.as_str());
            record.journal.record(kind, subject, describe(&change));
        }
    }
}

fn describe(change: &Change) -> String {
    let Change {
        to, cause, time, ..
    } = change;
    let to = to.as_str();
    match time {
        Some(time) => {
            let time = humantime::format_duration(*time);
            format!("{to} for {time} at most: {cause}")
        }
        None => format!("{to}: {cause}"),
    }
}

/// What a call is picked for, beside its own end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Ordinary,
    /// To find out how an endpoint does now that was silent for long.
    Trial,
    /// To find out for its breaker how an endpoint does now.
    Probe,
}

/// A call's hold on the endpoint picked for it: counts as in flight until dropped, and takes in
/// how the call went.
#[derive(Debug)]
pub struct Picked {
    endpoint: Arc<Endpoint>,
    /// What its breaker gave it; none once it was given back.
    ticket: Option<Ticket>,
    since: Instant,
    purpose: Purpose,
    /// Whether the breaker hears of its failure.
    heeded: bool,
    /// What the method says that the call means for the breaker.
    policy: Policy,
    /// Whether anything was heard of its answer.
    heard: bool,
    measured: bool,
    /// How long the first message of its answer took: what comes after it is as long as a stream is.
    answered_after: Option<Duration>,
}

impl Picked {
    pub(super) fn new(endpoint: Arc<Endpoint>, now: Instant, config: &Config) -> Self {
        let ticket = endpoint.pass(now, config);
        Self::with_ticket(endpoint, ticket, Purpose::Ordinary, now)
    }

    /// A call that finds out for a breaker how its endpoint does, if one is to and no other does.
    pub(super) fn probing(endpoint: &Arc<Endpoint>, now: Instant, config: &Config) -> Option<Self> {
        if !endpoint.record.gate.is_due(now, config) {
            return None;
        }
        let ticket = endpoint.pass(now, config)?;
        let endpoint = Arc::clone(endpoint);
        Some(Self::with_ticket(
            endpoint,
            Some(ticket),
            Purpose::Probe,
            now,
        ))
    }

    /// A call for which a trial was begun.
    pub(super) fn on_trial(endpoint: Arc<Endpoint>, now: Instant, config: &Config) -> Self {
        let ticket = endpoint.pass(now, config);
        let picked = Self::with_ticket(endpoint, ticket, Purpose::Trial, now);
        if picked.purpose == Purpose::Probe {
            picked.endpoint.load.end_trial();
        }
        picked
    }

    fn with_ticket(
        endpoint: Arc<Endpoint>,
        ticket: Option<Ticket>,
        purpose: Purpose,
        now: Instant,
    ) -> Self {
        // In panic, calls are picked as ever: one of them may be given what finds out.
        let probes = ticket.as_ref().is_some_and(Ticket::is_probe);
        let purpose = if probes { Purpose::Probe } else { purpose };
        endpoint.load.begin(now);
        Self {
            endpoint,
            ticket,
            since: now,
            purpose,
            heeded: true,
            policy: Policy::default(),
            heard: false,
            measured: false,
            answered_after: None,
        }
    }

    /// Its caller stops waiting at `deadline`; where it does so never, others do after `time`. They wait
    /// for what it finds out no longer than that, if it is to find out for a breaker: a stream may say
    /// nothing for hours.
    pub fn given_up_at(&self, deadline: Option<Instant>, time: Duration) {
        if self.purpose == Purpose::Probe
            && let Some(ticket) = &self.ticket
        {
            let by = deadline.unwrap_or(self.since + time);
            let record = &*self.endpoint.record;
            record.gate.hasten(ticket, by);
            record.on_change.notify_one();
        }
    }

    /// It is handed on for somebody else, who may fail as often as it likes: that opens no breaker,
    /// which would stop everybody's calls. Nor is its success counted, unless it finds out for one.
    pub fn of_others(&mut self) {
        self.heeded = false;
        if self.purpose != Purpose::Probe {
            self.ticket = None;
        }
    }

    /// Has the call mean for the breaker what the policy of its method says.
    pub fn follow(&mut self, policy: Policy) {
        self.policy = policy;
    }

    /// Where the endpoint listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.endpoint.addr
    }

    pub(super) async fn slot(&self) -> Result<Slot, NoSlot> {
        self.endpoint.subchannel.slot().await
    }

    /// A place that is free at this moment.
    pub(super) fn free_slot(&self) -> Option<Slot> {
        self.endpoint.subchannel.free_slot()
    }

    /// The answer's headers are there. A server may send them early, so they measure nothing, but
    /// whoever sends them does not stand still: the next trial does not wait for the end of a stream.
    pub fn heard(&mut self) {
        if std::mem::replace(&mut self.heard, true) {
            return;
        }
        if self.purpose == Purpose::Trial {
            self.endpoint.load.end_trial();
        }
        self.endpoint.load.heard();
    }

    /// The answer begins: its first message, not its headers, which a server may send early.
    pub fn answered(&mut self) {
        if !self.measured {
            self.measured = true;
            let now = Instant::now();
            self.answered_after = Some(now - self.since);
            self.answered_at(now);
            if self.purpose == Purpose::Probe {
                // Others wait for what it finds out, and a stream may go on for hours.
                self.end(Verdict::Success, now);
            }
        }
    }

    fn answered_at(&self, now: Instant) {
        let latency = now - self.since;
        match self.purpose {
            Purpose::Ordinary => self.endpoint.load.answered(latency, now),
            Purpose::Trial | Purpose::Probe => self.endpoint.load.passed(latency, now),
        }
    }

    /// There was no place for the call: that says nothing about how calls do.
    pub(super) fn unsent(mut self) {
        self.measured = true;
        self.end(Verdict::Ignored, Instant::now());
    }

    /// Tells the breaker how the call ended, once.
    fn end(&mut self, verdict: Verdict, now: Instant) {
        if let Some(ticket) = self.ticket.take() {
            let took = self.answered_after.unwrap_or_else(|| now - self.since);
            let ended = Ended { verdict, took, now };
            self.endpoint.end(ticket, ended, self.policy);
        }
    }

    /// The call is over.
    pub fn judged(&mut self, verdict: Verdict) {
        let now = Instant::now();
        if self.policy.counted {
            self.endpoint.record.tally.count(verdict);
        }
        let heeded = match verdict {
            // Where it counts for nothing it says all the same that the endpoint works again.
            Verdict::Success => self.policy.counted || self.purpose == Purpose::Probe,
            _ => self.policy.counted && self.heeded,
        };
        self.end(if heeded { verdict } else { Verdict::Ignored }, now);
        let load = &self.endpoint.load;
        match verdict {
            Verdict::Success | Verdict::Ignored | Verdict::Unserved if self.measured => {}
            Verdict::Success => self.answered_at(now),
            Verdict::Unserved if !load.is_proven() => load.charge(PENALTY, now),
            Verdict::Ignored | Verdict::Unserved => load.observe_at_least(now - self.since, now),
            Verdict::Hard => load.charge(PENALTY, now),
            Verdict::Soft(pause) => {
                let penalty = pause.unwrap_or(PENALTY).clamp(PENALTY, PENALTY_MAX);
                load.charge(penalty, now);
            }
        }
        self.measured = true;
    }

    /// When it was picked.
    #[must_use]
    pub fn since(&self) -> Instant {
        self.since
    }

    /// The time from when it was picked to `at`.
    #[must_use]
    pub fn left_until(&self, at: Instant) -> Duration {
        at.saturating_duration_since(self.since)
    }

    /// Whether `time` is enough for a call to this endpoint, as far as is known.
    #[must_use]
    pub fn is_fair(&self, time: Duration) -> bool {
        let usual = self
            .endpoint
            .load
            .usual(self.since)
            .map_or(FAIR, |latency| {
                Duration::try_from_secs_f32(latency * FAIR_FACTOR).unwrap_or(FAIR)
            });
        time >= usual.min(FAIR)
    }
}

impl Drop for Picked {
    fn drop(&mut self) {
        // Nobody waited for the end: all that is known is that it had not come yet.
        if !self.measured {
            self.judged(Verdict::Ignored);
        }
        if self.ticket.is_some() {
            self.end(Verdict::Ignored, Instant::now());
        }
        self.heard();
        self.endpoint.load.end();
    }
}
