//! Which services went a little while ago: whoever calls one of them is told to come back, and not
//! that there is no such service.

use std::{cmp::Reverse, collections::HashMap, sync::Arc, time::Duration};

use gantry::discovery::Services;
use tokio::time::Instant;

/// How long a service that went is remembered.
const REMEMBERED: Duration = Duration::from_mins(5);
/// Services that are remembered; of more, those that went last.
const SERVICES_MAX: usize = 256;

/// Remembers services that went.
#[derive(Debug, Default)]
pub(super) struct Gone {
    last: Option<Arc<Services>>,
    since: HashMap<Arc<str>, Instant>,
}

impl Gone {
    /// Compares what is registered by now with what was when it was last looked at.
    pub(super) fn follow(&mut self, services: &Arc<Services>) {
        if self
            .last
            .as_ref()
            .is_some_and(|it| Arc::ptr_eq(it, services))
        {
            return;
        }
        let now = Instant::now();
        if let Some(last) = self.last.replace(Arc::clone(services)) {
            let gone = last.keys().filter(|it| !services.contains_key(*it));
            self.since.extend(gone.map(|it| (Arc::clone(it), now)));
        }
        self.since
            .retain(|name, since| !services.contains_key(name) && since.elapsed() < REMEMBERED);
        if self.since.len() > SERVICES_MAX {
            let mut all: Vec<_> = self.since.drain().collect();
            all.sort_by_key(|(_, since)| Reverse(*since));
            all.truncate(SERVICES_MAX);
            self.since.extend(all);
        }
    }

    /// Whether `service` went a little while ago.
    pub(super) fn has(&self, service: &str) -> bool {
        let since = self.since.get(service);
        since.is_some_and(|it| it.elapsed() < REMEMBERED)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time;

    use super::*;

    fn services<T: AsRef<str>>(names: impl IntoIterator<Item = T>) -> Arc<Services> {
        let names = names.into_iter();
        Arc::new(names.map(|it| (it.as_ref().into(), "who".into())).collect())
    }

    /// Goal: one that went is remembered for five minutes, or until it is back; one that never was is
    /// not, and those that went are no more than so many, the last ones.
    /// Method: lists one after the other, on a paused clock.
    #[tokio::test(start_paused = true)]
    async fn what_went_is_remembered_for_a_while() {
        let mut gone = Gone::default();
        gone.follow(&services(["a", "b"]));
        assert!(!gone.has("a"), "it is there");
        gone.follow(&services(["b"]));
        assert!(gone.has("a") && !gone.has("b") && !gone.has("c"));
        time::advance(REMEMBERED / 2).await;
        assert!(gone.has("a"));
        gone.follow(&services(["a", "b"]));
        assert!(!gone.has("a"), "it is back");
        gone.follow(&services(["b"]));
        time::advance(REMEMBERED).await;
        assert!(!gone.has("a"), "it is long ago");

        let many = (0..1_000).map(|it| it.to_string());
        gone.follow(&services(many.chain(["b".to_owned()])));
        gone.follow(&services(["b"]));
        time::advance(Duration::from_secs(1)).await;
        gone.follow(&services::<&str>([]));
        assert_eq!(SERVICES_MAX, gone.since.len());
        assert!(gone.has("b"));
    }
}
