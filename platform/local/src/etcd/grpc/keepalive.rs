//! A stream that keeps leases alive.

use std::pin::Pin;

use etcd_client::proto::{PbLeaseKeepAliveRequest, PbLeaseKeepAliveResponse};
use futures_util::{Stream, stream};
use tokio::time::Instant;
use tonic::{Status, Streaming};

use super::Face;

/// One answer for each request, in order.
pub(super) type KeepAlives =
    Pin<Box<dyn Stream<Item = Result<PbLeaseKeepAliveResponse, Status>> + Send>>;

/// Answers each request; the next is read once the caller has taken the last answer.
pub(super) fn answers(requests: Streaming<PbLeaseKeepAliveRequest>, face: Face) -> KeepAlives {
    Box::pin(stream::try_unfold(
        (requests, face),
        async |(mut requests, face)| {
            let Some(request) = requests.message().await? else {
                return Ok(None);
            };
            let answer = keep_alive(&face, request.id).await?;
            Ok(Some((answer, (requests, face))))
        },
    ))
}

/// Renews a lease; one that is not there has no time to live.
async fn keep_alive(face: &Face, id: i64) -> Result<PbLeaseKeepAliveResponse, Status> {
    let (ttl, revision) = face
        .0
        .ask(move |state| {
            let ttl = state.clock.renew(id, Instant::now());
            (ttl.unwrap_or(0), state.engine.revision())
        })
        .await?;
    Ok(PbLeaseKeepAliveResponse {
        header: Some(face.0.header(revision)),
        id,
        ttl,
    })
}
