//! Real clients and servers that are not ours: grpcurl and Python's grpcio against the shop; etcd's
//! own servers and clients beside the local etcd.

mod discovery;
mod etcd;
mod grpcurl;
mod python;
