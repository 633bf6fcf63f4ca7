//! Real clients and servers that are not ours: grpcurl, Python's grpcio, Node's grpc-js, a page in a
//! browser and a validator of `OpenAPI` against the shop; etcd's own servers and clients beside the
//! local etcd.

mod discovery;
mod etcd;
mod grpcurl;
mod node;
mod openapi;
mod python;
