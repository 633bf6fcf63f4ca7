//! `etcdserverpb.Lease`.

use etcd_client::proto::{
    PbLeaseGrantRequest, PbLeaseGrantResponse, PbLeaseKeepAliveRequest, PbLeaseLeasesRequest,
    PbLeaseLeasesResponse, PbLeaseRevokeRequest, PbLeaseRevokeResponse, PbLeaseService,
    PbLeaseStatus, PbLeaseTimeToLiveRequest, PbLeaseTimeToLiveResponse,
};
use tokio::time::Instant;
use tonic::{Request, Response, Status, Streaming};

use super::{Face, keepalive::KeepAlives};
use crate::etcd::{engine::Refusal, owner::State};

#[tonic::async_trait]
impl PbLeaseService for Face {
    async fn lease_grant(
        &self,
        request: Request<PbLeaseGrantRequest>,
    ) -> Result<Response<PbLeaseGrantResponse>, Status> {
        let PbLeaseGrantRequest { ttl, id } = request.into_inner();
        let granted = self.0.ask(move |state| grant(state, id, ttl)).await?;
        let (id, ttl, revision) = granted.map_err(Refusal::status)?;
        Ok(Response::new(PbLeaseGrantResponse {
            header: Some(self.0.header(revision)),
            id,
            ttl,
            error: String::new(),
        }))
    }

    async fn lease_revoke(
        &self,
        request: Request<PbLeaseRevokeRequest>,
    ) -> Result<Response<PbLeaseRevokeResponse>, Status> {
        let id = request.into_inner().id;
        let revoked = self
            .0
            .ask(move |state| {
                state.engine.revoke(id)?;
                state.clock.stop(id);
                Ok(state.engine.revision())
            })
            .await?;
        let revision = revoked.map_err(Refusal::status)?;
        Ok(Response::new(PbLeaseRevokeResponse {
            header: Some(self.0.header(revision)),
        }))
    }

    type LeaseKeepAliveStream = KeepAlives;

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<PbLeaseKeepAliveRequest>>,
    ) -> Result<Response<KeepAlives>, Status> {
        let answers = super::keepalive::answers(request.into_inner(), self.clone());
        Ok(Response::new(answers))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<PbLeaseTimeToLiveRequest>,
    ) -> Result<Response<PbLeaseTimeToLiveResponse>, Status> {
        let PbLeaseTimeToLiveRequest { id, keys } = request.into_inner();
        let (mut answer, revision) = self
            .0
            .ask(move |state| (time_to_live(state, id, keys), state.engine.revision()))
            .await?;
        answer.header = Some(self.0.header(revision));
        Ok(Response::new(answer))
    }

    async fn lease_leases(
        &self,
        _: Request<PbLeaseLeasesRequest>,
    ) -> Result<Response<PbLeaseLeasesResponse>, Status> {
        let (leases, revision) = self
            .0
            .ask(|state| {
                let leases: Vec<_> = state.clock.ids().map(|id| PbLeaseStatus { id }).collect();
                (leases, state.engine.revision())
            })
            .await?;
        Ok(Response::new(PbLeaseLeasesResponse {
            header: Some(self.0.header(revision)),
            leases,
        }))
    }
}

/// Grants a lease; one without an id gets a free one.
fn grant(state: &mut State, id: i64, ttl: i64) -> Result<(i64, i64, i64), Refusal> {
    let mut id = id;
    while id == 0 {
        let drawn = fastrand::i64(1..);
        if state.engine.lease(drawn).is_none() {
            id = drawn;
        }
    }
    let ttl = state.engine.grant(id, ttl)?;
    state.clock.start(id, ttl, Instant::now());
    Ok((id, ttl, state.engine.revision()))
}

fn time_to_live(state: &State, id: i64, keys: bool) -> PbLeaseTimeToLiveResponse {
    let found = state.engine.lease(id);
    let remaining = state.clock.remaining(id, Instant::now());
    let (Some(lease), Some(remaining)) = (found, remaining) else {
        return PbLeaseTimeToLiveResponse {
            id,
            ttl: -1,
            ..PbLeaseTimeToLiveResponse::default()
        };
    };
    let attached = lease.keys.iter().filter(|_| keys);
    PbLeaseTimeToLiveResponse {
        header: None,
        id,
        ttl: remaining.as_secs().cast_signed(),
        granted_ttl: lease.ttl,
        keys: attached.map(|key| key.to_vec()).collect(),
    }
}
