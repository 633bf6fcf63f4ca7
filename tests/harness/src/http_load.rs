//! Requests of plain HTTP at a constant rate, as any client of HTTP/1.1 sends them.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use http_body_util::{BodyExt as _, Empty};
use hyper::{Uri, body::Bytes};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};

use crate::load::Void;

/// Longest a request may take.
const DEADLINE: Duration = Duration::from_secs(2);
/// A request that is sent so much later than it is due is late.
const LATE: Duration = Duration::from_millis(100);
/// Requests in flight at most; one more is late.
const IN_FLIGHT_MAX: usize = 1_000;

type Caller = Client<HttpConnector, Empty<Bytes>>;

/// A running load, open loop; ended when dropped.
#[derive(Debug)]
pub struct HttpLoad {
    running: JoinSet<Tally>,
}

/// What became of requests.
#[derive(Debug, Default)]
struct Tally {
    late: u64,
    ended: BTreeMap<String, u64>,
}

impl HttpLoad {
    /// Asks for `url` for `seconds`, `rate` times a second, on connections that are kept. What was
    /// not sent yet when its connection turned out to be closed goes over another, as any client
    /// does; reading is idempotent (RFC 9110 §9.2.2).
    ///
    /// # Panics
    ///
    /// If `url` is none.
    #[must_use]
    pub fn start(rate: u32, url: &str, seconds: u64) -> Self {
        let url: Uri = url.parse().expect("a URL");
        let count = u64::from(rate) * seconds;
        let mut running = JoinSet::new();
        running.spawn(async move {
            let caller: Caller = Client::builder(TokioExecutor::new()).build_http();
            run(&caller, &url, Duration::from_secs(1) / rate, count).await
        });
        Self { running }
    }

    /// Waits for its end; every request was answered by 200.
    ///
    /// # Errors
    ///
    /// If the run says nothing: the machine was too busy to send 99 in 100 requests when they were
    /// due.
    ///
    /// # Panics
    ///
    /// If a request was answered otherwise, or not at all.
    pub async fn all_ok(mut self) -> Result<(), Void> {
        let tally = self.running.join_next().await;
        let tally = tally.expect("it has one task");
        let tally = tally.expect("the load does not panic");
        let sent: u64 = tally.ended.values().sum();
        let fine = tally.ended.get("200 OK").copied().unwrap_or(0);
        assert_eq!(sent, fine, "{tally:?}");
        if tally.late * 100 > sent + tally.late {
            return Err(Void(format!("{} of {sent} requests were late", tally.late)));
        }
        Ok(())
    }
}

async fn run(caller: &Caller, url: &Uri, pause: Duration, count: u64) -> Tally {
    let mut tally = Tally::default();
    let places = Arc::new(Semaphore::new(IN_FLIGHT_MAX));
    let mut requests = JoinSet::new();
    let mut due = Instant::now();
    for _ in 0..count {
        sleep_until(due).await;
        let place = Arc::clone(&places).try_acquire_owned();
        match place {
            Ok(place) if due.elapsed() <= LATE => {
                let (caller, url) = (caller.clone(), url.clone());
                requests.spawn(async move {
                    let _place = place;
                    ask(&caller, url).await
                });
            }
            _ => tally.late += 1,
        }
        due += pause;
    }
    while let Some(ended) = requests.join_next().await {
        let ended = ended.expect("a request does not panic");
        *tally.ended.entry(ended).or_default() += 1;
    }
    tally
}

/// How a request ended, in words.
async fn ask(caller: &Caller, url: Uri) -> String {
    let whole = async {
        let answer = caller
            .get(url)
            .await
            .map_err(|error| format!("{error:?}"))?;
        let status = answer.status();
        let body = answer.into_body().collect().await;
        body.map_err(|error| format!("{status}, then {error:?}"))?;
        Ok(status.to_string())
    };
    match timeout(DEADLINE, whole).await {
        Ok(ended) => ended.unwrap_or_else(|error: String| error),
        Err(_) => format!("nothing within {DEADLINE:?}"),
    }
}
