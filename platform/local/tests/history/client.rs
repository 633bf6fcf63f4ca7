//! Clients that do what comes to their minds, and write down what came of it.

use std::{
    cell::{Cell, RefCell},
    time::Duration,
};

use etcd_client::{
    Client, Compare, CompareOp, DeleteOptions, Error, KeyValue, LeaseGrantOptions, PutOptions, Txn,
    TxnOp, TxnOpResponse,
};
use fastrand::Rng;
use tokio::time::{sleep, timeout};
use tonic::Code;

use crate::record::{Entry, Operation, Outcome, What};

/// Keys there are; few, so that clients meet.
pub(crate) const KEYS: [&str; 5] = ["k/0", "k/1", "k/2", "k/3", "k/4"];

/// Longest wait for an answer; what is not answered by then is given up.
const PATIENCE: Duration = Duration::from_secs(2);

/// What all of one run share.
pub(crate) struct Shared {
    pub(crate) url: String,
    /// Counts beginnings and ends.
    clock: Cell<u64>,
    pub(crate) operations: RefCell<Vec<Operation>>,
    /// How far the first watcher is: nothing after it is compacted.
    pub(crate) told: Cell<i64>,
    pub(crate) compacted: Cell<i64>,
    pub(crate) ended: Cell<bool>,
    leases: RefCell<Vec<i64>>,
}

impl Shared {
    pub(crate) fn new(url: String) -> Self {
        Self {
            url,
            clock: Cell::new(0),
            operations: RefCell::default(),
            told: Cell::new(1),
            compacted: Cell::new(0),
            ended: Cell::new(false),
            leases: RefCell::default(),
        }
    }

    fn tick(&self) -> u64 {
        self.clock.set(self.clock.get() + 1);
        self.clock.get()
    }

    pub(crate) async fn connect(&self) -> Client {
        Client::connect([&self.url], None)
            .await
            .expect("an address")
    }
}

/// One client.
pub(crate) struct Worker<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) number: usize,
    pub(crate) random: Rng,
}

impl Worker<'_> {
    /// Does `count` things, one after another.
    pub(crate) async fn work(&mut self, count: usize) {
        let mut client = self.shared.connect().await;
        for turn in 0..count {
            let key = KEYS[self.random.usize(..KEYS.len())];
            let what = self.think(key, &mut client, turn).await;
            // Now and then it loses patience while it is answered, and its connection with it.
            let cut = self.random.u8(..20) == 0;
            let patience = if cut {
                Duration::from_micros(self.random.u64(..3_000))
            } else {
                PATIENCE
            };
            let outcome = self.act(&mut client, key, what, patience).await;
            if cut {
                client = self.shared.connect().await;
            } else if outcome == Outcome::Unknown {
                // It may come again at once, or take a moment.
                sleep(Duration::from_millis(self.random.u64(..30))).await;
            }
        }
    }

    async fn think(&mut self, key: &str, client: &mut Client, turn: usize) -> What {
        let shared = self.shared;
        let value = format!("{}-{turn}", self.number);
        let leases = shared.leases.borrow().clone();
        let lease = self.random.choice(leases).unwrap_or(0);
        match self.random.u8(..100) {
            ..20 => What::Put { value, lease: 0 },
            20..30 => What::Put { value, lease },
            30..40 => What::Delete,
            40..60 => {
                let read = self.act(client, key, What::Read, PATIENCE).await;
                let modified = match read {
                    Outcome::Done {
                        before: Some(entry),
                        ..
                    } => entry.modified,
                    _ => 0,
                };
                What::Swap { modified, value }
            }
            60..65 => {
                let id = i64::try_from(self.number * 1_000 + turn + 1).expect("a small number");
                shared.leases.borrow_mut().push(id);
                What::Grant(id)
            }
            65..68 if lease != 0 => {
                shared.leases.borrow_mut().retain(|id| *id != lease);
                What::Revoke(lease)
            }
            68..71 if lease != 0 => What::KeepAlive(lease),
            71..75 => {
                let revision = shared.told.get() - self.random.i64(0..5);
                What::Compact(revision.max(1))
            }
            _ => What::Read,
        }
    }

    /// Asks, and writes down what came of it.
    async fn act(&self, client: &mut Client, key: &str, what: What, patience: Duration) -> Outcome {
        let lease_only = matches!(
            what,
            What::Grant(_) | What::Revoke(_) | What::KeepAlive(_) | What::Compact(_)
        );
        if let What::Compact(revision) = what {
            let highest = self.shared.compacted.get().max(revision);
            self.shared.compacted.set(highest);
        }
        let begun = self.shared.tick();
        let asked = timeout(patience, ask(client, key, &what)).await;
        let outcome = match asked {
            Err(_) => Outcome::Unknown,
            Ok(Ok(outcome)) => outcome,
            Ok(Err(error)) => failed(&error),
        };
        self.shared.operations.borrow_mut().push(Operation {
            begun,
            ended: self.shared.tick(),
            key: if lease_only {
                String::new()
            } else {
                key.to_owned()
            },
            what,
            outcome: outcome.clone(),
        });
        outcome
    }
}

