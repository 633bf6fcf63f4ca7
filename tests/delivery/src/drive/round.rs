//! One round: people ask, one thing after the other is done to the system and healed, all comes to rest,
//! and is judged.

use std::{fs, io, path::PathBuf, sync::Arc, time::Duration};

use gantry_store::Timestamp;
use rustix::process::Signal;
use tokio::time::{self, Instant};

use super::{
    doing::Doing,
    harm::Harm,
    load::Load,
    replicas::{Replicas, Settings},
    stage::{self, Place, Stage},
    watch::Watch,
};
use crate::{
    door::Tricks,
    evidence::{Drain, Evidence, Must, Strike},
    history::{self, History},
};

/// Replicas of the service.
const REPLICAS: usize = 2;

/// How long a broker or a database is gone.
const GONE: Duration = Duration::from_secs(2);

/// How long one of two relays stands still: longer than its lease, and than that of a consumer.
const STANDSTILL: Duration = Duration::from_secs(5);

/// How often it stands still for a moment until that is in the midst of a publication.
const STANDSTILLS_MAX: usize = 1_000;

/// How often something is done until what must happen by it has happened.
const STRIKES_MAX: usize = 3;

/// How often deliveries are tricked with, in percent.
const TRICKED_PERCENT: u8 = 30;

/// What a round is made of.
#[derive(Debug)]
pub(super) struct Round {
    /// What is done; in which order, the seed decides.
    pub(super) harms: Vec<Harm>,
    pub(super) seed: u64,
    /// Its name among all of the run.
    pub(super) name: String,
    /// Where all that is known of it is kept.
    pub(super) folder: PathBuf,
    /// How long the broker stands still.
    pub(super) stop: Duration,
    /// What it is at, for whoever waits for it.
    pub(super) doing: Doing,
}

/// A round that runs.
struct Playing<'a> {
    stage: &'a mut Stage,
    stop: Duration,
    random: fastrand::Rng,
    replicas: Replicas,
    watch: Watch,
    load: Load,
}

impl Round {
    /// Plays it to its end, and tells what is known of it.
    ///
    /// # Panics
    ///
    /// If a process or a server does not do what it must before anything can be judged.
    pub(super) async fn play(mut self, stage: &mut Stage) -> io::Result<Evidence> {
        fs::create_dir_all(&self.folder)?;
        let history_path = self.folder.join("history.jsonl");
        let history = Arc::new(History::open(&history_path)?);
        let mut random = fastrand::Rng::with_seed(self.seed);
        random.shuffle(&mut self.harms);
        let settings = self.settings(stage);
        self.doing.say("its start");
        let replicas = Replicas::start(settings.clone(), REPLICAS).await;
        let load = Load::of(random.u64(..), &replicas.addresses(), &history);
        let mut playing = Playing {
            stage,
            stop: self.stop,
            random,
            replicas,
            watch: Watch::of(&settings).await,
            load,
        };
        playing.begun().await?;
        let mut strikes = Vec::new();
        for harm in self.harms {
            self.doing.say(harm.name());
            history.done(harm.name())?;
            strikes.push(playing.strike(harm).await?);
            history.done("healed")?;
        }
        self.doing.say("coming to rest");
        let Playing {
            stage,
            replicas,
            mut watch,
            load,
            ..
        } = playing;
        load.end().await;
        history.done("no more requests")?;
        let group = settings.group();
        let mut evidence = watch.rest(&group, &replicas, &stage.broker).await?;
        evidence.requests = history::requests(&history_path)?;
        evidence.processes = replicas.processes().await;
        evidence.strikes = strikes;
        drop(replicas);
        self.doing.say("its end");
        watch.end(&group).await;
        let json = serde_json::to_string_pretty(&evidence)?;
        fs::write(self.folder.join("evidence.json"), json)?;
        Ok(evidence)
    }

    fn settings(&self, stage: &Stage) -> Settings {
        Settings {
            database: stage.place.url(&self.name),
            broker: stage::config(&stage.broker),
            outputs: self.folder.clone(),
            logs: self.folder.join("logs"),
            consumer: self.name.clone(),
            more: Vec::new(),
        }
    }
}

