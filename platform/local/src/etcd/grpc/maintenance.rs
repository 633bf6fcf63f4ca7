//! `etcdserverpb.Maintenance`: who serves, and how much it holds.

use etcd_client::proto::{
    PbAlarmRequest, PbAlarmResponse, PbDefragmentRequest, PbDefragmentResponse, PbDowngradeInfo,
    PbDowngradeRequest, PbDowngradeResponse, PbHashKvRequest, PbHashKvResponse, PbHashRequest,
    PbHashResponse, PbMaintenanceService, PbMoveLeaderRequest, PbMoveLeaderResponse,
    PbSnapshotRequest, PbSnapshotResponse, PbStatusRequest, PbStatusResponse,
};
use futures_util::stream;
use tonic::{Request, Response, Status};

use super::{Face, convert::number, header, refusal::unimplemented};
use crate::etcd::owner::State;

/// The version of etcd whose behaviour this is. Some clients refuse anything before 3.5.
const VERSION: &str = "3.6.14";

/// The layout of data that goes with it.
const STORAGE_VERSION: &str = "3.6.0";

/// `AlarmRequest.AlarmAction.GET`.
const GET: i32 = 0;

#[tonic::async_trait]
impl PbMaintenanceService for Face {
    async fn status(
        &self,
        _: Request<PbStatusRequest>,
    ) -> Result<Response<PbStatusResponse>, Status> {
        let status = self.0.ask(|state| status(state)).await?;
        Ok(Response::new(status))
    }

    /// There are never alarms: what is beyond a bound is refused, and the rest goes on.
    async fn alarm(
        &self,
        request: Request<PbAlarmRequest>,
    ) -> Result<Response<PbAlarmResponse>, Status> {
        if request.into_inner().action != GET {
            return Err(unimplemented("Maintenance", "Alarm"));
        }
        let revision = self.0.ask(|state| state.engine.revision()).await?;
        Ok(Response::new(PbAlarmResponse {
            header: Some(self.0.header(revision)),
            alarms: Vec::new(),
        }))
    }

    async fn defragment(
        &self,
        _: Request<PbDefragmentRequest>,
    ) -> Result<Response<PbDefragmentResponse>, Status> {
        Err(unimplemented("Maintenance", "Defragment"))
    }

    async fn hash(&self, _: Request<PbHashRequest>) -> Result<Response<PbHashResponse>, Status> {
        Err(unimplemented("Maintenance", "Hash"))
    }

    async fn hash_kv(
        &self,
        _: Request<PbHashKvRequest>,
    ) -> Result<Response<PbHashKvResponse>, Status> {
        Err(unimplemented("Maintenance", "HashKV"))
    }

    type SnapshotStream = stream::Empty<Result<PbSnapshotResponse, Status>>;

    async fn snapshot(
        &self,
        _: Request<PbSnapshotRequest>,
    ) -> Result<Response<Self::SnapshotStream>, Status> {
        Err(unimplemented("Maintenance", "Snapshot"))
    }

    async fn move_leader(
        &self,
        _: Request<PbMoveLeaderRequest>,
    ) -> Result<Response<PbMoveLeaderResponse>, Status> {
        Err(unimplemented("Maintenance", "MoveLeader"))
    }

    async fn downgrade(
        &self,
        _: Request<PbDowngradeRequest>,
    ) -> Result<Response<PbDowngradeResponse>, Status> {
        Err(unimplemented("Maintenance", "Downgrade"))
    }
}

fn status(state: &State) -> PbStatusResponse {
    let in_use = number(state.engine.size());
    let on_disk = state.store.as_ref().map(|store| store.size().cast_signed());
    PbStatusResponse {
        header: Some(header(state.identity, state.engine.revision())),
        version: VERSION.to_owned(),
        db_size: on_disk.unwrap_or(in_use),
        leader: state.identity.member_id,
        raft_index: state.index,
        raft_term: state.identity.term,
        raft_applied_index: state.index,
        errors: Vec::new(),
        db_size_in_use: in_use,
        is_learner: false,
        storage_version: STORAGE_VERSION.to_owned(),
        db_size_quota: number(state.engine.size_max()),
        downgrade_info: Some(PbDowngradeInfo::default()),
    }
}
