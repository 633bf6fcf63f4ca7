//! What the chassis needs to know of etcd's methods: their names, and which of them stream.
//!
//! The crate with the generated code keeps its descriptors to itself, so this restates them.

use std::sync::LazyLock;

use prost::Message as _;
use prost_types::{
    FileDescriptorProto, FileDescriptorSet, MethodDescriptorProto, MethodOptions,
    ServiceDescriptorProto, method_options::IdempotencyLevel,
};

/// Calls that change nothing may be repeated; all others may not.
const READ: IdempotencyLevel = IdempotencyLevel::NoSideEffects;
const WRITE: IdempotencyLevel = IdempotencyLevel::IdempotencyUnknown;

/// Name, whether requests and answers stream, and whether it only reads.
type Row = (&'static str, bool, bool, IdempotencyLevel);

const KV: [Row; 6] = [
    ("Range", false, false, READ),
    ("RangeStream", false, true, READ),
    ("Put", false, false, WRITE),
    ("DeleteRange", false, false, WRITE),
    ("Txn", false, false, WRITE),
    ("Compact", false, false, WRITE),
];

const WATCH: [Row; 1] = [("Watch", true, true, READ)];

const LEASE: [Row; 5] = [
    ("LeaseGrant", false, false, WRITE),
    ("LeaseRevoke", false, false, WRITE),
    ("LeaseKeepAlive", true, true, WRITE),
    ("LeaseTimeToLive", false, false, READ),
    ("LeaseLeases", false, false, READ),
];

const CLUSTER: [Row; 5] = [
    ("MemberAdd", false, false, WRITE),
    ("MemberRemove", false, false, WRITE),
    ("MemberUpdate", false, false, WRITE),
    ("MemberList", false, false, READ),
    ("MemberPromote", false, false, WRITE),
];

const MAINTENANCE: [Row; 8] = [
    ("Alarm", false, false, WRITE),
    ("Status", false, false, READ),
    ("Defragment", false, false, WRITE),
    ("Hash", false, false, READ),
    ("HashKV", false, false, READ),
    ("Snapshot", false, true, READ),
    ("MoveLeader", false, false, WRITE),
    ("Downgrade", false, false, WRITE),
];

static ETCD: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let file = FileDescriptorProto {
        name: Some("etcd/api/etcdserverpb/rpc.proto".to_owned()),
        package: Some("etcdserverpb".to_owned()),
        service: vec![
            service("KV", &KV),
            service("Watch", &WATCH),
            service("Lease", &LEASE),
            service("Cluster", &CLUSTER),
            service("Maintenance", &MAINTENANCE),
        ],
        ..FileDescriptorProto::default()
    };
    FileDescriptorSet { file: vec![file] }.encode_to_vec()
});

/// The services of etcd, encoded.
pub(super) fn etcd() -> &'static [u8] {
    &ETCD
}

fn service(name: &str, rows: &[Row]) -> ServiceDescriptorProto {
    let methods = rows.iter().map(|(name, requests, answers, level)| {
        let options = MethodOptions {
            idempotency_level: Some(i32::from(*level)),
            ..MethodOptions::default()
        };
        MethodDescriptorProto {
            name: Some((*name).to_owned()),
            client_streaming: Some(*requests),
            server_streaming: Some(*answers),
            options: Some(options),
            ..MethodDescriptorProto::default()
        }
    });
    ServiceDescriptorProto {
        name: Some(name.to_owned()),
        method: methods.collect(),
        ..ServiceDescriptorProto::default()
    }
}