impl Playing<'_> {
    /// Waits until something has its effect, and all queues are there. A RabbitMQ that is killed while it
    /// makes a queue may have its name afterwards and nothing behind it, until somebody deletes it: that
    /// is none of what is proven here.
    async fn begun(&mut self) -> io::Result<()> {
        let now = Timestamp::now().micros();
        let mut begun = Strike {
            must: Must::APPLIED,
            time: now..now,
            ..Strike::default()
        };
        self.watch.seen(&mut begun).await?;
        self.pause(300..600).await;
        Ok(())
    }

    /// Does it, heals it, and waits until what must happen by it has happened.
    async fn strike(&mut self, harm: Harm) -> io::Result<Strike> {
        let victim = self.random.usize(..REPLICAS);
        let from = Timestamp::now().micros();
        let mut strike = Strike {
            name: harm.name().to_owned(),
            process: harm.is_of_one().then(|| self.replicas.name(victim)),
            must: harm.must(),
            time: from..from,
            ..Strike::default()
        };
        match harm {
            Harm::Nothing => self.pause(900..1_100).await,
            Harm::Crash(_) | Harm::RelayStopped => {
                return self.until_seen(strike, harm, victim).await;
            }
            Harm::ProcessKilled => self.replicas.kill(victim).await,
            Harm::Scaled => {
                self.replicas.add().await;
                strike.process = Some(self.replicas.name(REPLICAS));
                // Until it has its share, and has done some of it.
                self.watch.seen(&mut strike).await?;
                self.pause(300..900).await;
                self.replicas.kill(victim).await;
                self.pause(1_200..1_800).await;
                self.ask(REPLICAS).await?;
                self.replicas.remove().await;
            }
            Harm::BrokerKilled | Harm::BrokerStopped => {
                strike.drain = Some(self.broker(harm).await);
            }
            Harm::DatabaseKilled => self.database().await,
            Harm::Tricks => {
                let tricks = Tricks {
                    double: TRICKED_PERCENT,
                    swap: TRICKED_PERCENT,
                    seed: self.random.u64(..),
                };
                self.ask(victim).await?;
                self.replicas.replace(victim, tricks).await;
                strike.process = Some(self.replicas.name(victim));
                self.pause(900..1_100).await;
            }
        }
        self.watch.seen(&mut strike).await?;
        if harm == Harm::Tricks {
            self.ask(victim).await?;
            self.replicas.replace(victim, Tricks::default()).await;
        }
        self.over(strike).await
    }

    /// Asks one that is about to leave in order what it has counted.
    async fn ask(&mut self, number: usize) -> io::Result<()> {
        let least = self.watch.counted(&self.replicas.name(number))?;
        self.replicas.ask(number, least).await;
        Ok(())
    }

    /// Has a replica end at a point, or stand still; once more where that was at a bad moment: nothing but
    /// failures was written down then, say, as the machine stood still before.
    async fn until_seen(
        &mut self,
        mut strike: Strike,
        harm: Harm,
        victim: usize,
    ) -> io::Result<Strike> {
        for _ in 0..STRIKES_MAX {
            strike.process = Some(self.replicas.name(victim));
            let missed = match harm {
                Harm::Crash(point) if self.replicas.crash(victim, point).await => None,
                Harm::Crash(_) => Some("the point was not reached"),
                _ if self.stand_still(victim).await? => None,
                _ => Some("it never stood still in the midst of a publication"),
            };
            strike.missed = missed.map(str::to_owned);
            if strike.missed.is_some() || self.watch.seen(&mut strike).await? {
                break;
            }
        }
        self.over(strike).await
    }

    /// Ends a strike a little later.
    async fn over(&mut self, mut strike: Strike) -> io::Result<Strike> {
        self.pause(200..500).await;
        strike.time.end = Timestamp::now().micros();
        Ok(strike)
    }

    /// Has a replica stand still while something that it published is not confirmed; whether it did.
    async fn stand_still(&mut self, victim: usize) -> io::Result<bool> {
        for _ in 0..STANDSTILLS_MAX {
            self.replicas.signal(victim, Signal::STOP);
            // What a thread is at within the kernel ends first.
            self.pause(20..30).await;
            let is_publishing = self.watch.is_publishing(&self.replicas.name(victim))?;
            if is_publishing {
                time::sleep(STANDSTILL).await;
            }
            self.replicas.signal(victim, Signal::CONT);
            if is_publishing {
                return Ok(true);
            }
            self.pause(5..20).await;
        }
        Ok(false)
    }

    async fn broker(&mut self, harm: Harm) -> Drain {
        let asked = (Instant::now(), self.load.asked());
        let broker = &mut self.stage.broker;
        if harm == Harm::BrokerKilled {
            broker.kill().await;
            time::sleep(GONE).await;
            broker.restart().await;
        } else {
            broker.freeze();
            time::sleep(self.stop).await;
            broker.thaw();
        }
        self.watch.drained(asked, &self.load).await
    }

    async fn database(&mut self) {
        match &mut self.stage.place {
            Place::Server(server) => {
                server.kill().await;
                time::sleep(GONE).await;
                server.restart().await;
            }
            Place::File(_) => {
                for number in 0..REPLICAS {
                    self.replicas.signal(number, Signal::KILL);
                }
                for number in 0..REPLICAS {
                    self.replicas.again(number).await;
                }
            }
        }
    }

    async fn pause(&mut self, millis: std::ops::Range<u64>) {
        time::sleep(Duration::from_millis(self.random.u64(millis))).await;
    }
}
