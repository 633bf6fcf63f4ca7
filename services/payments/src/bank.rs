//! The bank, as payments see it: somebody else's HTTP API that may be slow, failing or away.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use gantry::{
    breaker::{self, Breaker, Open},
    call,
    classify::{self, End, Verdict},
    config::Live,
    deadline::Deadline,
    shutdown::Tasks,
    telemetry::http::Client as Telemetry,
};
use http::{HeaderMap, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioTimer,
};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::Semaphore,
    time::{self, Instant},
};
use tracing::Instrument as _;

use crate::{config, domain::Money};

/// Longest answer that is read.
const ANSWER_MAX: usize = 64 * 1_024;
/// The part of its longest time with which the bank is judged by the end of a request in any case.
const FAIR: f32 = 0.9;
/// It is with so many times as long as it takes lately, and this.
const FAIR_FACTOR: u32 = 4;
const FAIR_MIN: Duration = Duration::from_millis(250);
/// Kept of the caller's time for the answer's way back.
const MARGIN: Duration = Duration::from_millis(20);

/// Calls the bank; clones share its connections.
#[derive(Debug, Clone)]
pub struct Bank {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    url: Url,
    client: Client<HttpConnector, Full<Bytes>>,
    turns: Semaphore,
    breaker: Breaker,
    usual: Usual,
    config: Live<config::Bank>,
    telemetry: Telemetry,
}

/// How long the bank takes to answer lately, in microseconds; 0 until it has.
#[derive(Debug, Default)]
struct Usual(AtomicU64);

impl Usual {
    /// Takes in an answer: an eighth of what is known is the last one.
    fn answered(&self, took: Duration) {
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
        let order = Ordering::Relaxed;
        let known = self.0.load(order);
        let now = if known == 0 {
            took
        } else {
            known - known / 8 + took / 8
        };
        // Of two at once one is lost: nothing hangs on it.
        self.0.store(now.max(1), order);
    }

    /// The time with which a request says something about the bank, of those that may take `longest`.
    fn fair(&self, longest: Duration) -> Duration {
        let longest = longest.mul_f32(FAIR);
        match self.0.load(Ordering::Relaxed) {
            0 => longest,
            known => {
                let fair = Duration::from_micros(known).saturating_mul(FAIR_FACTOR);
                fair.max(FAIR_MIN).min(longest)
            }
        }
    }
}

/// Runs the client's connections.
#[derive(Clone)]
struct Owner(Tasks);

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Owner {
    fn execute(&self, connection: F) {
        // Once no call is left, nobody needs it; by itself it would rest for as long as it may.
        let stopping = self.0.stopping();
        self.0.spawn("connection to the bank", async move {
            // Whether it ended or was left is all the same.
            let _ = stopping.run_until_cancelled(connection).await;
        });
    }
}

/// `http://host[:port]`.
#[derive(Debug, Clone)]
struct Url {
    host: String,
    base: String,
}

/// Why the bank cannot be called at its address.
#[derive(Debug, thiserror::Error)]
#[error("bank.url {url:?}: expected http://host[:port]")]
pub struct UrlError {
    url: String,
}

/// Why it is not known what the bank did. Asking again under the same key finds out.
#[derive(Debug, thiserror::Error)]
pub enum Unanswered {
    /// It failed before, and is left alone: nothing was sent.
    #[error("the bank failed, and is not asked for a while")]
    NotAsked(#[source] Open),
    /// No answer in time.
    #[error("the bank did not answer in time")]
    TimedOut,
    /// The connection failed.
    #[error("the bank cannot be reached")]
    Unreachable(#[source] hyper_util::client::legacy::Error),
    /// The answer broke off, or is too long.
    #[error("the bank's answer cannot be read")]
    Unread(#[source] gantry::BoxError),
    /// It says that it failed, or what nobody can make sense of.
    #[error("the bank answered {0}")]
    Failed(StatusCode),
}

/// What became of a charge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Charged {
    /// The money is taken, now or since before.
    Yes,
    /// The bank will not take it.
    Declined,
    /// It was refunded before.
    Refunded,
}

/// What the bank said.
#[derive(Debug)]
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

#[derive(Debug, Serialize)]
struct ChargeRequest<'a> {
    amount_minor_units: i64,
    currency_code: &'a str,
    reference: &'a str,
}

#[derive(Debug, Serialize)]
struct RefundRequest<'a> {
    charge: &'a str,
}

