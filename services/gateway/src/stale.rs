//! Answers that are given once more while a backend cannot give any, marked as stale: those of methods
//! whose policy has a `stale_cache`, and that change nothing, with one message either way.
//!
//! ```text
//! request ─▶ key ─▶ backend ─▶ went well: kept, and handed on
//!                          └─▶ at fault, overloaded, away: the answer to the same key, if it is young enough
//! ```
//!
//! All protocols come by here as calls of gRPC. Whether a call may be made is decided before, each time:
//! nobody is let in by an answer that is kept.

mod cache;
mod metrics;
mod taken;

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use gantry::{
    call,
    classify::{self, End, Verdict},
    config::Live,
    contract::{Idempotency, Pattern, Patterns},
    deadline::{self, GRPC_TIMEOUT},
    policy::{Policies, Policy},
    status,
};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, header};
use tokio::time::{self, Instant};
use tonic::{Code, Status, body::Body, metadata::MetadataMap};

use self::{
    cache::{Answer, Bounds, Cache, Key},
    metrics::{Cause, Metrics},
    taken::Taken,
};
use crate::{access::Known, config};

/// In the head of an answer that was given before: how old it is, in whole seconds.
pub static STALE: HeaderName = HeaderName::from_static("gantry-stale");

/// Bytes of a request that is compared with others; a larger one is handed on as it comes.
const REQUEST_MAX: usize = 64 << 10;

/// How often what is too old is let go of, and changes are told.
const TIDY_PAUSE: Duration = Duration::from_secs(10);

/// Gives answers once more; clones share them.
#[derive(Debug, Clone)]
pub struct Stale {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    rules: Live<Rules>,
    config: Live<config::StaleCache>,
    cache: Mutex<Cache>,
    metrics: Metrics,
    /// Answers that were given.
    given: AtomicU64,
    /// Methods that should have answers kept and cannot; as many as the policies name.
    told: Mutex<BTreeSet<String>>,
}

/// Whose answers are kept.
#[derive(Debug, PartialEq, Default)]
struct Rules {
    by_pattern: Patterns<Rule>,
    /// Whether there are any at all.
    any: bool,
}

#[derive(Debug, PartialEq)]
struct Rule {
    age_max: Duration,
    /// Whether it is meant for this one method, and not for those of many that it can be.
    is_own: bool,
}

impl Rules {
    fn of(policies: &Patterns<Arc<Policy>>) -> Self {
        let mut rules = Self::default();
        for (pattern, policy) in policies.iter() {
            let age_max = policy.stale_cache.age_max;
            let mut above = pattern.clone().lineage().skip(1);
            let above = above.find_map(|it| policies.get(&it));
            let above = above.map_or(Duration::ZERO, |it| it.stale_cache.age_max);
            let rule = Rule {
                age_max,
                is_own: matches!(pattern, Pattern::Method(_)) && age_max != above,
            };
            rules.any |= !age_max.is_zero();
            rules.by_pattern.insert(pattern, rule);
        }
        rules
    }

    fn find(&self, method: &str) -> Option<&Rule> {
        if !self.any {
            return None;
        }
        let rule = self.by_pattern.find(method);
        rule.filter(|rule| !rule.age_max.is_zero())
    }
}

