//! People who ask for changes, all at once, and note what they were told.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use gantry::contract::tonic::{Code, Status};
use gantry_events::bucket;
use tokio::{
    task::{JoinSet, spawn_blocking},
    time,
};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};

use crate::{
    contract::{PostRequest, Trouble, ledger_service_client::LedgerServiceClient},
    evidence::{Outcome, Request},
    history::History,
};

/// How many ask at once.
const ASKERS: u64 = 6;

/// Whose balances change: few, so that many events have one key, and as many in each queue.
const ACCOUNTS: u16 = 12;

/// Queues of the consumer.
pub(super) const PARTITIONS: u16 = 4;

/// Longest wait for an answer: short, so that a replica that stands still does not keep everybody.
const ANSWER: Duration = Duration::from_secs(1);

/// How long an asker waits before it asks again, in milliseconds.
const PAUSE_MILLIS: std::ops::Range<u64> = 80..240;

/// What is asked for, in percent.
const REFUSED: u8 = 4;
const POISONED: u8 = 1;
const FAILS_IN_PLACE: u8 = 3;
const IS_PUT_OFF: u8 = 1;

/// Attempts in a row before an event is put off.
pub(super) const IN_PLACE: u32 = 3;

/// People who ask until they are told to stop.
#[derive(Debug)]
pub(super) struct Load {
    stop: CancellationToken,
    asked: Arc<AtomicU64>,
    askers: JoinSet<()>,
}

impl Load {
    /// Has them ask at `addresses`, as `seed` says, and note it in `history`.
    pub(super) fn of(seed: u64, addresses: &[SocketAddr], history: &Arc<History>) -> Self {
        let (stop, asked) = (CancellationToken::new(), Arc::<AtomicU64>::default());
        let mut askers = JoinSet::new();
        let mut random = fastrand::Rng::with_seed(seed);
        let accounts = (0..ACCOUNTS).map(|number| account(&mut random, number % PARTITIONS));
        let accounts: Arc<[String]> = accounts.collect();
        for _ in 0..ASKERS {
            let one = Asker {
                random: random.fork(),
                accounts: Arc::clone(&accounts),
                doors: addresses.iter().map(|address| door(*address)).collect(),
                history: Arc::clone(history),
                asked: Arc::clone(&asked),
            };
            askers.spawn(one.ask_until(stop.clone()));
        }
        Self {
            stop,
            asked,
            askers,
        }
    }

    /// How many changes were asked for so far.
    pub(super) fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }

    /// Ends it once each of them has its last answer.
    pub(super) async fn end(self) {
        self.stop.cancel();
        self.askers.join_all().await;
    }
}

/// An account whose events are in that queue.
fn account(random: &mut fastrand::Rng, partition: u16) -> String {
    loop {
        let name = format!("{:016x}", random.u64(..));
        if bucket(&name) % PARTITIONS == partition {
            return name;
        }
    }
}

fn door(address: SocketAddr) -> LedgerServiceClient<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
    LedgerServiceClient::new(endpoint.connect_lazy())
}

struct Asker {
    random: fastrand::Rng,
    accounts: Arc<[String]>,
    doors: Vec<LedgerServiceClient<Channel>>,
    history: Arc<History>,
    asked: Arc<AtomicU64>,
}

impl Asker {
    async fn ask_until(mut self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            self.ask().await;
            let pause = Duration::from_millis(self.random.u64(PAUSE_MILLIS));
            time::sleep(pause).await;
        }
    }

    /// Asks for one change, and once more where nobody knows what came of it.
    async fn ask(&mut self) {
        let request_id = format!("{:016x}", self.random.u64(..));
        let account = &self.accounts[self.random.usize(..self.accounts.len())];
        let mut chance = self.random.u8(..100);
        let mut is = |percent: u8| {
            let hit = chance < percent;
            chance = chance.wrapping_sub(percent);
            hit
        };
        let refused = is(REFUSED);
        let poisoned = is(POISONED);
        let attempts = if is(FAILS_IN_PLACE) {
            1
        } else if is(IS_PUT_OFF) {
            IN_PLACE
        } else {
            0
        };
        let request = Request {
            account: account.clone(),
            amount: self.random.i64(-1_000..1_000),
            poisoned,
            outcome: Outcome::Unknown,
        };
        let post = PostRequest {
            request_id,
            account: request.account.clone(),
            amount: request.amount,
            trouble: Some(Trouble { attempts, poisoned }),
            refused,
        };
        for _ in 0..2 {
            if self.once(&post, &request).await != Outcome::Unknown {
                return;
            }
        }
    }

    async fn once(&mut self, post: &PostRequest, request: &Request) -> Outcome {
        let id = post.request_id.clone();
        self.note({
            let (id, request) = (id.clone(), request.clone());
            move |history| history.invoke(&id, &request)
        })
        .await;
        self.asked.fetch_add(1, Ordering::Relaxed);
        let door = self.random.usize(..self.doors.len());
        let answer = time::timeout(ANSWER, self.doors[door].post(post.clone())).await;
        let (outcome, error) = match answer {
            Ok(Ok(_)) => (Outcome::Ok, String::new()),
            Ok(Err(status)) => judged(&status),
            Err(_) => (Outcome::Unknown, "no answer in time".to_owned()),
        };
        self.note(move |history| history.answer(&id, outcome, &error))
            .await;
        outcome
    }

    /// Notes something, and ends once it is on disk.
    async fn note<N>(&self, note: N)
    where
        N: FnOnce(&History) -> std::io::Result<()> + Send + 'static,
    {
        let history = Arc::clone(&self.history);
        let noted = spawn_blocking(move || note(&history)).await;
        noted
            .expect("a note is no panic")
            .expect("write the history");
    }
}

/// Only the service itself says for good that nothing was done: anybody else may not know.
fn judged(status: &Status) -> (Outcome, String) {
    let outcome = match status.code() {
        Code::FailedPrecondition => Outcome::Failed,
        _ => Outcome::Unknown,
    };
    (outcome, format!("{:?} {}", status.code(), status.message()))
}
