//! Serving status from named checks, spoken as grpc.health.v1.
