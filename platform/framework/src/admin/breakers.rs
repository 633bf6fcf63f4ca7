//! Breakers as operators see them, and what they ask of them.

use std::{net::SocketAddr, time::Duration};

use gantry_api::admin::v1::{
    Breaker, SetBreakerRequest, breaker, set_breaker_request::Order as Asked,
};
use tokio::time::Instant;
use tonic::Status;

use super::convert;
use crate::{
    breaker::{Mode, Order, Snapshot, State},
    fault::LONGEST,
    status,
};

/// Which breakers are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Whose {
    /// The one that the program gave this name.
    Named(String),
    /// Those of the endpoints of a client.
    Client {
        /// Its name, as configured.
        client: String,
        /// Of this endpoint alone.
        addr: Option<SocketAddr>,
    },
}

impl std::fmt::Display for Whose {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Named(name) => f.write_str(name),
            Self::Client { client, addr: None } => write!(f, "{client}"),
            Self::Client {
                client,
                addr: Some(addr),
            } => write!(f, "{client}/{addr}"),
        }
    }
}

impl Whose {
    /// Whether a breaker of `other` is one of these.
    pub(super) fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Client { client, addr: None }, Self::Client { client: of, .. }) => client == of,
            _ => self == other,
        }
    }
}

/// What is asked for.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) whose: Whose,
    pub(super) order: Order,
    pub(super) until: Option<Instant>,
}

impl Wanted {
    /// What is asked for, judged at `now`.
    pub(super) fn read(request: SetBreakerRequest, now: Instant) -> Result<Self, Status> {
        let refuse = |field: &str, text: &str| status::invalid_argument([(field, text)]);
        let order = match request.order() {
            Asked::Open => Order::Mode(Mode::ForcedOpen),
            Asked::Disable => Order::Mode(Mode::Disabled),
            Asked::MetricsOnly => Order::Mode(Mode::MetricsOnly),
            Asked::Automatic => Order::Release,
            Asked::Close => Order::Close,
            Asked::Unspecified => return Err(refuse("order", "must be said")),
        };
        let whose = match (request.name.as_str(), request.client.as_str()) {
            ("", "") => return Err(refuse("client", "must be said, or name")),
            (name, "") if request.address.is_empty() => Whose::Named(name.to_owned()),
            ("", client) => {
                let addr = Some(request.address).filter(|addr| !addr.is_empty());
                let addr = addr.map(|addr| addr.parse()).transpose();
                Whose::Client {
                    client: client.to_owned(),
                    addr: addr.map_err(|_| refuse("address", "must be as 127.0.0.1:7001"))?,
                }
            }
            _ => {
                return Err(refuse(
                    "name",
                    "must stand alone, without client and address",
                ));
            }
        };
        let until = match request.time.map(Duration::try_from) {
            None => None,
            Some(_) if order.mode().is_none() => {
                return Err(refuse("time", "is for what holds until it is over"));
            }
            Some(Ok(time)) if !time.is_zero() && time <= LONGEST => Some(now + time),
            Some(_) => return Err(refuse("time", "must be more than 0s and at most a day")),
        };
        Ok(Self {
            whose,
            order,
            until,
        })
    }

    /// The word for what is done.
    pub(super) fn word(&self) -> &'static str {
        match self.order {
            Order::Mode(Mode::ForcedOpen) => "open",
            Order::Mode(Mode::Disabled) => "disable",
            Order::Mode(Mode::MetricsOnly) => "metrics only",
            Order::Mode(Mode::Automatic) | Order::Release => "automatic",
            Order::Close => "close",
        }
    }
}

/// One breaker, for people and programs.
pub(super) fn on_wire(whose: Whose, snapshot: &Snapshot, now: Instant) -> Breaker {
    let state = match snapshot.state {
        State::Closed => breaker::State::Closed,
        State::Open => breaker::State::Open,
        State::HalfOpen => breaker::State::HalfOpen,
        State::ForcedOpen => breaker::State::ForcedOpen,
        State::Disabled => breaker::State::Disabled,
    };
    let mode = match snapshot.mode {
        Mode::Automatic => breaker::Mode::Automatic,
        Mode::ForcedOpen => breaker::Mode::ForcedOpen,
        Mode::Disabled => breaker::Mode::Disabled,
        Mode::MetricsOnly => breaker::Mode::MetricsOnly,
    };
    let (name, client, address) = match whose {
        Whose::Named(name) => (name, String::new(), String::new()),
        Whose::Client { client, addr } => {
            let addr = addr.map(|addr| addr.to_string());
            (String::new(), client, addr.unwrap_or_default())
        }
    };
    let left = |at: Instant| convert::duration(at.saturating_duration_since(now));
    // What is counted says nothing where nobody asks it.
    let decides = matches!(mode, breaker::Mode::Automatic | breaker::Mode::MetricsOnly);
    Breaker {
        name,
        client,
        address,
        state: state.into(),
        state_time: convert::ago(now.saturating_duration_since(snapshot.since)),
        mode: mode.into(),
        by_hand: snapshot.by_hand.is_some(),
        left: snapshot.by_hand.and_then(|it| it.until).and_then(left),
        calls: snapshot.counts.calls,
        failed: snapshot.counts.failed,
        slow: snapshot.counts.slow,
        failures_in_a_row: snapshot.failures_in_a_row,
        opened: snapshot.trips,
        next_probe: snapshot.next_probe_at.filter(|_| decides).and_then(left),
    }
}
