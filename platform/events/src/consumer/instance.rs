//! One instance of a consumer: takes partitions, has them consumed, and gives them back.

use std::{collections::BTreeMap, sync::Arc};

use gantry::{health::Health, shutdown::Tasks, status::chain};
use gantry_store::Error;
use tokio::{
    sync::mpsc,
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;

use super::{
    Shared,
    inbox::{self, Claim},
    partition::Partition,
    pauses,
    shares::{Shares, View},
};

/// The process that an instance is part of.
#[derive(Debug, Clone)]
pub(crate) struct Process {
    pub(crate) tasks: Tasks,
    pub(crate) health: Health,
    /// Cancelled when nothing more is to be begun, for good.
    pub(crate) draining: CancellationToken,
}

/// One instance of a consumer.
#[derive(Debug)]
pub(crate) struct Instance {
    pub(super) shared: Arc<Shared>,
    pub(super) shares: Shares,
    pub(super) process: Process,
}

/// A partition that is consumed.
#[derive(Debug)]
struct Held {
    claim: Claim,
    give_back: CancellationToken,
}

/// What partitions begin with.
struct Begins {
    /// Told of each that ends.
    to: mpsc::Sender<Claim>,
    /// Cancelled when all are to end.
    pause: CancellationToken,
}

/// Says that a partition is consumed no more, however that came about.
struct Ended {
    claim: Claim,
    to: mpsc::Sender<Claim>,
}

impl Drop for Ended {
    fn drop(&mut self) {
        // There is room for every partition, and each is told of once before it begins again.
        drop(self.to.try_send(self.claim.clone()));
    }
}

impl Instance {
    /// Consumes while the service is ready, until the process drains and nothing is in flight.
    pub(crate) async fn run(mut self) {
        let Process {
            health, draining, ..
        } = self.process.clone();
        let ready = || until(&health, Health::is_ready);
        while draining.run_until_cancelled(ready()).await.is_some() {
            let pause = CancellationToken::new();
            // Cancel-safe: it only waits.
            let asked = async {
                let unready = until(&health, |health| !health.is_ready());
                draining.run_until_cancelled(unready).await;
                pause.cancel();
                std::future::pending::<()>().await;
            };
            let shared = Arc::clone(&self.shared);
            tokio::select! {
                () = self.consume(&pause) => {}
                () = asked => {}
                () = prune(&shared) => {}
            }
            if health.is_latched() {
                return;
            }
            tracing::info!(group = %self.shared.group.name, "consuming pauses: the service is not ready");
        }
    }

    /// Consumes until `pause` is cancelled and nothing is in flight.
    async fn consume(&mut self, pause: &CancellationToken) {
        if pause.run_until_cancelled(self.prepare()).await.is_none() {
            return;
        }
        let room = usize::from(self.shared.group.partitions).max(1);
        let (to, mut endings) = mpsc::channel(room);
        let begins = Begins {
            to,
            pause: pause.clone(),
        };
        let mut held = BTreeMap::new();
        let mut next = Instant::now();
        let mut asked = false;
        while !(asked && held.is_empty()) {
            // Cancel-safe: all arms only wait.
            tokio::select! {
                biased;
                // The partitions have heard of it as well, whatever this waits for.
                () = pause.cancelled(), if !asked => asked = true,
                Some(claim) = endings.recv() => self.ended(&mut held, &claim).await,
                () = time::sleep_until(next) => {
                    let look = self.shares.look().await;
                    let wants = match look {
                        Ok(view) => self.adjust(&mut held, &view, &begins).await,
                        Err(error) => Err(error),
                    };
                    let wants = wants.unwrap_or_else(|error| {
                        tracing::warn!(error = %chain(&error), "partitions were not shared; trying again");
                        false
                    });
                    next = Instant::now() + self.shares.pause(wants);
                }
            }
        }
        if let Err(error) = self.shares.leave().await {
            // The others find out by its silence.
            tracing::warn!(error = %chain(&error), "an instance could not say that it goes");
        }
    }

    /// Has the broker and the database know of the consumer, however long either is away.
    async fn prepare(&self) {
        let mut pauses = pauses();
        loop {
            let declared = self.shared.broker.declare(&self.shared.group).await;
            let prepared = match declared {
                Ok(()) => self.shares.seed().await.map_err(gantry::BoxError::from),
                Err(error) => Err(error.into()),
            };
            let Err(error) = prepared else { return };
            let group = &self.shared.group.name;
            tracing::warn!(%group, error = %chain(error.as_ref()), "a consumer cannot begin; trying again");
            time::sleep(pauses.next_pause()).await;
        }
    }

    /// Gives a partition back of which nothing is in flight.
    async fn ended(&self, held: &mut BTreeMap<u16, Held>, claim: &Claim) {
        held.remove(&claim.part);
        self.shared.metrics.partitions.decrement();
        if let Err(error) = self.shares.give(claim).await {
            // The next look finds it again.
            tracing::warn!(error = %chain(&error), "a partition was not given back; trying again");
        }
    }

    /// Takes and gives back partitions so that this instance has its share; whether it wants more.
    async fn adjust(
        &self,
        held: &mut BTreeMap<u16, Held>,
        view: &View,
        begins: &Begins,
    ) -> Result<bool, Error> {
        let asked = begins.pause.is_cancelled();
        let share = if asked { 0 } else { view.share };
        for (part, it) in held.iter() {
            if view.own.get(part) != Some(&it.claim.fence) {
                it.give_back();
            }
        }
        let kept: Vec<u16> = held
            .iter()
            .filter(|(_, it)| !it.give_back.is_cancelled())
            .map(|(part, _)| *part)
            .collect();
        for part in kept.iter().skip(share) {
            held[part].give_back();
        }
        let mut wanted = share.saturating_sub(kept.len());
        // Those that were not given back for want of a database.
        for (part, fence) in &view.own {
            if !held.contains_key(part) {
                self.shares.give(&self.shares.claim(*part, *fence)).await?;
            }
        }
        for free in &view.free {
            if wanted == 0 {
                break;
            }
            if !held.contains_key(&free.0)
                && let Some(claim) = self.shares.take(free).await?
            {
                held.insert(claim.part, self.begin(claim, begins));
                wanted -= 1;
            }
        }
        Ok(wanted > 0)
    }

    /// Begins to consume a partition.
    fn begin(&self, claim: Claim, begins: &Begins) -> Held {
        let give_back = begins.pause.child_token();
        let partition = Partition {
            shared: Arc::clone(&self.shared),
            claim: claim.clone(),
            give_back: give_back.clone(),
        };
        let ended = Ended {
            claim: claim.clone(),
            to: begins.to.clone(),
        };
        self.shared.metrics.partitions.increment();
        let stopping = self.process.tasks.stopping();
        self.process.tasks.spawn("events partition", async move {
            // Told last, when nothing of it is left.
            let _ended = ended;
            stopping.run_until_cancelled(partition.run()).await;
        });
        Held { claim, give_back }
    }
}

impl Held {
    fn give_back(&self) {
        self.give_back.cancel();
    }
}

/// Forgets, now and then, which events were done long ago.
async fn prune(shared: &Shared) {
    loop {
        let config = shared.config.load();
        time::sleep(config.prune_interval).await;
        loop {
            match shared.inbox.prune(config.inbox_retention).await {
                Ok(pruned) if pruned < inbox::PRUNE_PAGE => break,
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(error = %chain(&error), "the inbox was not pruned");
                    break;
                }
            }
        }
    }
}

/// Waits until `health` is as wanted.
async fn until(health: &Health, wanted: impl Fn(&Health) -> bool) {
    let mut changes = health.changes();
    // Looked at between the waits, not within: the channel would be locked meanwhile, and whoever
    // changes the health tells of it by the channel while that is locked.
    while !wanted(health) {
        if changes.changed().await.is_err() {
            // Nobody can change it any more.
            std::future::pending::<()>().await;
        }
    }
}