/// What is read of the bank's refusals, for the log.
#[derive(Debug, Default, Deserialize)]
struct Fault {
    #[serde(default)]
    error: String,
}

impl Bank {
    /// Calls the bank at the address of `config`, over connections that `tasks` own, as long as
    /// `breaker` lets it. Does no I/O.
    ///
    /// # Errors
    ///
    /// If that is no address.
    pub fn new(
        config: Live<config::Bank>,
        tasks: Tasks,
        breaker: Breaker,
    ) -> Result<Self, UrlError> {
        let now = config.load();
        let url = parse(&now.url)?;
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(now.timeout));
        let client = Client::builder(Owner(tasks))
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(30))
            .pool_max_idle_per_host(now.idle_max)
            .build(connector);
        let turns = Semaphore::new(now.requests_max);
        Ok(Self {
            shared: Arc::new(Shared {
                url,
                client,
                turns,
                breaker,
                usual: Usual::default(),
                config,
                telemetry: Telemetry::default(),
            }),
        })
    }

    /// Where it says how it is.
    #[must_use]
    pub fn health_url(&self) -> String {
        format!("{}/health", self.shared.url.base)
    }

    /// Takes money under `key`.
    ///
    /// # Errors
    ///
    /// If it is not known to be taken or not; trying again is safe.
    pub async fn charge(&self, key: &str, amount: &Money) -> Result<Charged, Unanswered> {
        let request = ChargeRequest {
            amount_minor_units: amount.minor_units,
            currency_code: &amount.currency_code,
            reference: key,
        };
        let Answer { status, body, .. } = self.post("/charges", key, &request).await?;
        match status {
            StatusCode::OK => Ok(Charged::Yes),
            StatusCode::PAYMENT_REQUIRED => Ok(Charged::Declined),
            StatusCode::CONFLICT => Ok(Charged::Refunded),
            status => Err(failed(status, &body)),
        }
    }

    /// Gives back what was taken under `key`; nothing will be from now on.
    ///
    /// # Errors
    ///
    /// If it is not known to be given back; trying again is safe.
    pub async fn refund(&self, key: &str) -> Result<(), Unanswered> {
        let request = RefundRequest { charge: key };
        let own_key = format!("refund-{key}");
        let Answer { status, body, .. } = self.post("/refunds", &own_key, &request).await?;
        match status {
            StatusCode::OK => Ok(()),
            status => Err(failed(status, &body)),
        }
    }

    /// One request, within its timeout and what is left to the call it is made for; none, where
    /// those before it failed.
    async fn post(
        &self,
        path: &str,
        key: &str,
        body: &impl Serialize,
    ) -> Result<Answer, Unanswered> {
        let shared = &*self.shared;
        shared.breaker.check().map_err(Unanswered::NotAsked)?;
        let timeout = shared.config.load().timeout;
        let longest = Instant::now() + timeout;
        let deadline = call::with_current(|call| call.and_then(|call| call.deadline));
        let left = deadline.map(Deadline::instant).map(|at| at - MARGIN);
        let until = left.map_or(longest, |left| left.min(longest));
        // Before the breaker is asked again: of those in line, none is sent once it is open.
        let turn = time::timeout_at(until, shared.turns.acquire()).await;
        let _turn = turn.map_err(|_| Unanswered::TimedOut)?;
        let body = serde_json::to_vec(body).unwrap_or_default();
        let exchange = || self.exchange(path, key, body, until);
        // Somebody in a hurry says nothing about the bank, and nor does who had to wait in line here.
        let left = until.saturating_duration_since(Instant::now());
        let fair = left >= shared.usual.fair(timeout);
        let judge = |answered: &Result<_, _>| judge(answered, fair);
        let asked = Instant::now();
        let answered = shared.breaker.call(exchange, judge).await;
        if answered.is_ok() {
            shared.usual.answered(asked.elapsed());
        }
        answered.map_err(|error| match error {
            breaker::Error::Refused(open) => Unanswered::NotAsked(open),
            breaker::Error::Failed(error) => error,
        })
    }

    /// Sends a request, and waits for the answer until then.
    async fn exchange(
        &self,
        path: &str,
        key: &str,
        body: Vec<u8>,
        until: Instant,
    ) -> Result<Answer, Unanswered> {
        let shared = &*self.shared;
        let measured = shared.telemetry.start(&Method::POST, &shared.url.host);
        let mut request = Request::post(format!("{}{path}", shared.url.base))
            .header(header::CONTENT_TYPE, "application/json")
            .header("idempotency-key", key)
            .body(Full::from(body))
            .expect("the address was parsed, and keys are of plain letters");
        measured.inject(request.headers_mut());
        let span = measured.span().clone();
        let exchange = async {
            let response = shared.client.request(request).await;
            let response = response.map_err(Unanswered::Unreachable)?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, ANSWER_MAX).collect().await;
            Ok(Answer {
                status: head.status,
                headers: head.headers,
                body: body.map_err(Unanswered::Unread)?.to_bytes(),
            })
        };
        // Dropping it closes its connection; what the bank does then is not known.
        let answered = time::timeout_at(until, exchange.instrument(span)).await;
        let answer = answered.unwrap_or(Err(Unanswered::TimedOut))?;
        measured.end(answer.status);
        Ok(answer)
    }
}

