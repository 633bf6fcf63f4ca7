//! `gantry.admin.v1`: looks into the process, sets its log level, drains it.
//!
//! What changes something is for this machine alone, wherever the side port listens.

use std::{
    pin::Pin,
    time::{Duration, SystemTime},
};

use futures_core::Stream;
use gantry_api::admin::v1::{
    Breaker, Connection, DrainRequest, DrainResponse, Endpoint, ExplainPolicyRequest,
    ExplainPolicyResponse, GetConfigRequest, GetConfigResponse, GetEventsRequest,
    GetEventsResponse, GetInfoRequest, GetInfoResponse, GetLogLevelRequest, GetLogLevelResponse,
    GetRegistrationRequest, GetRegistrationResponse, ListBreakersRequest, ListBreakersResponse,
    ListConnectionsRequest, ListConnectionsResponse, ListEndpointsRequest, ListEndpointsResponse,
    ListFaultsRequest, ListFaultsResponse, ListHealthChecksRequest, ListHealthChecksResponse,
    ListLimitersRequest, ListLimitersResponse, PauseRegistrationRequest, PauseRegistrationResponse,
    ProcessState, ResumeRegistrationRequest, ResumeRegistrationResponse, ServiceHealth,
    SetBreakerRequest, SetBreakerResponse, SetLogLevelRequest, SetLogLevelResponse,
    SwitchFaultOffRequest, SwitchFaultOffResponse, SwitchFaultOnRequest, SwitchFaultOnResponse,
    WatchJournalRequest, WatchJournalResponse, admin_service_server::AdminService,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::{
    Whose,
    breakers::{self, Wanted},
    convert, faults, follow, limits,
};
use crate::{
    balance::NotSet,
    breaker::{Order, Snapshot},
    caller::Peer,
    contract::{NoPattern, Pattern},
    discovery::Registration,
    fault::Faults,
    health::{self, Health},
    journal::{Journal, Kind},
    limit::board::Fill,
    shutdown::Stop,
    status::{self, Refusal},
    telemetry::LogLevel,
    transport::server::Handle,
};

/// Longest log filter taken, as the contract says.
const FILTER_MAX: usize = 4_096;

/// What only the application knows.
pub(crate) trait Inside: Send + Sync {
    /// The configuration in force, secrets masked.
    fn config(&self) -> GetConfigResponse;
    /// Version of the configuration in force.
    fn config_version(&self) -> u64;
    /// What holds for the calls of a method, and why.
    fn explain(&self, method: &str) -> ExplainPolicyResponse;
    /// The endpoints of every client.
    fn endpoints(&self) -> Vec<Endpoint>;
    /// Every breaker.
    fn breakers(&self) -> Vec<(Whose, Snapshot)>;
    /// Has breakers do as `order` says, until `until` or for ever.
    fn set_breaker(
        &self,
        whose: &Whose,
        order: Order,
        until: Option<Instant>,
    ) -> Result<(), NotSet>;
    /// Every limit, with what it holds now.
    fn limits(&self) -> Vec<Fill>;
    /// How events fare.
    fn events(&self) -> GetEventsResponse;
    /// Full names of the services that are served.
    fn services(&self) -> Vec<String>;
    /// The registration of this process, where there is one.
    fn registration(&self) -> Option<Registration>;
    /// Takes the registration back for the time being, or makes it again; false where there is
    /// none.
    fn pause_registration(&self, pause: bool) -> bool;
    /// The longest a drain can take.
    fn drain_bound(&self) -> Duration;
}

/// Everything the admin service tells or changes.
pub(crate) struct Admin {
    pub(crate) name: &'static str,
    pub(crate) version: &'static str,
    pub(crate) instance: String,
    pub(crate) started: SystemTime,
    pub(crate) begun: Instant,
    pub(crate) inside: Box<dyn Inside>,
    pub(crate) listener: Handle,
    pub(crate) health: Health,
    pub(crate) journal: Journal,
    pub(crate) faults: Faults,
    pub(crate) log_level: LogLevel,
    pub(crate) stop: Stop,
    /// Ends the streams of this service.
    pub(crate) stopping: CancellationToken,
}

impl Admin {
    fn state(&self) -> ProcessState {
        let whole = self.health.status("");
        match whole {
            _ if self.health.is_latched() => ProcessState::Draining,
            _ if !self.health.is_started() => ProcessState::Starting,
            Some(health::Status::Serving) => ProcessState::Serving,
            _ => ProcessState::NotServing,
        }
    }
}

impl Admin {
    fn breakers(&self, meant: impl Fn(&Whose) -> bool) -> Vec<Breaker> {
        let (all, now) = (self.inside.breakers().into_iter(), Instant::now());
        let meant = all.filter(|(whose, _)| meant(whose));
        meant
            .map(|(whose, snapshot)| breakers::on_wire(whose, &snapshot, now))
            .collect()
    }

    fn pause(&self, pause: bool) -> Result<(), Status> {
        if self.inside.pause_registration(pause) {
            return Ok(());
        }
        let reason = "this process does not register: etcd.endpoints is not set, \
                      or registration.enabled is false";
        Err(Refusal::NotRegistering.status(reason))
    }
}

/// Refuses whoever is not on this machine.
fn local<T>(request: &Request<T>) -> Result<(), Status> {
    let peer = request.extensions().get::<Peer>();
    if peer.is_some_and(Peer::is_loopback) {
        return Ok(());
    }
    Err(Refusal::Remote.status("only a caller on this machine may change anything"))
}

#[tonic::async_trait]
impl AdminService for Admin {
    async fn get_info(
        &self,
        _request: Request<GetInfoRequest>,
    ) -> Result<Response<GetInfoResponse>, Status> {
        let connections = self.listener.connections();
        let address = self.listener.local_addr();
        Ok(Response::new(GetInfoResponse {
            name: self.name.to_owned(),
            version: self.version.to_owned(),
            platform_version: env!("CARGO_PKG_VERSION").to_owned(),
            instance: self.instance.clone(),
            address: address.map(|addr| addr.to_string()).unwrap_or_default(),
            pid: std::process::id(),
            start_time: Some(self.started.into()),
            uptime: convert::duration(self.begun.elapsed()),
            state: self.state().into(),
            services: self.inside.services(),
            config_version: self.inside.config_version(),
            calls_in_flight: connections.iter().map(|c| c.streams_open).sum(),
            rss_bytes: convert::resident_bytes().unwrap_or(0),
        }))
    }

    async fn get_config(
        &self,
        _request: Request<GetConfigRequest>,
    ) -> Result<Response<GetConfigResponse>, Status> {
        Ok(Response::new(self.inside.config()))
    }

    async fn switch_fault_on(
        &self,
        request: Request<SwitchFaultOnRequest>,
    ) -> Result<Response<SwitchFaultOnResponse>, Status> {
        local(&request)?;
        let fault = request.into_inner().fault.unwrap_or_default();
        let standing = faults::standing(&fault, Instant::now())?;
        let pattern = standing.pattern.to_string();
        let switched = self.faults.switch_on(standing);
        switched.map_err(|error| Refusal::Faults.status(error.to_string()))?;
        tracing::warn!(pattern, "a fault is switched on: calls fail on purpose");
        self.journal.record(Kind::Fault, pattern, "on");
        Ok(Response::new(SwitchFaultOnResponse {}))
    }

    async fn switch_fault_off(
        &self,
        request: Request<SwitchFaultOffRequest>,
    ) -> Result<Response<SwitchFaultOffResponse>, Status> {
        local(&request)?;
        let pattern = request.into_inner().pattern;
        let pattern = (!pattern.is_empty()).then(|| pattern.parse()).transpose();
        let pattern = pattern.map_err(|error: NoPattern| {
            status::invalid_argument([("pattern", error.to_string())])
        })?;
        let were = self.faults.switch_off(pattern.as_ref());
        for standing in &were {
            let pattern = standing.pattern.to_string();
            tracing::info!(pattern, "a fault is switched off");
            self.journal.record(Kind::Fault, pattern, "off");
        }
        let now = Instant::now();
        let faults = were.iter().map(|it| faults::on_wire(it, now)).collect();
        Ok(Response::new(SwitchFaultOffResponse { faults }))
    }

    async fn list_faults(
        &self,
        _request: Request<ListFaultsRequest>,
    ) -> Result<Response<ListFaultsResponse>, Status> {
        let (all, now) = (self.faults.all(), Instant::now());
        let faults = all.iter().map(|it| faults::on_wire(it, now)).collect();
        Ok(Response::new(ListFaultsResponse { faults }))
    }

    async fn explain_policy(
        &self,
        request: Request<ExplainPolicyRequest>,
    ) -> Result<Response<ExplainPolicyResponse>, Status> {
        let method = request.into_inner().method;
        if !matches!(method.parse(), Ok(Pattern::Method(_))) {
            let form = "must be a method as in package.Service/Method";
            return Err(status::invalid_argument([("method", form)]));
        }
        Ok(Response::new(self.inside.explain(&method)))
    }

    async fn list_endpoints(
        &self,
        request: Request<ListEndpointsRequest>,
    ) -> Result<Response<ListEndpointsResponse>, Status> {
        let client = &request.get_ref().client;
        let mut endpoints = self.inside.endpoints();
        endpoints.retain(|endpoint| client.is_empty() || endpoint.client == *client);
        Ok(Response::new(ListEndpointsResponse { endpoints }))
    }

    async fn list_breakers(
        &self,
        _request: Request<ListBreakersRequest>,
    ) -> Result<Response<ListBreakersResponse>, Status> {
        let breakers = self.breakers(|_| true);
        Ok(Response::new(ListBreakersResponse { breakers }))
    }

    async fn set_breaker(
        &self,
        request: Request<SetBreakerRequest>,
    ) -> Result<Response<SetBreakerResponse>, Status> {
        local(&request)?;
        let wanted = Wanted::read(request.into_inner(), Instant::now())?;
        let (whose, word) = (wanted.whose.to_string(), wanted.word());
        let set = self
            .inside
            .set_breaker(&wanted.whose, wanted.order, wanted.until);
        set.map_err(|error| match error {
            NotSet::Unknown => {
                Refusal::UnknownBreaker.status(format!("no breaker here is of {whose}"))
            }
            NotSet::TooMany => Refusal::Breakers.status(error.to_string()),
        })?;
        tracing::warn!(breaker = whose, order = word, "a breaker is set by hand");
        self.journal.record(Kind::BreakerSet, whose, word);
        let breakers = self.breakers(|it| wanted.whose.covers(it));
        Ok(Response::new(SetBreakerResponse { breakers }))
    }

    async fn list_limiters(
        &self,
        _request: Request<ListLimitersRequest>,
    ) -> Result<Response<ListLimitersResponse>, Status> {
        let limiters = self.inside.limits().into_iter();
        let limiters = limiters.map(limits::on_wire).collect();
        Ok(Response::new(ListLimitersResponse { limiters }))
    }

    async fn get_events(
        &self,
        _request: Request<GetEventsRequest>,
    ) -> Result<Response<GetEventsResponse>, Status> {
        Ok(Response::new(self.inside.events()))
    }

    async fn list_health_checks(
        &self,
        _request: Request<ListHealthChecksRequest>,
    ) -> Result<Response<ListHealthChecksResponse>, Status> {
        let statuses = self.health.statuses().into_iter();
        let services = statuses.map(|(service, status)| {
            let health = ServiceHealth {
                serving: status == health::Status::Serving,
                reason: self.health.reason(&service).unwrap_or_default(),
            };
            (service, health)
        });
        let checks = self.health.report().checks;
        Ok(Response::new(ListHealthChecksResponse {
            services: services.collect(),
            checks: checks.into_iter().map(convert::check).collect(),
        }))
    }

    async fn list_connections(
        &self,
        _request: Request<ListConnectionsRequest>,
    ) -> Result<Response<ListConnectionsResponse>, Status> {
        let local = self.listener.local_addr();
        let local = local.map(|addr| addr.to_string()).unwrap_or_default();
        let connections = self.listener.connections().into_iter();
        let connections = connections.map(|open| Connection {
            id: open.id,
            peer: open.peer.to_string(),
            local: local.clone(),
            open_time: convert::ago(open.age),
            tls: open.tls,
            calls_in_flight: u32::try_from(open.streams_open).unwrap_or(u32::MAX),
            calls_started: open.streams_total,
        });
        Ok(Response::new(ListConnectionsResponse {
            connections: connections.collect(),
        }))
    }

    async fn get_log_level(
        &self,
        _request: Request<GetLogLevelRequest>,
    ) -> Result<Response<GetLogLevelResponse>, Status> {
        let filter = self.log_level.get();
        Ok(Response::new(GetLogLevelResponse { filter }))
    }

    async fn set_log_level(
        &self,
        request: Request<SetLogLevelRequest>,
    ) -> Result<Response<SetLogLevelResponse>, Status> {
        local(&request)?;
        let filter = request.into_inner().filter;
        if filter.is_empty() || filter.len() > FILTER_MAX {
            let bounds = format!("must have 1 to {FILTER_MAX} bytes");
            return Err(status::invalid_argument([("filter", bounds)]));
        }
        let previous_filter = self.log_level.get();
        self.log_level
            .set(&filter)
            .map_err(|error| status::invalid_argument([("filter", error.to_string())]))?;
        tracing::info!(filter, previous_filter, "log level changed");
        self.journal.record(Kind::LogLevel, "admin", filter);
        Ok(Response::new(SetLogLevelResponse { previous_filter }))
    }

    async fn drain(
        &self,
        request: Request<DrainRequest>,
    ) -> Result<Response<DrainResponse>, Status> {
        local(&request)?;
        let begun = self.stop.request("asked over the side port");
        Ok(Response::new(DrainResponse {
            begin_time: Some(begun.time.into()),
            bound: convert::duration(self.inside.drain_bound()),
        }))
    }

    async fn get_registration(
        &self,
        _request: Request<GetRegistrationRequest>,
    ) -> Result<Response<GetRegistrationResponse>, Status> {
        let registration = self.inside.registration();
        Ok(Response::new(GetRegistrationResponse {
            registration: registration.as_ref().map(convert::registration),
        }))
    }

    async fn pause_registration(
        &self,
        request: Request<PauseRegistrationRequest>,
    ) -> Result<Response<PauseRegistrationResponse>, Status> {
        local(&request)?;
        self.pause(true)?;
        Ok(Response::new(PauseRegistrationResponse {}))
    }

    async fn resume_registration(
        &self,
        request: Request<ResumeRegistrationRequest>,
    ) -> Result<Response<ResumeRegistrationResponse>, Status> {
        local(&request)?;
        self.pause(false)?;
        Ok(Response::new(ResumeRegistrationResponse {}))
    }

    type WatchJournalStream =
        Pin<Box<dyn Stream<Item = Result<WatchJournalResponse, Status>> + Send>>;

    async fn watch_journal(
        &self,
        request: Request<WatchJournalRequest>,
    ) -> Result<Response<Self::WatchJournalStream>, Status> {
        let entries = follow::entries(&self.journal, request.get_ref(), self.stopping.clone());
        Ok(Response::new(Box::pin(entries)))
    }
}

#[cfg(test)]
mod tests;
