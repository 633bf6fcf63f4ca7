//! Between the wire's words and the engine's.

use bytes::Bytes;
use etcd_client::proto::{
    PbCompare, PbDeleteRequest, PbDeleteResponse, PbEvent, PbKeyValue, PbPutRequest, PbPutResponse,
    PbRangeRequest, PbRangeResponse, PbResponseHeader, PbResponseOp, PbTargetUnion, PbTxnOpRequest,
    PbTxnOpResponse, PbTxnRequest, PbTxnRequestOp, PbTxnResponse,
};

use crate::etcd::engine::{
    Compare, Compared, Delete, DeleteAnswer, Event, KeyValue, Op, OpAnswer, Order, Put, PutAnswer,
    Query, Range, RangeAnswer, Relation, Target, Txn, TxnAnswer,
};

pub(super) fn query(request: PbRangeRequest) -> Query {
    Query {
        range: Range::new(request.key.into(), request.range_end.into()),
        limit: usize::try_from(request.limit).unwrap_or(0),
        revision: request.revision,
        order: match request.sort_order {
            1 => Order::Ascend,
            2 => Order::Descend,
            _ => Order::None,
        },
        target: match request.sort_target {
            1 => Target::Version,
            2 => Target::Create,
            3 => Target::Mod,
            4 => Target::Value,
            _ => Target::Key,
        },
        keys_only: request.keys_only,
        count_only: request.count_only,
        mod_revision: (request.min_mod_revision, request.max_mod_revision),
        create_revision: (request.min_create_revision, request.max_create_revision),
    }
}

pub(super) fn put(request: PbPutRequest) -> Put {
    Put {
        key: request.key.into(),
        value: request.value.into(),
        lease: request.lease,
        prev_kv: request.prev_kv,
        ignore_value: request.ignore_value,
        ignore_lease: request.ignore_lease,
    }
}

pub(super) fn delete(request: PbDeleteRequest) -> Delete {
    Delete {
        range: Range::new(request.key.into(), request.range_end.into()),
        prev_kv: request.prev_kv,
    }
}

pub(super) fn txn(request: PbTxnRequest) -> Txn {
    let operations = |list: Vec<PbTxnRequestOp>| {
        let list = list.into_iter();
        list.filter_map(|it| it.request.map(operation)).collect()
    };
    Txn {
        compares: request.compare.into_iter().map(compare).collect(),
        success: operations(request.success),
        failure: operations(request.failure),
    }
}

fn operation(request: PbTxnOpRequest) -> Op {
    match request {
        PbTxnOpRequest::RequestRange(request) => Op::Range(query(request)),
        PbTxnOpRequest::RequestPut(request) => Op::Put(put(request)),
        PbTxnOpRequest::RequestDeleteRange(request) => Op::Delete(delete(request)),
        PbTxnOpRequest::RequestTxn(request) => Op::Txn(txn(request)),
    }
}

fn compare(request: PbCompare) -> Compare {
    use PbTargetUnion as Union;
    // What is compared is said twice; where the two differ, etcd compares with nothing.
    let compared = match (request.target, request.target_union) {
        (1, Some(Union::CreateRevision(revision))) => Compared::Create(revision),
        (1, _) => Compared::Create(0),
        (2, Some(Union::ModRevision(revision))) => Compared::Mod(revision),
        (2, _) => Compared::Mod(0),
        (3, Some(Union::Value(value))) => Compared::Value(value.into()),
        (3, _) => Compared::Value(Bytes::new()),
        (4, Some(Union::Lease(lease))) => Compared::Lease(lease),
        (4, _) => Compared::Lease(0),
        (_, Some(Union::Version(version))) => Compared::Version(version),
        _ => Compared::Version(0),
    };
    Compare {
        range: Range::new(request.key.into(), request.range_end.into()),
        compared,
        relation: match request.result {
            1 => Relation::Greater,
            2 => Relation::Less,
            3 => Relation::NotEqual,
            _ => Relation::Equal,
        },
    }
}

pub(super) fn ranged(answer: &RangeAnswer, header: PbResponseHeader) -> PbRangeResponse {
    let keys_only = answer.keys_only;
    let values = answer.values.iter();
    PbRangeResponse {
        header: Some(header),
        kvs: values
            .map(|value| {
                if keys_only {
                    without_value(value)
                } else {
                    key_value(value)
                }
            })
            .collect(),
        more: answer.more,
        count: number(answer.count),
    }
}

pub(super) fn was_put(answer: &PutAnswer, header: PbResponseHeader) -> PbPutResponse {
    PbPutResponse {
        header: Some(header),
        prev_kv: answer.prev_kv.as_deref().map(key_value),
    }
}

pub(super) fn deleted(answer: &DeleteAnswer, header: PbResponseHeader) -> PbDeleteResponse {
    let values = answer.prev_kvs.iter();
    PbDeleteResponse {
        header: Some(header),
        deleted: number(answer.deleted),
        prev_kvs: values.map(|value| key_value(value)).collect(),
    }
}

pub(super) fn transacted(answer: TxnAnswer, header: PbResponseHeader) -> PbTxnResponse {
    let answers = answer.answers.into_iter();
    PbTxnResponse {
        header: Some(header),
        succeeded: answer.succeeded,
        responses: answers
            .map(|answer| PbResponseOp {
                response: Some(operated(answer)),
            })
            .collect(),
    }
}

fn operated(answer: OpAnswer) -> PbTxnOpResponse {
    match answer {
        OpAnswer::Range(answer) => {
            let header = inner(answer.revision);
            PbTxnOpResponse::ResponseRange(ranged(&answer, header))
        }
        OpAnswer::Put(answer) => {
            PbTxnOpResponse::ResponsePut(was_put(&answer, inner(answer.revision)))
        }
        OpAnswer::Delete(answer) => {
            PbTxnOpResponse::ResponseDeleteRange(deleted(&answer, inner(answer.revision)))
        }
        OpAnswer::Txn(answer) => {
            let header = inner(answer.revision);
            PbTxnOpResponse::ResponseTxn(transacted(answer, header))
        }
    }
}

/// Within a transaction an answer says its revision and no more.
fn inner(revision: i64) -> PbResponseHeader {
    PbResponseHeader {
        revision,
        ..PbResponseHeader::default()
    }
}

/// An event as watchers get it.
pub(in crate::etcd) fn watched(event: &Event) -> PbEvent {
    let change = &event.change;
    PbEvent {
        r#type: i32::from(change.value.is_none()),
        kv: Some(match &change.value {
            Some(value) => key_value(value),
            None => PbKeyValue {
                key: change.key.to_vec(),
                mod_revision: change.place.revision,
                ..PbKeyValue::default()
            },
        }),
        prev_kv: event.prev_kv.as_deref().map(key_value),
    }
}

fn key_value(value: &KeyValue) -> PbKeyValue {
    PbKeyValue {
        value: value.value.to_vec(),
        ..without_value(value)
    }
}

fn without_value(value: &KeyValue) -> PbKeyValue {
    PbKeyValue {
        key: value.key.to_vec(),
        create_revision: value.create_revision,
        mod_revision: value.mod_revision,
        version: value.version,
        value: Vec::new(),
        lease: value.lease,
    }
}

pub(super) fn number(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
