//! Names that a test, or a program, sets itself.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::watch;

use super::{Endpoint, Resolution, Resolve};

/// Resolves what it was told; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    names: Arc<Mutex<HashMap<String, watch::Sender<Resolution>>>>,
}

impl Memory {
    /// Knows no name yet: each resolves to nothing until it is set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// From now on `name` stands for `endpoints`.
    pub fn set(&self, name: &str, endpoints: impl IntoIterator<Item = impl Into<Endpoint>>) {
        let resolution = Resolution::new(endpoints);
        self.with(name, |sender| drop(sender.send_replace(resolution)));
    }

    /// Resolving `name` fails from now on; the last list stays.
    pub fn fail(&self, name: &str, error: &str) {
        self.with(name, |sender| {
            sender.send_modify(|resolution| resolution.error = Some(error.into()));
        });
    }

    fn with<R>(&self, name: &str, act: impl FnOnce(&watch::Sender<Resolution>) -> R) -> R {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        act(names.entry(name.to_owned()).or_default())
    }
}

impl Resolve for Memory {
    fn resolve(&self, name: &str) -> watch::Receiver<Resolution> {
        self.with(name, watch::Sender::subscribe)
    }
}
