//! What a process is told by its environment: what belongs to its service, and where to listen.
//! Whom it calls it finds in the registry.

use super::{instance::Spec, world::Place};

/// The environment of a process of `spec` at `place`, over gantry's own; `paused` begins with its
/// registration paused.
pub(super) fn of(spec: &Spec, place: Place, paused: bool) -> Vec<(String, String)> {
    let mut environment = spec.environment.clone();
    let mut set = |key: &str, value: String| environment.push((key.to_owned(), value));
    set("GANTRY_LISTEN__ADDRESS", place.address.to_string());
    set("GANTRY_ADMIN__ADDRESS", place.side_address.to_string());
    if place.shared {
        // Two instances would take turns at one key. Whoever wants it knows its address.
        set("GANTRY_REGISTRATION__ENABLED", false.to_string());
    }
    if paused {
        set("GANTRY_REGISTRATION__PAUSED", true.to_string());
    }
    environment
}
