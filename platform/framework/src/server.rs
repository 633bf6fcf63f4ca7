//! The server's whole stack in one readable function.
