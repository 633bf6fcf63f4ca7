//! One run: changes are asked for while processes end and stand still, come and go, and the broker and
//! the handlers fail; then all is healed, and comes to rest.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use gantry_events::broker::memory::{Chances, Memory};
use gantry_store::{Error, Timestamp, testing::Clock};
use tokio::{
    sync::Notify,
    task::JoinSet,
    time::{self, Instant},
};

use super::{
    drawn::{self, Deed, FAILING},
    gate::{Counts, Gate, Point, Run, There},
    handler::Worse,
    process::{Make, Process, Roles},
    said,
    tape::{Tape, What},
    world::World,
};
use crate::{
    contract::{PostRequest, Trouble},
    door::Tricks,
    evidence::{self, Evidence, Outcome, Request},
    ledger::Posted,
    log::Wire,
};

/// When every run begins: so two of one seed are the same.
const BEGINNING: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);

/// Processes of each role: few are enough more often than not.
const ROLES: [usize; 5] = [1, 1, 2, 2, 3];

/// How many changes are asked for, of how many accounts at most, and how long after one another.
const CHANGES: Range<usize> = 3..13;
const ACCOUNTS: u64 = 4;
const PAUSE_MILLIS: Range<u64> = 0..200;

/// How many once all is healed.
const LATE: usize = 2;

/// What is asked for, in percent.
const REFUSED: u8 = 8;
const POISONED: u8 = 5;
const FAILS: u8 = 20;
const PANICS: u8 = 5;
const HANGS: u8 = 5;

/// How often a request is made whose outcome is not known.
const TRIES: u32 = 3;

/// How long a process stands still, and the broker is away or takes nothing.
const STILL_MILLIS: Range<u64> = 100..4_000;
const AWAY_MILLIS: Range<u64> = 10..800;

/// How a run went.
#[derive(Debug)]
pub(super) struct Played {
    pub(super) evidence: Evidence,
    pub(super) tape: Arc<Tape>,
}

/// Plays the run of `seed`, on a clock that stands still.
pub(super) async fn play(world: &World, seed: u64, counts: &Counts) -> Result<Played, Error> {
    let _clock = Clock::at(BEGINNING);
    fastrand::seed(seed);
    world.clear().await?;
    let mut script = Script::of(world, seed, counts);
    let changes = script.random.usize(CHANGES);
    for number in 0..changes {
        script.ask(number);
        script.deed().await;
        let pause = script.random.u64(PAUSE_MILLIS);
        script.goes_on(Duration::from_millis(pause)).await;
    }
    script.heal().await;
    script.rest().await
}

/// What became of each request so far.
type Requests = Arc<Mutex<BTreeMap<String, Request>>>;

struct Script<'a> {
    world: &'a World,
    make: Make,
    random: fastrand::Rng,
    starts: u32,
    processes: Vec<Process>,
    /// Those of all processes, also of such as have ended.
    gates: Vec<Arc<Gate>>,
    /// Processes that end in order.
    leaving: JoinSet<Option<(String, evidence::Process)>>,
    requests: Requests,
    posts: BTreeMap<String, PostRequest>,
    /// Held by each request that is served.
    open: Arc<()>,
    /// When what was done ends.
    ends: Vec<(Instant, End)>,
}

/// The end of something that lasts for a while.
#[derive(Debug, Clone)]
enum End {
    Reconnect,
    Unblock,
    Wake(Arc<str>),
}

impl<'a> Script<'a> {
    fn of(world: &'a World, seed: u64, counts: &Counts) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let broker = Memory::new(random.u64(..));
        let in_sequence = random.bool();
        broker.chances(drawn::chances(&mut random, in_sequence));
        broker.timing(
            Duration::from_micros(random.u64(..5_000)),
            Duration::from_millis(random.u64(20..200)),
        );
        let mut percent = || if random.bool() { 0 } else { random.u8(..30) };
        let tricks = Tricks {
            double: percent(),
            swap: percent(),
            seed: 0,
        };
        let run = Run {
            tape: Tape::new(),
            counts: counts.clone(),
            there: Arc::new(Notify::new()),
            step_max: Duration::from_micros(random.u64(..8_000)),
        };
        said::listen(&run.tape, counts);
        let mut config = drawn::config(&mut random);
        if tricks.double > 0 {
            // The door's copy is no message of the broker: once its original is settled, it does not come again.
            config.consumer.rest_max = drawn::AT_HAND;
        }
        if in_sequence {
            // What comes too early waits at hand for what is behind it in the queue.
            config.consumer.prefetch = config.consumer.prefetch.max(4);
        }
        let make = Make {
            run,
            database: world.database.clone(),
            broker,
            config,
            in_sequence,
            tricks,
            plan: Arc::default(),
        };
        let mut script = Self {
            world,
            make,
            random,
            starts: 0,
            processes: Vec::new(),
            gates: Vec::new(),
            leaving: JoinSet::new(),
            requests: Arc::default(),
            posts: BTreeMap::new(),
            open: Arc::default(),
            ends: Vec::new(),
        };
        let [relays, consumers] = [(); 2].map(|()| script.random.choice(ROLES).unwrap_or(1));
        for number in 0..relays.max(consumers) {
            script.start(Roles {
                relays: number < relays,
                consumes: number < consumers,
            });
        }
        script
    }