impl Stale {
    /// Keeps answers as `policies` say, as many as `config` has room for.
    #[must_use]
    pub fn new(policies: &Policies, config: Live<config::StaleCache>) -> Self {
        let shared = Shared {
            rules: policies.derive(Rules::of),
            config,
            cache: Mutex::default(),
            metrics: Metrics::register(),
            given: AtomicU64::new(0),
            told: Mutex::default(),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Whether answers of the method at `path` are to be kept, if they can be.
    #[must_use]
    pub fn is_wanted(&self, path: &str) -> bool {
        let method = method_of(path);
        self.shared.rules.read(|rules| rules.find(method).is_some())
    }

    /// How old an answer of the method at `path` may be, of which so much is `known`; none where none is
    /// kept. A method that is named and cannot have that is told of, once.
    #[must_use]
    pub fn age_max(&self, path: &str, known: Known) -> Option<Duration> {
        let method = method_of(path);
        let rule = |rules: &Rules| rules.find(method).map(|it| (it.age_max, it.is_own));
        let (age_max, is_own) = self.shared.rules.read(rule)?;
        let is_kept = !known.is_stream && known.idempotency == Idempotency::NoSideEffects;
        if !is_kept && is_own && lock(&self.shared.told).insert(method.to_owned()) {
            tracing::warn!(
                rpc.method = method,
                "the policy has a stale_cache, and no answer is kept: the method is a stream, or its \
                 contract does not say NO_SIDE_EFFECTS"
            );
        }
        is_kept.then_some(age_max)
    }

    /// Makes the call that `request` is by `call`; an answer no older than `age_max` is given in place
    /// of one that fails as its backend is at fault, overloaded or away. Cancel-safe: what is kept stays.
    ///
    /// # Errors
    ///
    /// What the call failed with.
    pub async fn answer<F>(
        &self,
        age_max: Duration,
        request: Request<Body>,
        call: impl FnOnce(Request<Body>) -> F,
    ) -> Result<Response<Body>, Status>
    where
        F: Future<Output = Result<Response<Body>, Status>>,
    {
        let (mut head, body) = request.into_parts();
        let body = Taken::of(body, REQUEST_MAX).await?;
        if !body.is_whole() {
            return call(Request::from_parts(head, Body::new(body))).await;
        }
        let key = Key::of(head.uri.path(), &head.headers, &body);
        let kept = self.cache().find(&key);
        let kept = kept.filter(|it| it.got().elapsed() <= age_max);
        if kept.is_some() {
            leave_time(&mut head.headers);
        }
        let answered = call(Request::from_parts(head, Body::new(body))).await;
        let answered = self.whole(answered).await;
        let verdict = match &answered {
            Ok((head, body)) => end(head.headers(), body).map(judge),
            Err(status) => Some(judge(&status::trailers(status))),
        };
        let cause = match verdict {
            Some(Verdict::Hard) => Cause::Fault,
            Some(Verdict::Soft(_)) => Cause::Overload,
            _ => {
                self.heed(key, &answered, age_max);
                return answered.map(|(head, body)| head.map(|()| Body::new(body)));
            }
        };
        match kept.filter(|it| it.got().elapsed() <= age_max) {
            Some(answer) => Ok(self.give(&answer, cause)),
            None => answered.map(|(head, body)| head.map(|()| Body::new(body))),
        }
    }

    /// An answer as far as it may be kept.
    async fn whole(
        &self,
        answered: Result<Response<Body>, Status>,
    ) -> Result<(Response<()>, Taken), Status> {
        let (head, body) = answered?.into_parts();
        let most = self.bounds().entry_bytes;
        let body = Taken::of(body, most).await?;
        Ok((Response::from_parts(head, ()), body))
    }

    /// Keeps an answer that went well, and forgets the one before where a backend says something else:
    /// that it is not there any more, or is not for whoever asks.
    fn heed(&self, key: Key, answered: &Result<(Response<()>, Taken), Status>, age_max: Duration) {
        let good = answered.as_ref().ok().filter(|(head, body)| {
            let headers = head.headers();
            // One that is stale already would begin to be young.
            body.is_whole()
                && code(headers, body) == Some(Code::Ok)
                && !headers.contains_key(&STALE)
        });
        let bounds = self.bounds();
        let mut cache = self.cache();
        match good {
            Some((head, body)) => {
                let answer = Answer::new(head.headers(), body);
                let over = answer.got() + age_max;
                cache.put(key, answer, over, bounds);
            }
            None => cache.remove(&key),
        }
        self.show(&cache);
    }

    fn give(&self, answer: &Answer, cause: Cause) -> Response<Body> {
        self.shared.given.fetch_add(1, Ordering::Relaxed);
        self.shared.metrics.answers.with(cause).increment();
        let mut response = answer.response();
        let age = HeaderValue::from(answer.got().elapsed().as_secs());
        response.headers_mut().insert(&STALE, age);
        response
    }

    /// Lets go of what is too old or has no room any more, and tells when answers begin to be stale and
    /// cease to be, for ever. Cancel-safe.
    pub async fn tidy(self) {
        let mut before = 0;
        let mut is_stale = false;
        loop {
            time::sleep(TIDY_PAUSE).await;
            self.look();
            let given = self.shared.given.load(Ordering::Relaxed);
            match (is_stale, given > before) {
                (false, true) => {
                    let answers = given - before;
                    tracing::warn!(answers, "stale answers are given in place of backends");
                }
                (true, false) => tracing::info!("stale answers are not given any more"),
                _ => {}
            }
            (is_stale, before) = (given > before, given);
        }
    }

    fn look(&self) {
        let rules = self.shared.rules.load();
        let own = |method: &String| rules.find(method).is_some_and(|rule| rule.is_own);
        lock(&self.shared.told).retain(own);
        let bounds = self.bounds();
        let mut cache = self.cache();
        if rules.any {
            cache.tidy(Instant::now(), bounds);
        } else {
            *cache = Cache::default();
        }
        self.show(&cache);
    }

    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    fn show(&self, cache: &Cache) {
        let metrics = &self.shared.metrics;
        metrics.entries.set(cache.entries() as f64);
        metrics.bytes.set(cache.bytes() as f64);
    }

    fn bounds(&self) -> Bounds {
        self.shared.config.read(Bounds::of)
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        lock(&self.shared.cache)
    }
}

/// How old an answer is, where the metadata of its call says that it is stale.
pub(crate) fn age(metadata: &MetadataMap) -> Option<HeaderValue> {
    metadata.as_ref().get(&STALE).cloned()
}

/// Says so in HTTP: with the header of its own, and with that which caches have.
pub(crate) fn tell(age: Option<HeaderValue>, headers: &mut HeaderMap) {
    if let Some(age) = age {
        headers.insert(&STALE, age.clone());
        headers.insert(header::AGE, age);
    }
}

/// Has the backend be late a little before the caller is, who can be answered then: after nine tenths
/// of the time that is left.
fn leave_time(headers: &mut HeaderMap) {
    let deadline = call::with_current(|current| current.and_then(|it| it.deadline));
    if let Some(deadline) = deadline {
        let most = deadline.remaining() / 10 * 9;
        headers.insert(&GRPC_TIMEOUT, deadline::format_timeout(most));
    }
}

/// What the end of a call says of the backend, which had as much time as its caller allowed.
fn judge(trailers: &HeaderMap) -> Verdict {
    classify::judge(End::answered(trailers), true)
}

fn code(head: &HeaderMap, body: &Taken) -> Option<Code> {
    end(head, body).and_then(status::code_in)
}

/// Where an answer says how the call ended: before its messages or after them. None where that is not
/// there yet.
fn end<'a>(head: &'a HeaderMap, body: &'a Taken) -> Option<&'a HeaderMap> {
    if head.contains_key(&status::GRPC_STATUS) {
        return Some(head);
    }
    body.trailers()
}

fn method_of(path: &str) -> &str {
    path.strip_prefix('/').unwrap_or(path)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
