//! Patterns that no method matches, and what was meant by them.

use std::collections::{BTreeMap, BTreeSet};

use super::Policy;
use crate::{config, contract::Pattern};

/// A configured pattern that is for no method that a process serves or calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unmatched {
    /// The pattern.
    pub pattern: String,
    /// One that is for some method and is spelt nearly as this one.
    pub meant: Option<String>,
}

/// The one of `methods` that is spelt nearly as `method`, where none has this very name.
#[must_use]
pub fn meant<'a>(method: &str, methods: &BTreeSet<&'a str>) -> Option<&'a str> {
    if methods.contains(method) {
        return None;
    }
    config::nearest(method, methods.iter().copied())
}

/// Those of `configured` that are for none of `methods`, each `package.Service/Method`.
#[must_use]
pub fn unmatched(
    configured: &BTreeMap<String, Policy>,
    methods: &BTreeSet<&str>,
) -> Vec<Unmatched> {
    let services = methods.iter().filter_map(|method| method.split_once('/'));
    let services: BTreeSet<_> = services
        .map(|(service, _)| format!("{service}/*"))
        .collect();
    let unmatched = configured.keys().filter(|name| match name.parse() {
        Ok(Pattern::Method(name)) => !methods.contains(name.as_str()),
        Ok(Pattern::Service(_)) => !services.contains(name.as_str()),
        Ok(Pattern::All) | Err(_) => false,
    });
    let unmatched = unmatched.map(|name| {
        let known = services.iter().map(String::as_str);
        let meant = config::nearest(name, methods.iter().copied().chain(known));
        Unmatched {
            pattern: name.clone(),
            meant: meant.map(str::to_owned),
        }
    });
    unmatched.collect()
}