    fn note(&self, done: impl Into<String>) {
        self.make
            .run
            .tape
            .add(&"all".into(), What::Done(done.into()));
    }

    fn count(&self, what: &'static str) {
        self.make.run.counts.one(what);
    }

    fn start(&mut self, roles: Roles) {
        self.starts += 1;
        let name = format!("p{}", self.starts);
        let seed = self.random.u64(..);
        let process = Process::start(&self.make, &name, roles, seed);
        self.gates.push(Arc::clone(&process.gate));
        self.processes.push(process);
    }

    /// Lets the run go on for that long.
    async fn goes_on(&mut self, pause: Duration) {
        let until = Instant::now() + pause;
        loop {
            self.see_to_those_there().await;
            let next = self.ends.iter().map(|(at, _)| *at).min();
            let there = Arc::clone(&self.make.run.there);
            let due = next.map_or(until, |next| next.min(until));
            tokio::select! {
                biased;
                () = there.notified() => {}
                () = time::sleep_until(due) => {
                    self.end_due();
                    if Instant::now() >= until {
                        self.see_to_those_there().await;
                        return;
                    }
                }
            }
        }
    }

    /// Where a process has ended, another one starts; one that has come to stand still goes on later.
    async fn see_to_those_there(&mut self) {
        for gate in self.gates.clone() {
            if gate.came_to_stand() {
                self.stands_still(&gate, true);
            }
        }
        while let Some(dead) = self.processes.iter().position(|it| it.gate.is_dead()) {
            self.replace(dead).await;
        }
    }

    async fn replace(&mut self, number: usize) {
        let gone = self.processes.remove(number);
        let roles = gone.roles;
        gone.kill().await;
        self.start(roles);
    }

    /// Ends what has lasted long enough.
    fn end_due(&mut self) {
        let now = Instant::now();
        let (due, later) = std::mem::take(&mut self.ends)
            .into_iter()
            .partition(|(at, _)| *at <= now);
        self.ends = later;
        for (_, end) in due {
            self.end(&end);
        }
    }

    fn end(&self, end: &End) {
        match end {
            End::Reconnect => self.make.broker.reconnect(),
            End::Unblock => self.make.broker.block(false),
            End::Wake(name) => {
                if let Some(gate) = self.gates.iter().find(|it| it.name == *name) {
                    gate.note("goes on");
                    gate.stand_still(false);
                }
            }
        }
    }

    fn lasts(&mut self, millis: Range<u64>, end: End) {
        let at = Instant::now() + Duration::from_millis(self.random.u64(millis));
        self.ends.push((at, end));
    }

    /// Asks a process for a change, which goes on by itself.
    fn ask(&mut self, number: usize) {
        let random = &mut self.random;
        let mut is = |percent: u8| random.u8(..100) < percent;
        let (refused, poisoned, fails) = (is(REFUSED), is(POISONED), is(FAILS));
        let (panics, hangs) = (is(PANICS), is(HANGS));
        let request_id = format!("r{number}");
        let account = format!("a{}", random.u64(..ACCOUNTS));
        let amount = random.i64(-1_000..1_000);
        let request = Request {
            account: account.clone(),
            amount,
            poisoned,
            outcome: Outcome::Unknown,
        };
        let attempts = if fails { random.u32(FAILING) } else { 0 };
        let worse = match (panics, hangs) {
            (true, _) => Some(Worse::Panics(random.u32(FAILING))),
            (_, true) => Some(Worse::Hangs(random.u32(FAILING))),
            _ => None,
        };
        if let Some(worse) = worse {
            let plan = self.make.plan.lock();
            let mut plan = plan.unwrap_or_else(PoisonError::into_inner);
            plan.insert(request_id.clone(), worse);
        }
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        requests.insert(request_id.clone(), request);
        drop(requests);
        let post = PostRequest {
            request_id: request_id.clone(),
            account,
            amount,
            trouble: Some(Trouble { attempts, poisoned }),
            refused,
        };
        self.posts.insert(request_id, post.clone());
        self.post(post);
    }

    fn post(&mut self, post: PostRequest) {
        let at = self.random.usize(..self.processes.len());
        let process = &mut self.processes[at];
        let (requests, id) = (Arc::clone(&self.requests), post.request_id.clone());
        process.gate.note(format!("is asked for {id}"));
        let (gate, open) = (Arc::clone(&process.gate), Arc::clone(&self.open));
        process.serve(post, move |posted| {
            let outcome = match posted {
                Ok(Posted::New | Posted::Known) => Outcome::Ok,
                Ok(Posted::Refused) => Outcome::Failed,
                Err(_) => Outcome::Unknown,
            };
            gate.note(format!("answers {id}: {outcome:?}"));
            let mut requests = requests.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(request) = requests.get_mut(&id) {
                request.outcome = outcome;
            }
            drop(open);
        });
    }

