//! From a configuration to a running service, and down again.
