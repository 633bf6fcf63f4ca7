//! `etcdserverpb.Watch`.

use std::sync::Arc;

use etcd_client::proto::{PbWatchRequest, PbWatchService};
use tonic::{Request, Response, Status, Streaming};

use super::Face;
use crate::etcd::watch::{self, Watching};

#[tonic::async_trait]
impl PbWatchService for Face {
    type WatchStream = Watching;

    async fn watch(
        &self,
        request: Request<Streaming<PbWatchRequest>>,
    ) -> Result<Response<Watching>, Status> {
        let shared = Arc::clone(&self.0);
        let answers = watch::answers(request.into_inner(), shared);
        Ok(Response::new(answers))
    }
}