/// What a request says about the bank, that had a `fair` time for it or not.
fn judge(answered: &Result<Answer, Unanswered>, fair: bool) -> Verdict {
    match answered {
        Ok(answer) => classify::judge_http(answer.status, &answer.headers),
        Err(Unanswered::TimedOut) => classify::judge(End::DeadlinePassed, fair),
        Err(_) => Verdict::Hard,
    }
}

/// The bank's fault, or ours; either way nothing is known of the money.
fn failed(status: StatusCode, body: &[u8]) -> Unanswered {
    let fault: Fault = serde_json::from_slice(body).unwrap_or_default();
    let error = fault.error.chars().take(200).collect::<String>();
    if status.is_client_error() {
        tracing::error!(%status, error, "the bank refused a request of ours");
    }
    Unanswered::Failed(status)
}

fn parse(url: &str) -> Result<Url, UrlError> {
    let refused = || UrlError {
        url: url.to_owned(),
    };
    let base = url.strip_suffix('/').unwrap_or(url);
    let uri: Uri = base.parse().map_err(|_| refused())?;
    let plain = uri.scheme_str() == Some("http") && uri.path() == "/" && uri.query().is_none();
    let host = uri.host().filter(|_| plain).ok_or_else(refused)?;
    // A name and a password in it would show up in logs.
    if uri.authority().is_some_and(|it| it.as_str().contains('@')) {
        return Err(UrlError {
            url: format!("http://…@{host}"),
        });
    }
    Ok(Url {
        host: host.to_owned(),
        base: base.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: who has some times as long as the bank takes lately says something about it, and who has
    /// less does not.
    /// Method: before any answer, after quick ones, after slow ones.
    #[test]
    fn fair_is_what_the_bank_takes_lately() {
        let (usual, longest) = (Usual::default(), Duration::from_secs(4));
        assert_eq!(longest.mul_f32(FAIR), usual.fair(longest));
        usual.answered(Duration::from_millis(5));
        assert_eq!(FAIR_MIN, usual.fair(longest));
        let short = Duration::from_millis(10);
        assert_eq!(short.mul_f32(FAIR), usual.fair(short));
        for _ in 0..100 {
            usual.answered(Duration::from_millis(200));
        }
        let fair = usual.fair(longest).as_millis();
        assert!((780..=800).contains(&fair), "{fair}");
        for _ in 0..100 {
            usual.answered(Duration::from_secs(3));
        }
        assert_eq!(longest.mul_f32(FAIR), usual.fair(longest));
    }

    /// Goal: only an address that requests can be sent to is taken, and secrets are not shown.
    /// Method: good ones, bad ones, one with a password.
    #[test]
    fn addresses_are_checked() {
        for good in ["http://bank", "http://127.0.0.1:8090/", "http://[::1]:1"] {
            assert!(parse(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "bank",
            "https://bank",
            "http://bank/v1",
            "http://bank?x",
            "http://",
        ] {
            let error = parse(bad).unwrap_err().to_string();
            assert!(error.starts_with(&format!("bank.url {bad:?}")), "{error}");
        }
        let error = parse("http://me:secret@bank").unwrap_err().to_string();
        assert!(!error.contains("secret"), "{error}");
    }
}
