//! The loopback side port: health, metrics and the admin service.
