//! Layered configuration: defaults, files, environment, command line; checked whole, swapped whole.
