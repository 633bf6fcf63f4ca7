//! Who is in the set: follows the resolver's list, or the part of it that this process takes.

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

use super::{Keeper, Member};
use crate::{
    balance::{
        endpoint::{Endpoint, Record},
        gate::{Gate, GateState},
        load::Load,
        outlier::{Standing, Tally},
        panic::Census,
        subset,
    },
    discovery::{Attributes, Resolution},
    journal::Kind,
    transport::subchannel::{Connectivity, Subchannel},
};

/// How long what is known of an endpoint that left waits for its return.
const REMEMBER: Duration = Duration::from_mins(10);
/// How many such endpoints are remembered at most.
const REMEMBER_MAX: usize = 1_024;

/// What is known of an endpoint that left.
pub(super) struct Left {
    load: Arc<Load>,
    standing: Standing,
    warm_from: Option<Instant>,
    since: Instant,
}

impl Keeper {
    /// Follows a new list: starts what joined, closes what left, keeps the rest as it is.
    pub(super) fn take_in(&mut self, resolution: &Resolution) {
        let now = Instant::now();
        let mut before: HashMap<_, _> = std::mem::take(&mut self.members)
            .into_iter()
            .map(|member| (member.endpoint.addr, member))
            .collect();
        let listed = resolution.endpoints.iter();
        let held: HashSet<_> = listed
            .filter(|listed| listed.attributes.held)
            .map(|listed| listed.addr)
            .collect();
        self.buried.retain(|addr| held.contains(addr));
        let size = self.subset_size().saturating_add(self.extra);
        let chosen = self.choose(resolution, size);
        let mut seen = HashSet::with_capacity(resolution.endpoints.len());
        for listed in resolution.endpoints.iter() {
            // Named twice is named once.
            if !seen.insert(listed.addr) || !chosen.contains(&listed.addr) {
                continue;
            }
            let member = match before.remove(&listed.addr) {
                Some(known) => known.described(&listed.attributes),
                None => self.join(listed.addr, listed.attributes.clone()),
            };
            self.members.push(member);
        }
        for member in before.into_values() {
            let why = if seen.contains(&member.endpoint.addr) {
                "not in this process's subset any more"
            } else {
                ""
            };
            self.leave(&member, now, why);
        }
        self.left.retain(|_, left| now - left.since < REMEMBER);
    }

    fn subset_size(&self) -> usize {
        let size = self.builder.config.read(|config| config.subset_size);
        if size == 0 { usize::MAX } else { size }
    }

    /// Those of the list that are connected, where that are `size`.
    fn choose(&self, resolution: &Resolution, size: usize) -> HashSet<SocketAddr> {
        let addrs: HashSet<_> = resolution
            .endpoints
            .iter()
            .filter(|listed| !(listed.attributes.held && self.buried.contains(&listed.addr)))
            .map(|listed| listed.addr)
            .collect();
        if addrs.len() <= size {
            return addrs;
        }
        let mut addrs = addrs.into_iter().collect();
        subset::take(&mut addrs, self.builder.seed, size);
        addrs.into_iter().collect()
    }

    /// Connects as many more endpoints of the list as there are in the subset that cannot take calls.
    /// Whether there are any.
    pub(super) fn grow(&mut self, resolution: &Resolution, census: Census) -> bool {
        let missing = census.unavailable().saturating_sub(self.extra);
        let more =
            self.subset_size() < usize::MAX && self.members.len() < resolution.endpoints.len();
        if missing == 0 || !more {
            return false;
        }
        self.extra += missing;
        self.take_in(resolution);
        true
    }

    /// Goes back to the subset's own size, where those that belong to it do well again.
    pub(super) fn shrink(&mut self, resolution: &Resolution) {
        if self.extra == 0 {
            return;
        }
        let own = self.choose(resolution, self.subset_size());
        let members = self.members.iter();
        let own = members.filter(|member| own.contains(&member.endpoint.addr));
        let percent = self.builder.config.read(|config| config.panic_percent);
        if !Census::new(own.map(Member::is_available)).is_scarce(percent) {
            self.extra = 0;
            self.take_in(resolution);
        }
    }

    fn leave(&mut self, member: &Member, now: Instant, why: &str) {
        let addr = member.endpoint.addr;
        member.endpoint.subchannel.close();
        // Whoever comes after one that failed is judged by nothing of it.
        if !member.failed && self.left.len() < REMEMBER_MAX {
            let left = Left {
                load: Arc::clone(&member.endpoint.load),
                standing: member.standing,
                warm_from: member.warm_from,
                since: now,
            };
            self.left.insert(addr, left);
        }
        self.record(Kind::EndpointLeft, addr, why);
    }

    /// Lets go of endpoints that are only held for being reachable, and are not. Only while there
    /// are others: a list from the disk or from an etcd that is gone may be all there is to try.
    pub(super) fn bury(&mut self) {
        let dead: Vec<_> = self
            .members
            .extract_if(.., |member| {
                let endpoint = &member.endpoint;
                endpoint.attributes.held
                    && endpoint.subchannel.state().connectivity == Connectivity::TransientFailure
            })
            .collect();
        for member in dead {
            self.buried.insert(member.endpoint.addr);
            let why = "held, and not reachable any more";
            self.leave(&member, Instant::now(), why);
        }
    }

    fn join(&mut self, addr: SocketAddr, attributes: Attributes) -> Member {
        let authority = self.builder.authority.clone().unwrap_or_else(|| {
            addr.to_string()
                .parse()
                .expect("an address is an authority")
        });
        let left = self.left.remove(&addr);
        let load = match &left {
            Some(left) => left.load.inherited(),
            None => Load::new(self.epoch),
        };
        self.record(Kind::EndpointJoined, addr, "");
        let common = self.builder.common.clone();
        // Calls that were in flight when it left go on to be told to the breaker of before: what they
        // come to belongs to a process that may have ended.
        let record = Record {
            tally: Tally::default(),
            gate: Gate::new(self.builder.config.clone(), Instant::now()),
            subject: format!("{}/{addr}", self.builder.name),
            journal: self.builder.journal.clone(),
            metrics: self.breakers.clone(),
            on_change: Arc::clone(&common.on_change),
        };
        let endpoint = Endpoint {
            addr,
            attributes,
            subchannel: Arc::new(Subchannel::start(addr, authority, common)),
            load: Arc::new(load),
            record: Arc::new(record),
        };
        Member {
            endpoint: Arc::new(endpoint),
            seen: None,
            failed: false,
            lives: 0,
            newcomer: left.is_none(),
            warm_from: left.as_ref().and_then(|left| left.warm_from),
            standing: left.map(|left| left.standing).unwrap_or_default(),
            gate: GateState::Closed,
        }
    }
}

impl Member {
    /// The same, of which the resolver says this now.
    fn described(self, attributes: &Attributes) -> Self {
        if self.endpoint.attributes == *attributes {
            return self;
        }
        let Endpoint {
            addr,
            subchannel,
            load,
            record,
            ..
        } = &*self.endpoint;
        let endpoint = Endpoint {
            addr: *addr,
            attributes: attributes.clone(),
            subchannel: Arc::clone(subchannel),
            load: Arc::clone(load),
            record: Arc::clone(record),
        };
        Self {
            endpoint: Arc::new(endpoint),
            ..self
        }
    }
}