    /// Does something to the system.
    async fn deed(&mut self) {
        let victim = self.random.usize(..self.processes.len());
        match Deed::of(&mut self.random) {
            Deed::Nothing => {}
            deed @ (Deed::EndAt | Deed::StandStillAt) => {
                let point = self.random.choice(Point::ALL).unwrap_or(Point::P0);
                let there = match deed {
                    Deed::EndAt => There::Ends,
                    _ => There::StandsStill,
                };
                let before = self.random.u8(..3);
                self.processes[victim].gate.at(point, before, there);
            }
            Deed::Kill => {
                self.count("killed");
                self.processes[victim].gate.note("is killed");
                self.replace(victim).await;
            }
            deed @ (Deed::StandStill | Deed::StandStillAlone) => {
                let gate = Arc::clone(&self.processes[victim].gate);
                self.count("stood still");
                gate.note("stands still");
                gate.stand_still(true);
                self.stands_still(&gate, deed == Deed::StandStillAlone);
            }
            Deed::Join => {
                let roles = *self
                    .random
                    .choice(&[(true, true), (true, false), (false, true)])
                    .unwrap_or(&(true, true));
                self.count("joined");
                self.start(Roles {
                    relays: roles.0,
                    consumes: roles.1,
                });
            }
            Deed::Leave => self.leave(victim),
            Deed::Disconnect => {
                self.count("the broker was away");
                self.note("the broker is away");
                self.make.broker.disconnect();
                self.lasts(AWAY_MILLIS, End::Reconnect);
            }
            Deed::Block => {
                self.count("the broker took nothing");
                self.note("the broker takes nothing");
                self.make.broker.block(true);
                self.lasts(AWAY_MILLIS, End::Unblock);
            }
        }
    }

    /// A process stands still for a while; the broker may take it for gone.
    fn stands_still(&mut self, gate: &Gate, alone: bool) {
        self.lasts(STILL_MILLIS, End::Wake(Arc::clone(&gate.name)));
        if alone {
            self.note("the broker ends its connections");
            self.make.broker.disconnect();
            self.make.broker.reconnect();
        }
    }

    /// A process ends in order, where others do what it does.
    fn leave(&mut self, number: usize) {
        let others = self.processes.iter().enumerate();
        let others = others.filter(|(other, _)| *other != number);
        let (mut relays, mut consumes) = (false, false);
        for (_, other) in others {
            relays |= other.roles.relays;
            consumes |= other.roles.consumes;
        }
        if !(relays && consumes) {
            return;
        }
        self.count("left");
        let gone = self.processes.remove(number);
        self.leaving.spawn(gone.finish());
    }

    /// Ends all faults, and has people ask again who do not know what became of what they asked for.
    async fn heal(&mut self) {
        self.make.broker.chances(Chances::default());
        for gate in &self.gates {
            gate.spare();
        }
        // What lasts longer than that, has lasted long enough.
        self.goes_on(Duration::from_millis(STILL_MILLIS.end / 2))
            .await;
        for (_, end) in std::mem::take(&mut self.ends) {
            self.end(&end);
        }
        self.note("all is healed");
        for _ in 1..TRIES {
            self.goes_on(Duration::from_millis(100)).await;
            for (id, request) in self.asked() {
                // Not all ask again.
                if request.outcome == Outcome::Unknown && self.random.bool() {
                    self.post(self.posts[&id].clone());
                }
            }
        }
        self.goes_on(Duration::from_millis(100)).await;
        // Whoever comes new goes by what is written down; no key is stuck for good.
        let victim = self.random.usize(..self.processes.len());
        if self.random.bool() {
            self.replace(victim).await;
        }
        let number = self.posts.len();
        for late in 0..LATE {
            self.ask(number + late);
        }
    }

    /// What became of all that was asked for, so far.
    fn asked(&self) -> BTreeMap<String, Request> {
        let requests = self.requests.lock();
        requests.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for rest, ends all, and tells.
    async fn rest(mut self) -> Result<Played, Error> {
        let mut told = BTreeMap::new();
        while let Some(left) = self.leaving.join_next().await {
            told.extend(left.ok().flatten());
        }
        let broker = &self.make.broker;
        let open = Arc::downgrade(&self.open);
        // One of them is ours.
        let answered = || open.strong_count() == 1;
        self.world.rest(broker, answered).await?;
        let mut evidence = Evidence::default();
        self.world.look(broker, &mut evidence).await?;
        evidence.requests = self.asked();
        let tape = Arc::clone(&self.make.run.tape);
        let mut wire = Wire::default();
        for number in 1..=self.starts {
            let name = format!("p{number}");
            wire.add(&name, tape.lines(&name));
        }
        told.extend(self.processes.iter().map(Process::told));
        evidence.processes = told;
        for process in self.processes {
            process.kill().await;
        }
        wire.tell(&mut evidence);
        let taken = self.make.broker.taken().len();
        let confirmed = evidence.publications.iter().filter(|it| it.confirmed);
        let confirmed = confirmed.count();
        let lost = u64::try_from(taken.saturating_sub(confirmed)).unwrap_or(u64::MAX);
        self.make.run.counts.add("taken and not confirmed", lost);
        Ok(Played { evidence, tape })
    }
}