/// Only what the store itself refuses certainly did not happen.
fn failed(error: &Error) -> Outcome {
    match error {
        Error::GRpcStatus(status)
            if matches!(
                status.code(),
                Code::NotFound
                    | Code::OutOfRange
                    | Code::InvalidArgument
                    | Code::FailedPrecondition
            ) =>
        {
            Outcome::Refused(status.message().to_owned())
        }
        _ => Outcome::Unknown,
    }
}

pub(crate) fn entry(kv: &KeyValue) -> Entry {
    Entry {
        value: String::from_utf8_lossy(kv.value()).into_owned(),
        created: kv.create_revision(),
        modified: kv.mod_revision(),
        version: kv.version(),
        lease: kv.lease(),
    }
}

async fn ask(client: &mut Client, key: &str, what: &What) -> Result<Outcome, Error> {
    let done = |header: Option<&etcd_client::ResponseHeader>, applied, before| Outcome::Done {
        revision: header.map_or(0, etcd_client::ResponseHeader::revision),
        applied,
        before,
    };
    Ok(match what {
        What::Read => {
            let answer = client.get(key, None).await?;
            done(answer.header(), false, answer.kvs().first().map(entry))
        }
        What::Put { value, lease } => {
            let options = PutOptions::new().with_lease(*lease).with_prev_key();
            let answer = client.put(key, value.as_str(), Some(options)).await?;
            done(answer.header(), true, answer.prev_key().map(entry))
        }
        What::Delete => {
            let options = DeleteOptions::new().with_prev_key();
            let answer = client.delete(key, Some(options)).await?;
            let before = answer.prev_kvs().first().map(entry);
            done(answer.header(), answer.deleted() > 0, before)
        }
        What::Swap { modified, value } => {
            let options = PutOptions::new().with_prev_key();
            let transaction = Txn::new()
                .when([Compare::mod_revision(key, CompareOp::Equal, *modified)])
                .and_then([TxnOp::put(key, value.as_str(), Some(options))])
                .or_else([TxnOp::get(key, None)]);
            let answer = client.txn(transaction).await?;
            let before = match answer.op_responses().first() {
                Some(TxnOpResponse::Put(put)) => put.prev_key().map(entry),
                Some(TxnOpResponse::Get(get)) => get.kvs().first().map(entry),
                _ => None,
            };
            done(answer.header(), answer.succeeded(), before)
        }
        What::Grant(id) => {
            let options = LeaseGrantOptions::new().with_id(*id);
            let answer = client.lease_grant(2, Some(options)).await?;
            done(answer.header(), true, None)
        }
        What::Revoke(id) => {
            let answer = client.lease_revoke(*id).await?;
            done(answer.header(), true, None)
        }
        What::KeepAlive(id) => match client.lease_keep_alive(*id).await {
            Ok((mut keeper, mut answers)) => {
                keeper.keep_alive().await?;
                let answer = answers.message().await?;
                let alive = answer.as_ref().is_some_and(|answer| answer.ttl() > 0);
                done(answer.as_ref().and_then(|it| it.header()), alive, None)
            }
            // This is how that client says that there is none.
            Err(Error::LeaseKeepAliveError(_)) => Outcome::Refused("no such lease".to_owned()),
            Err(error) => return Err(error),
        },
        What::Compact(revision) => {
            let answer = client.compact(*revision, None).await?;
            done(answer.header(), true, None)
        }
    })
}
