//! One instance of a consumer: takes partitions, has them consumed, and gives them back.

use std::{collections::BTreeMap, sync::Arc};

use gantry::{health::Health, shutdown::Tasks, status::chain};
use gantry_store::Error;
use tokio::{
    sync::mpsc,
    time::{self, Duration, Instant},
};
use tokio_util::sync::CancellationToken;

use super::{
    Shared,
    clock::Clock,
    inbox::{self, Claim},
    partition::Partition,
    pauses,
    shares::{Shares, View},
    shown::{Phase, Where},
};

/// How often the broker is asked how full the queues are.
const FILL_INTERVAL: Duration = Duration::from_secs(10);

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
        let shared = Arc::clone(&self.shared);
        // At once, ready or not: what is published from now on is kept for this consumer.
        draining.run_until_cancelled(self.prepare()).await;
        loop {
            shared.shown.phase(Phase::Waiting);
            // Cancel-safe: to show itself once more or less does no harm.
            let ready = async {
                tokio::select! {
                    biased;
                    () = until(&health, Health::is_ready) => {}
                    () = self.stand_by() => {}
                    () = tell(&shared) => {}
                }
            };
            if draining.run_until_cancelled(ready).await.is_none() {
                break;
            }
            let pause = CancellationToken::new();
            // Cancel-safe: it only waits.
            let asked = async {
                let unready = until(&health, |health| !health.is_ready());
                draining.run_until_cancelled(unready).await;
                shared.shown.phase(Phase::Draining);
                pause.cancel();
                std::future::pending::<()>().await;
            };
            let work = async { tokio::join!(self.consume(&pause), tend(&shared, &pause)) };
            tokio::select! {
                biased;
                ((), ()) = work => {}
                () = asked => {}
                () = prune(&shared) => {}
                () = fill(&shared) => {}
                () = tell(&shared) => {}
            }
            if health.is_latched() {
                break;
            }
            tracing::info!(group = %self.shared.group.name, "consuming pauses: the service is not ready");
        }
        shared.shown.phase(Phase::Waiting);
        if let Err(error) = self.shares.leave().await {
            // The others find out by its silence.
            tracing::warn!(error = %chain(&error), "an instance could not say that it goes");
        }
    }

    /// Shows that it lives, and what it handles, while it takes no share.
    async fn stand_by(&mut self) {
        loop {
            match self.look(false).await {
                Ok(_) => self.shared.shown.fine(Where::All),
                Err(error) => self.shared.shown.database(Where::All, &error),
            }
            time::sleep(self.shares.pause(false)).await;
        }
    }

    /// Shows that it lives, looks how things stand, and has the broker hear of what follows for it.
    async fn look(&mut self, shares: bool) -> Result<View, Error> {
        let view = self.shares.look(shares).await?;
        let let_go_after = self.shared.config.load().let_go_after;
        self.shared.wants.seen(&view, let_go_after);
        Ok(view)
    }

    /// Consumes until `pause` is cancelled and nothing is in flight.
    async fn consume(&mut self, pause: &CancellationToken) {
        self.shared.shown.phase(Phase::Consuming);
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
                () = pause.cancelled(), if !asked => {
                    asked = true;
                    // At once: others take its share.
                    next = Instant::now();
                }
                Some(claim) = endings.recv() => self.ended(&mut held, &claim).await,
                () = time::sleep_until(next) => {
                    let look = self.look(!pause.is_cancelled()).await;
                    let wants = match look {
                        Ok(view) => self.adjust(&mut held, &view, &begins).await,
                        Err(error) => Err(error),
                    };
                    let shown = &self.shared.shown;
                    let wants = match wants {
                        Ok(wants) => {
                            shown.fine(Where::All);
                            wants
                        }
                        Err(error) => {
                            shown.database(Where::All, &error);
                            false
                        }
                    };
                    next = Instant::now() + self.shares.pause(wants);
                }
            }
        }
    }

    /// Has the database and the broker know of the consumer, however long either is away: first the
    /// others, of whom one may be about to let go of what it handles.
    async fn prepare(&mut self) {
        let shared = Arc::clone(&self.shared);
        let shown = &shared.shown;
        shown.phase(Phase::Preparing);
        let mut pauses = pauses();
        loop {
            let known = match self.shares.seed().await {
                Ok(()) => self.look(false).await,
                Err(error) => Err(error),
            };
            match known {
                Ok(_) => {
                    shown.fine(Where::All);
                    // Cancel-safe: what is told is told again. The others see that it lives meanwhile.
                    let told = tokio::select! {
                        biased;
                        told = shared.wants.tell_once(&*shared.broker) => told,
                        () = self.stand_by() => continue,
                    };
                    match told {
                        Ok(()) => return shown.fine(Where::Topics),
                        Err(error) => shown.broker(Where::Topics, &error),
                    }
                }
                Err(error) => shown.database(Where::All, &error),
            }
            time::sleep(pauses.next_pause()).await;
        }
    }

    /// Gives a partition back of which nothing is in flight.
    async fn ended(&self, held: &mut BTreeMap<u16, Held>, claim: &Claim) {
        held.remove(&claim.part);
        self.shared.shown.gone(claim.part);
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
            clock: Clock::new(),
            give_back: give_back.clone(),
        };
        let ended = Ended {
            claim: claim.clone(),
            to: begins.to.clone(),
        };
        self.shared.shown.holds(claim.part, 0, 0);
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

/// Asks, now and then, how full the queues are, for those who look.
async fn fill(shared: &Shared) {
    loop {
        time::sleep(FILL_INTERVAL).await;
        match shared.broker.fill(&shared.group.name).await {
            Ok(fill) => shared.shown.fill(fill),
            // Told by whoever needs the broker.
            Err(error) => tracing::debug!(error = %chain(&error), "queues were not counted"),
        }
    }
}

/// Does what the broker needs done by who consumes, until `pause` is cancelled.
async fn tend(shared: &Shared, pause: &CancellationToken) {
    shared.broker.tend(&shared.group, pause).await;
}

/// Tells the broker what the instances of the group want, as they come and go.
async fn tell(shared: &Shared) {
    shared.wants.tell(&*shared.broker, &shared.shown).await;
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
