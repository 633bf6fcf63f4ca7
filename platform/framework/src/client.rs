//! The client's whole stack in one readable function.
