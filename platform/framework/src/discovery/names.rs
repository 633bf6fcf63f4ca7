//! The names one resolver watches: one watch for each, however many ask.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{Notify, watch};

use super::Resolution;

/// The watched names of one resolver; clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Names {
    watched: Arc<Mutex<HashMap<String, Watched>>>,
}

/// One watch, as seen by whoever keeps it current.
#[derive(Debug, Clone)]
pub(super) struct Watched {
    /// Where every list goes; closed when the last reader has gone.
    pub(super) resolutions: watch::Sender<Resolution>,
    /// Notified when endpoints of the name fail.
    pub(super) hint: Arc<Notify>,
}

impl Names {
    /// Joins those who watch `name`. Where nobody does, `begin` is given a new watch to keep
    /// current.
    pub(super) fn join(
        &self,
        name: &str,
        begin: impl FnOnce(Watched),
    ) -> watch::Receiver<Resolution> {
        let mut all = self.all();
        if let Some(watched) = all.get(name) {
            let joined = watched.resolutions.subscribe();
            // One whose last reader is gone may be ending: a new one takes its place.
            if watched.resolutions.receiver_count() > 1 {
                return joined;
            }
        }
        let watched = Watched {
            resolutions: watch::Sender::default(),
            hint: Arc::default(),
        };
        let receiver = watched.resolutions.subscribe();
        all.insert(name.to_owned(), watched.clone());
        begin(watched);
        receiver
    }

    /// Tells whoever keeps `name` current that its endpoints fail.
    pub(super) fn hint(&self, name: &str) {
        if let Some(watched) = self.all().get(name) {
            watched.hint.notify_one();
        }
    }

    fn all(&self) -> MutexGuard<'_, HashMap<String, Watched>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: one watch serves all who ask, and a name that was let go is begun anew.
    /// Method: ask twice; drop both readers, and ask again; count the beginnings.
    #[test]
    fn a_name_is_watched_once() {
        let names = Names::default();
        let mut begun = Vec::new();
        let first = names.join("orders", |watched| begun.push(watched));
        let second = names.join("orders", |watched| begun.push(watched));
        assert!(first.same_channel(&second));
        drop((first, second));
        let _third = names.join("orders", |watched| begun.push(watched));
        assert_eq!(2, begun.len());
        assert!(begun[0].resolutions.is_closed());
    }
}
