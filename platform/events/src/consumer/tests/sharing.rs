//! Several instances, which come and go.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, mpsc},
    time::Duration,
};

use gantry::app::testing::Service;
use gantry_harness::database::Place;
use gantry_store::Transaction;
use tokio::time;

use super::{
    super::{Failure, Handle, Received},
    Plain,
    world::{Counted, World, effect},
};
use crate::broker::memory::Chances;

gantry_harness::on_both!(
    instances_share_what_comes_while_they_come_and_go,
    invariants_hold_by_seeds,
);

/// Which keys are handled now, and by whom what was: shared by all instances of a test.
#[derive(Debug, Default)]
struct Seen {
    busy: BTreeSet<String>,
    /// Whether two ever handled a key at once.
    overlapped: bool,
    handled: BTreeMap<usize, u32>,
}

/// One instance's handler: takes a moment, and minds that no other has the key.
#[derive(Debug, Clone)]
struct Minding {
    instance: usize,
    seen: Arc<Mutex<Seen>>,
    /// Of 256 attempts, so many fail.
    fails: u8,
}

/// A key, as long as it is handled.
struct Busy {
    key: String,
    seen: Arc<Mutex<Seen>>,
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.seen.lock().unwrap().busy.remove(&self.key);
    }
}

impl Handle<Counted> for Minding {
    async fn handle(
        &self,
        event: &Received<Counted>,
        transaction: &mut Transaction,
    ) -> Result<(), Failure> {
        let key = event.key().to_owned();
        let seen = Arc::clone(&self.seen);
        {
            let mut seen = seen.lock().unwrap();
            seen.overlapped |= !seen.busy.insert(key.clone());
        }
        let _busy = Busy { key, seen };
        time::sleep(Duration::from_millis(fastrand::u64(0..3))).await;
        effect(event, transaction).await?;
        if fastrand::u8(..) < self.fails {
            return Err(Failure::retry("by chance"));
        }
        let mut seen = self.seen.lock().unwrap();
        *seen.handled.entry(self.instance).or_default() += 1;
        Ok(())
    }
}

/// Instances that come and go.
struct Fleet<'a> {
    world: &'a World,
    seen: Arc<Mutex<Seen>>,
    fails: u8,
    settings: &'static str,
    all: Vec<Service>,
    made: usize,
}

impl<'a> Fleet<'a> {
    fn new(world: &'a World, fails: u8, settings: &'static str) -> Self {
        Self {
            world,
            seen: Arc::default(),
            fails,
            settings,
            all: Vec::new(),
            made: 0,
        }
    }

    async fn add(&mut self) {
        let minding = Minding {
            instance: self.made,
            seen: Arc::clone(&self.seen),
            fails: self.fails,
        };
        self.made += 1;
        let service = self.world.serve_in_sequence(self.settings, minding).await;
        self.all.push(service);
    }

    async fn stop(&mut self, at: usize) {
        self.all.swap_remove(at).stop().await;
    }

    fn kill(&mut self, at: usize) {
        drop(self.all.swap_remove(at));
    }
}

/// Goal: instances share the work, and when one comes, goes, or dies, every event has its effect once,
/// those of a key in their order, and no two handle a key at once.
/// Method: one instance, then three, then two, one of which was killed, while events come.
async fn instances_share_what_comes_while_they_come_and_go(world: World) {
    // Long enough that nobody on a busy machine is taken for dead who is not.
    let mut fleet = Fleet::new(&world, 0, "lease = '4s'\n");
    fleet.add().await;
    let mut sequence = 0;
    for phase in 0..4 {
        for _ in 0..10 {
            sequence += 1;
            for key in 0..12 {
                world.publish(&format!("key-{key}"), sequence, 0).await;
            }
        }
        match phase {
            0 => {
                fleet.add().await;
                fleet.add().await;
                world.shares_are(3).await;
            }
            1 => fleet.kill(0),
            2 => fleet.add().await,
            _ => fleet.stop(0).await,
        }
    }
    world.quiet(480).await;
    world.each_once_in_order().await;
    let handled = fleet.seen.lock().unwrap().handled.clone();
    assert!(!fleet.seen.lock().unwrap().overlapped);
    assert!(handled.len() >= 3, "all have a share: {handled:?}");
    while !fleet.all.is_empty() {
        fleet.stop(0).await;
    }
    assert_eq!((0, 0), world.shares().await);
}

/// Seeds of each run; each is one schedule of faults.
const SEEDS: u64 = 4;

/// Keys of each run, and events of each key.
const KEYS: u64 = 6;
const EACH: u64 = 15;

