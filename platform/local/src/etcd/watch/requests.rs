//! What a caller asks of its stream: watches created and cancelled, progress.

use bytes::Bytes;
use etcd_client::proto::{PbWatchRequest, PbWatchRequestUnion, PbWatchResponse};
use tonic::Status;

use super::{NO_WATCH, WATCHES_MAX, Watch, Watches};
use crate::etcd::{
    engine::{Cursor, Filters, Range},
    grpc::{COMPACTED, DUPLICATE_WATCH, EMPTY_RANGE, TOO_MANY_WATCHES, stopped},
};

/// `WatchCreateRequest.FilterType`.
const NO_PUT: i32 = 0;
const NO_DELETE: i32 = 1;

/// A watch as it was asked for.
struct Wanted {
    range: Range,
    /// 0 for any.
    id: i64,
    /// 0 for what comes.
    start_revision: i64,
    watch: Watch,
}

impl Watches {
    pub(super) async fn request(&mut self, request: PbWatchRequest) -> Result<(), Status> {
        use PbWatchRequestUnion as Union;
        match request.request_union {
            Some(Union::CreateRequest(create)) => {
                // No key is the first key there could be.
                let key = if create.key.is_empty() {
                    Bytes::from_static(&[0])
                } else {
                    create.key.into()
                };
                let range = Range::new(key, create.range_end.into());
                let filters = Filters {
                    puts: create.filters.contains(&NO_PUT),
                    deletes: create.filters.contains(&NO_DELETE),
                };
                let wanted = Wanted {
                    id: create.watch_id,
                    start_revision: create.start_revision,
                    watch: Watch {
                        cursor: Cursor {
                            range: range.clone(),
                            next: create.start_revision,
                            filters,
                            prev_kv: create.prev_kv,
                        },
                        fragment: create.fragment,
                        progress: create.progress_notify,
                        told: true,
                    },
                    range,
                };
                self.create(wanted).await
            }
            Some(Union::CancelRequest(cancel)) => self.cancel(cancel.watch_id).await,
            Some(Union::ProgressRequest(_)) => {
                self.progress_asked = true;
                Ok(())
            }
            None => Ok(()),
        }
    }

    async fn create(&mut self, wanted: Wanted) -> Result<(), Status> {
        let revision = self.current().await?;
        let Wanted {
            range,
            id,
            start_revision,
            mut watch,
        } = wanted;
        let refused = if start_revision < 0 {
            Some(COMPACTED)
        } else if range.is_empty() {
            Some(EMPTY_RANGE)
        } else if self.by_id.contains_key(&id) && id != 0 {
            Some(DUPLICATE_WATCH)
        } else if self.by_id.len() >= WATCHES_MAX {
            Some(TOO_MANY_WATCHES)
        } else {
            None
        };
        let id = match refused {
            Some(_) => NO_WATCH,
            None if id == 0 => self.free_id(),
            None => id,
        };
        if refused.is_none() {
            if start_revision == 0 {
                watch.cursor.next = revision + 1;
            }
            self.by_id.insert(id, watch);
        }
        self.ready.push_back(PbWatchResponse {
            header: Some(self.shared.header(revision)),
            watch_id: id,
            created: true,
            canceled: refused.is_some(),
            cancel_reason: refused.unwrap_or_default().to_owned(),
            ..PbWatchResponse::default()
        });
        Ok(())
    }

    async fn cancel(&mut self, id: i64) -> Result<(), Status> {
        if self.by_id.remove(&id).is_none() {
            return Ok(());
        }
        let revision = self.current().await?;
        self.ready.push_back(PbWatchResponse {
            header: Some(self.shared.header(revision)),
            watch_id: id,
            canceled: true,
            ..PbWatchResponse::default()
        });
        Ok(())
    }

    fn free_id(&mut self) -> i64 {
        while self.by_id.contains_key(&self.next_id) {
            self.next_id += 1;
        }
        let id = self.next_id;
        self.next_id += 1;
        id
    }

    /// The store's revision. The owner is asked, so that a watch begins after everything that was
    /// answered before it was asked for.
    async fn current(&mut self) -> Result<i64, Status> {
        let asker = &self.shared.asker;
        let revision = asker.ask(|state| state.engine.revision()).await;
        revision.map_err(|_| stopped())
    }
}
