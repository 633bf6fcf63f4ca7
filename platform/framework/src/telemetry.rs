//! Logs, traces and metrics: set-up, propagation, and typed declarations for a service's own.
