//! The names of methods that a program hands on, as those who measure know them.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use arc_swap::ArcSwap;
use foldhash::fast::RandomState;

use crate::telemetry::rpc::ServerMethod;

/// Names that are ever given. What was measured stays as long as the process does, so more than
/// these are `_OTHER`.
const NAMES_MAX: usize = 10_000;

/// Which methods are measured and traced by their names, of those that a program answers for
/// without serving them; the rest is `_OTHER`, so that callers cannot make series. Clones share them.
#[derive(Clone, Default)]
pub struct Named {
    /// By path, as on the wire.
    methods: Arc<ArcSwap<Methods>>,
    /// All there ever were: who comes back goes on counting where they were.
    known: Arc<Mutex<Methods>>,
}

type Methods = HashMap<Arc<str>, ServerMethod, RandomState>;

impl fmt::Debug for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Named").finish_non_exhaustive()
    }
}

impl Named {
    /// From now on these are known, each as `/package.Service/Method`, and no others.
    pub fn set(&self, paths: impl IntoIterator<Item = String>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let mut methods = Methods::default();
        for path in paths {
            let path: Arc<str> = path.into();
            if !known.contains_key(&path) {
                if known.len() == NAMES_MAX {
                    tracing::warn!(path = &*path, NAMES_MAX, "too many methods to name each");
                    break;
                }
                let name = path.strip_prefix('/').unwrap_or(&path);
                known.insert(Arc::clone(&path), ServerMethod::named(name.into()));
            }
            methods.insert(Arc::clone(&path), known[&path].clone());
        }
        self.methods.store(Arc::new(methods));
    }

    /// The method at `path`, where it is known.
    pub(super) fn get(&self, path: &str) -> Option<ServerMethod> {
        self.methods.load().get(path).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: names are bounded, and those that were given stay.
    /// Method: one more than there may be, then the first again.
    #[test]
    fn names_are_bounded() {
        let named = Named::default();
        named.set((0..=NAMES_MAX).map(|number| format!("/a.B/{number}")));
        assert!(named.get("/a.B/0").is_some());
        assert!(named.get(&format!("/a.B/{}", NAMES_MAX - 1)).is_some());
        assert!(named.get(&format!("/a.B/{NAMES_MAX}")).is_none());
        named.set(["/a.B/0".to_owned(), "/new.One/Call".to_owned()]);
        assert!(named.get("/a.B/0").is_some());
        assert!(named.get("/a.B/1").is_none(), "it is gone");
        assert!(named.get("/new.One/Call").is_none(), "one too many");
    }
}
