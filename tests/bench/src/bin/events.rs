//! Publishes and consumes events with all that the platform does for them.
//!
//! A service as any other, whose settings say what is measured. It prepares that, says so, waits for a
//! line on its input, and prints how it went.

use std::{
    process::ExitCode,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::{StreamExt as _, stream};
use gantry::{
    app::{self, App, Identity},
    config,
};
use gantry_bench::{
    events::{
        ADD_TURNS, CONSUMER, Failed, GROUP, PARTITIONS, SERVICE, TOPIC, WINDOW, begins, event, key,
        message, pace, tell,
    },
    proto::Happened,
};
use gantry_events::{
    Events, Failure, Handle, Outbox, Received, Relay,
    broker::{self, Broker, Group},
};
use gantry_store::{Database, Migration, Statement, Transaction};
use tokio::{
    sync::Notify,
    time::{Instant, sleep},
};

config::choice! {
    /// What is measured.
    pub enum Role {
        /// Nothing; the queues are made anew.
        Declare = "declare",
        /// From the outbox to the broker.
        Relay = "relay",
        /// From the broker to the effect.
        Consume = "consume",
        /// From the commit to the handler.
        Latency = "latency",
        /// Rows, each in a transaction of its own, with an event each and without, in turns.
        Add = "add",
    }
}

config::section! {
    /// What is measured.
    pub struct Measured {
        /// What it is.
        pub role: Role = Role::Declare, restart;
        /// How many events.
        pub count: usize = 1_000, restart;
        /// How many keys they have.
        pub keys: usize = 1_000, restart;
    }
}

config::section! {
    /// Settings of the service.
    pub struct Config {
        /// Its database.
        pub database: section gantry_store::Config = gantry_store::Config::of(SERVICE);
        /// Its broker.
        pub broker: section broker::Config;
        /// Its events.
        pub events: section gantry_events::Config;
        /// What is measured.
        pub bench: section Measured;
    }
}

const MIGRATIONS: &[Migration] = &[Migration {
    version: 1,
    name: "effects",
    sql: "CREATE TABLE effects (number BIGINT NOT NULL, event_id TEXT NOT NULL);",
}];
const WRITE: Statement = Statement::new(
    "bench.write",
    "INSERT INTO effects (number, event_id) VALUES ($1, $2)",
);
const LEFT: Statement = Statement::new(
    "bench.left",
    "SELECT 1 AS one FROM event_aggregates WHERE sent_sequence < last_sequence LIMIT 1",
);
const PENDING: Statement = Statement::new(
    "bench.pending",
    "SELECT COUNT(*) AS events FROM event_outbox WHERE state = 0",
);

/// How often it is looked whether the outbox is empty.
const LOOK: Duration = Duration::from_millis(10);
/// Events before those of which it is measured how long they take: some for each queue.
const WARM: usize = 100;
/// Events in one transaction where it does not matter.
const TOGETHER: usize = 100;

fn main() -> ExitCode {
    let identity = Identity {
        name: SERVICE,
        ..app::identity!()
    };
    app::run(identity, start)
}

async fn start(app: &mut App<Config>) -> Result<(), Failed> {
    let config = app.config();
    let measured = config.load().bench.clone();
    let database = config.map(|config| &config.database);
    let database = Database::attach(app, database, MIGRATIONS).await?;
    let broker = config.map(|config| &config.broker);
    let broker = broker::connect(&broker, &app.tasks(), &app.journal());
    let Measured { role, count, keys } = measured;
    match role {
        Role::Declare => {
            broker.remove(GROUP).await?;
            broker.declare(&group()).await?;
            gantry_bench::print("done");
        }
        Role::Relay => relay(app, &database, broker, (count, keys)).await?,
        Role::Consume => consume(app, &database, broker, (count, keys)).await?,
        Role::Latency => latency(app, &database, broker, (count, keys)).await?,
        Role::Add => add(&database, (count, keys)).await?,
    }
    Ok(())
}

fn group() -> Group {
    Group {
        name: GROUP.to_owned(),
        partitions: PARTITIONS,
        topics: vec![TOPIC.to_owned()],
        queue_messages_max: None,
    }
}

async fn write(
    transaction: &mut Transaction,
    number: usize,
    id: &str,
) -> Result<(), gantry_store::Error> {
    let number = i64::try_from(number).unwrap_or_default();
    let write = transaction.statement(&WRITE).bind(number).bind(id);
    write.execute().await.map(drop)
}

/// Writes rows, without events and with them, in turns: as many of each.
async fn add(database: &Database, (count, keys): (usize, usize)) -> Result<(), Failed> {
    let outbox = Outbox::open(database, SERVICE).await?;
    // What is done for the first time takes longer.
    for number in 0..WARM {
        add_one(database, Some(&outbox), (number, keys)).await?;
    }
    let in_turn = count / ADD_TURNS;
    for turn in 0..ADD_TURNS {
        for with_event in [false, true] {
            let outbox = with_event.then_some(&outbox);
            let begun = begins().await?;
            for number in turn * in_turn..(turn + 1) * in_turn {
                add_one(database, outbox, (number, keys)).await?;
            }
            begun.ended();
        }
    }
    Ok(())
}

async fn add_one(
    database: &Database,
    outbox: Option<&Outbox>,
    (number, keys): (usize, usize),
) -> Result<(), Failed> {
    let mut transaction = database.begin("bench.row").await?;
    write(&mut transaction, number, SERVICE).await?;
    if let Some(outbox) = outbox {
        let key = key(number, keys);
        outbox.add(&mut transaction, &key, &event(number)).await?;
    }
    transaction.commit().await?;
    Ok(())
}

/// Fills an outbox, and has it published.
async fn relay(
    app: &mut App<Config>,
    database: &Database,
    broker: Arc<dyn Broker>,
    (count, keys): (usize, usize),
) -> Result<(), Failed> {
    let outbox = Outbox::open(database, SERVICE).await?;
    for first in (0..count).step_by(TOGETHER) {
        let mut transaction = database.begin("bench.fill").await?;
        for number in first..count.min(first + TOGETHER) {
            let key = key(number, keys);
            outbox.add(&mut transaction, &key, &event(number)).await?;
        }
        transaction.commit().await?;
    }
    broker.ping().await?;
    let begun = begins().await?;
    let config = app.config().map(|config| &config.events.relay);
    let relay = Relay::new(&outbox, broker, config).journal(app.journal());
    app.spawn("event relay", relay.run(app.tasks().stopping()));
    let left = async || database.statement(&LEFT).fetch_optional().await;
    while left().await?.is_some() {
        sleep(LOOK).await;
    }
    begun.ended();
    let pending = database.statement(&PENDING).fetch_one().await?;
    assert_eq!(0, pending.integer("events")?, "all is marked");
    Ok(())
}

/// Fills the queues, and has a row written for each event.
async fn consume(
    app: &mut App<Config>,
    database: &Database,
    broker: Arc<dyn Broker>,
    (count, keys): (usize, usize),
) -> Result<(), Failed> {
    let published = stream::iter(0..count).map(|number| broker.publish(message(number, keys)));
    let mut published = published.buffer_unordered(WINDOW);
    while let Some(outcome) = published.next().await {
        outcome?;
    }
    drop(published);
    let config = app.config().map(|config| &config.events);
    let events = Events::attach_to(app, database, broker, config).await?;
    let effects = Effects {
        shared: Arc::new(Shared {
            count,
            first: Mutex::default(),
            done: AtomicUsize::new(0),
            all: Notify::new(),
        }),
    };
    let begun = begins().await?;
    let shared = Arc::clone(&effects.shared);
    events.consumer(CONSUMER).on::<Happened>(effects).start();
    app.spawn("bench", async move {
        shared.all.notified().await;
        let first = *shared.first.lock().unwrap_or_else(PoisonError::into_inner);
        first.map_or(begun, |at| begun.at(at)).ended();
    });
    Ok(())
}

/// Writes a row for each event.
struct Effects {
    shared: Arc<Shared>,
}

struct Shared {
    count: usize,
    /// When the first one came.
    first: Mutex<Option<Instant>>,
    done: AtomicUsize,
    all: Notify,
}

impl Handle<Happened> for Effects {
    async fn handle(
        &self,
        event: &Received<Happened>,
        transaction: &mut Transaction,
    ) -> Result<(), Failure> {
        let shared = Arc::clone(&self.shared);
        if shared.done.load(Ordering::Relaxed) == 0 {
            let mut first = shared.first.lock().unwrap_or_else(PoisonError::into_inner);
            first.get_or_insert_with(Instant::now);
        }
        let number = usize::try_from(event.number).unwrap_or_default();
        write(transaction, number, event.id()).await?;
        transaction.after_commit(move || {
            if shared.done.fetch_add(1, Ordering::Relaxed) + 1 == shared.count {
                shared.all.notify_one();
            }
        });
        Ok(())
    }
}

/// Publishes now and then, and notes how long each takes.
async fn latency(
    app: &mut App<Config>,
    database: &Database,
    broker: Arc<dyn Broker>,
    (count, keys): (usize, usize),
) -> Result<(), Failed> {
    let config = app.config().map(|config| &config.events);
    let events = Events::attach_to(app, database, broker, config).await?;
    let times = Arc::new(Times {
        sent: Mutex::new(vec![None; count + WARM]),
        took: Mutex::default(),
        came: Notify::new(),
    });
    let handler = Arrivals(Arc::clone(&times));
    events.consumer(CONSUMER).on::<Happened>(handler).start();
    let (outbox, database) = (events.outbox(), database.clone());
    let begun = begins().await?;
    app.spawn("bench", async move {
        if let Err(error) = paced(&times, &database, &outbox, (count, keys)).await {
            gantry_bench::print(error);
            return;
        }
        begun.ended();
        let took = std::mem::take(&mut *times.took());
        tell(took);
    });
    Ok(())
}

async fn paced(
    times: &Arc<Times>,
    database: &Database,
    outbox: &Outbox,
    (count, keys): (usize, usize),
) -> Result<(), Failed> {
    let mut ticks = pace();
    for number in 0..WARM + count {
        if number == WARM {
            // The consumer has all its queues by then.
            times.have_come(WARM).await;
            times.took().clear();
        }
        ticks.tick().await;
        let mut transaction = database.begin("bench.happen").await?;
        write(&mut transaction, number, SERVICE).await?;
        let noted = Arc::clone(times);
        transaction.after_commit(move || noted.sent()[number] = Some(Instant::now()));
        let key = key(number, keys);
        outbox.add(&mut transaction, &key, &event(number)).await?;
        transaction.commit().await?;
    }
    times.have_come(count).await;
    Ok(())
}

/// When events were committed, and how long they took from there.
struct Times {
    sent: Mutex<Vec<Option<Instant>>>,
    took: Mutex<Vec<Duration>>,
    came: Notify,
}

impl Times {
    /// Waits until so many are noted.
    async fn have_come(&self, count: usize) {
        while self.took().len() < count {
            self.came.notified().await;
        }
    }

    fn sent(&self) -> std::sync::MutexGuard<'_, Vec<Option<Instant>>> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn took(&self) -> std::sync::MutexGuard<'_, Vec<Duration>> {
        self.took.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Notes when events come.
struct Arrivals(Arc<Times>);

impl Handle<Happened> for Arrivals {
    async fn handle(&self, event: &Received<Happened>, _: &mut Transaction) -> Result<(), Failure> {
        let now = Instant::now();
        let number = usize::try_from(event.number).unwrap_or_default();
        if let Some(place) = number.checked_sub(1) {
            let sent = self.0.sent().get(place).copied().flatten();
            let took = sent.map_or(Duration::ZERO, |sent| now.duration_since(sent));
            self.0.took().push(took);
        }
        self.0.came.notify_one();
        Ok(())
    }
}
