//! Connections: the accept loop and its limits, one endpoint's connections, TLS.