/// What fails is tried again at hand, or by the broker.
const AT_HAND: &str = "attempts_max = 1000\nattempts_in_place = 2\npause = '5ms'\n\
                       pause_max = '50ms'\npartitions = 4\ngap_wait = '1m'\n";
const AT_THE_BROKER: &str = "attempts_max = 1000\nattempts_in_place = 2\npause = '5ms'\n\
                             pause_max = '50ms'\npartitions = 4\ngap_wait = '1m'\n\
                             rest_max = '0s'\n";

/// Goal: the invariants of delivery, whatever happens: no event is lost or has two effects, those of a
/// key have them in their order, nothing is left behind.
/// Method: by seeds, a broker that doubles, swaps, ends subscriptions and loses its connection, handlers
/// that fail by chance, instances that come, go, and die.
async fn invariants_hold_by_seeds(world: World) {
    for _ in 0..SEEDS {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let world = world.another(seed);
        time::timeout(Duration::from_mins(3), one_seed(&world, seed))
            .await
            .unwrap_or_else(|_| panic!("seed {seed} does not come to its end"));
    }
}

async fn one_seed(world: &World, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let settings = if random.bool() {
        AT_HAND
    } else {
        AT_THE_BROKER
    };
    let mut fleet = Fleet::new(world, 40, settings);
    fleet.add().await;
    world.broker.chances(Chances {
        double: 0.1,
        swap: 0.1,
        end: 0.02,
        ..Chances::default()
    });
    for sequence in 1..=EACH {
        for key in 0..KEYS {
            world.publish(&format!("key-{key}"), sequence, 0).await;
        }
        match random.u8(..8) {
            0 | 1 if fleet.all.len() < 3 => fleet.add().await,
            2 if fleet.all.len() > 1 => fleet.kill(random.usize(..fleet.all.len())),
            3 if fleet.all.len() > 1 => fleet.stop(random.usize(..fleet.all.len())).await,
            4 => {
                world.broker.disconnect();
                world.broker.reconnect();
            }
            _ => time::sleep(Duration::from_millis(random.u64(..30))).await,
        }
    }
    world.quiet(usize::try_from(KEYS * EACH).unwrap()).await;
    world.each_once_in_order().await;
    world.none_is_missing(EACH).await;
    assert!(world.dead_letters().await.is_empty());
    assert_eq!(0, world.held().await);
    while !fleet.all.is_empty() {
        fleet.stop(0).await;
    }
}

/// Stands still with its whole thread, once.
struct Standing {
    entered: mpsc::SyncSender<()>,
    gate: Mutex<Option<mpsc::Receiver<()>>>,
}

impl Handle<Counted> for Standing {
    async fn handle(
        &self,
        event: &Received<Counted>,
        transaction: &mut Transaction,
    ) -> Result<(), Failure> {
        let _ = self.entered.try_send(());
        // From then on none is there, and nothing stands still.
        let gate = self.gate.lock().unwrap().take();
        let _ = gate.map(|gate| gate.recv());
        effect(event, transaction).await
    }
}

/// Goal: an instance that stands still is passed by, and writes nothing when it goes on: its fence is
/// old.
/// Method: stop a whole runtime in the midst of a handler, have another instance take over and do the
/// other keys, let the first go on. On a server: in a file, who stands still keeps all from writing.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn who_stands_still_is_passed_by() {
    let Some(place) = Place::server().await else {
        return;
    };
    let world = Arc::new(World::from(place));
    let (entered, is_in) = mpsc::sync_channel(1);
    let (go, gate) = mpsc::sync_channel(1);
    let standing = Standing {
        entered,
        gate: Mutex::new(Some(gate)),
    };
    let (own, stop) = (
        Arc::clone(&world),
        tokio_util::sync::CancellationToken::new(),
    );
    let stopped = stop.clone();
    let thread = std::thread::spawn(move || {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().build().unwrap();
        runtime.block_on(async {
            let service = own.serve("handlers_max = 1\n", standing).await;
            stopped.cancelled().await;
            service.stop().await;
        });
    });
    world.taken(1).await;
    world.publish("a", 1, 0).await;
    tokio::task::block_in_place(|| is_in.recv()).unwrap();
    let service = world.serve("", Plain).await;
    for key in ["b", "c", "d"] {
        world.publish(key, 1, 0).await;
    }
    world.taken(2).await;
    // As by a broker that hears nothing of it any more.
    world.broker.disconnect();
    world.broker.reconnect();
    world.effects_are(3).await;
    go.send(()).unwrap();
    world.quiet(4).await;
    world.each_once_in_order().await;
    service.stop().await;
    stop.cancel();
    tokio::task::block_in_place(|| thread.join()).unwrap();
}
