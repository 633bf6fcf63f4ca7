//! Compares the books of a running shop: every order with its payment, with what the bank took for
//! it, and with what left the shelves.
//!
//! It reads what the services have written down, so it sees the orders of everybody, and it reads
//! that by statements of its own: what is wrong in a service is not wrong in the same way here. The
//! bank is somebody else's and is asked for its ledger. Nothing is changed anywhere.
//!
//! ```text
//! Sources ──settled(wait)──▶ Books ──faults(since)──▶ Fault, …
//!                              └──▶ Report, for people and for programs
//! ```
//!
//! The shop may be at work meanwhile. Orders are read before all else and again after it: one that
//! was at rest both times, and has made no step in between, must agree with what was read in the
//! meantime. Others are judged when they have come to rest, or when they do not.

mod books;
mod faults;
mod ledger;
mod report;
mod rows;
mod sources;

pub use books::{Books, Charge, ChargeState, Judged, Money, Order, Payment, PaymentState, State};
pub use books::{Reservation, ReservationState, Shelf, Shelves};
pub use faults::{Fault, Kind};
pub use ledger::{Bank, BankError};
pub use report::Report;
pub use sources::{Error, Places, Sources};
