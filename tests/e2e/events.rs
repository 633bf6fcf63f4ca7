//! What services tell each other by events, as people notice it.

mod audit;
mod desk;
mod outage;
mod poison;
mod rabbit;
