//! `etcdserverpb.KV`.

use etcd_client::proto::{
    PbCompactionRequest, PbCompactionResponse, PbDeleteRequest, PbDeleteResponse, PbKvService,
    PbPutRequest, PbPutResponse, PbRangeRequest, PbRangeResponse, PbRangeStreamResponse,
    PbTxnRequest, PbTxnResponse,
};
use futures_util::stream;
use tonic::{Request, Response, Status};

use super::{
    Face, checks, convert,
    refusal::{self, Fault},
};
use crate::etcd::engine::Refusal;

#[tonic::async_trait]
impl PbKvService for Face {
    async fn range(
        &self,
        request: Request<PbRangeRequest>,
    ) -> Result<Response<PbRangeResponse>, Status> {
        let request = request.into_inner();
        checks::range(&request).map_err(Fault::status)?;
        let query = convert::query(request);
        let answer = self.0.ask(move |state| state.engine.range(&query)).await?;
        let answer = answer.map_err(Refusal::status)?;
        let header = self.0.header(answer.revision);
        Ok(Response::new(convert::ranged(&answer, header)))
    }

    type RangeStreamStream = stream::Empty<Result<PbRangeStreamResponse, Status>>;

    async fn range_stream(
        &self,
        _: Request<PbRangeRequest>,
    ) -> Result<Response<Self::RangeStreamStream>, Status> {
        Err(refusal::unimplemented("KV", "RangeStream"))
    }

    async fn put(&self, request: Request<PbPutRequest>) -> Result<Response<PbPutResponse>, Status> {
        let request = request.into_inner();
        checks::put(&request).map_err(Fault::status)?;
        checks::size(&request).map_err(Fault::status)?;
        let put = convert::put(request);
        let answer = self.0.ask(move |state| state.engine.put(&put)).await?;
        let answer = answer.map_err(Refusal::status)?;
        let header = self.0.header(answer.revision);
        Ok(Response::new(convert::was_put(&answer, header)))
    }

    async fn delete_range(
        &self,
        request: Request<PbDeleteRequest>,
    ) -> Result<Response<PbDeleteResponse>, Status> {
        let request = request.into_inner();
        checks::delete(&request).map_err(Fault::status)?;
        checks::size(&request).map_err(Fault::status)?;
        let delete = convert::delete(request);
        let answer = self
            .0
            .ask(move |state| state.engine.delete(&delete))
            .await?;
        let header = self.0.header(answer.revision);
        Ok(Response::new(convert::deleted(&answer, header)))
    }

    async fn txn(&self, request: Request<PbTxnRequest>) -> Result<Response<PbTxnResponse>, Status> {
        let request = request.into_inner();
        checks::txn(&request).map_err(Fault::status)?;
        checks::size(&request).map_err(Fault::status)?;
        let txn = convert::txn(request);
        let answer = self.0.ask(move |state| state.engine.txn(&txn)).await?;
        let answer = answer.map_err(Refusal::status)?;
        let header = self.0.header(answer.revision);
        Ok(Response::new(convert::transacted(answer, header)))
    }

    async fn compact(
        &self,
        request: Request<PbCompactionRequest>,
    ) -> Result<Response<PbCompactionResponse>, Status> {
        // Always physical: what is compacted is gone when this is answered.
        let revision = request.into_inner().revision;
        let answer = self
            .0
            .ask(move |state| {
                state.engine.compact(revision)?;
                Ok(state.engine.revision())
            })
            .await?;
        let revision = answer.map_err(Refusal::status)?;
        Ok(Response::new(PbCompactionResponse {
            header: Some(self.0.header(revision)),
        }))
    }
}
