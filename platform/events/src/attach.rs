//! Events of a service: tied to its process, its database and its broker.

use std::{
    collections::BTreeSet,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use gantry::{
    BoxError,
    app::App,
    config::{self, Live, Section},
    health::Check,
    journal::Journal,
    shutdown::Tasks,
};
use gantry_store::{Database, Migration, OpenError};
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::{
    Outbox, Relay,
    broker::{self, Broker},
    consumer::{self, Consumer, Instance, Process},
    relay,
    state::State,
};

/// Under which name the tables of consumers have their history.
pub(crate) const LIBRARY: &str = "event_consumers";

config::section! {
    /// How events are published and consumed.
    pub struct Config {
        /// How they go from the outbox to the broker.
        pub relay: section relay::Config;
        /// How they are consumed.
        pub consumer: section consumer::Config;
    }
}

config::section! {
    /// Everything that a service with a database and events has to set, where nothing is its own.
    pub struct Settings {
        /// Where its rows are kept.
        pub database: section gantry_store::Config;
        /// What carries events.
        pub broker: section broker::Config;
        /// How they are published and consumed.
        pub events: section Config;
    }
}

/// Events of one service.
pub struct Events {
    pub(crate) service: &'static str,
    /// This process among all of the service.
    pub(crate) instance: String,
    pub(crate) database: Database,
    outbox: Outbox,
    pub(crate) broker: Arc<dyn Broker>,
    pub(crate) config: Live<Config>,
    state: Arc<State>,
    journal: Journal,
    process: Process,
    consumers: TaskTracker,
    names: Mutex<BTreeSet<&'static str>>,
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events")
            .field("service", &self.service)
            .field("broker", &self.broker)
            .finish_non_exhaustive()
    }
}

impl Events {
    /// [`Database::attach`] and [`Events::attach`], by [`Settings`]: a database that has gone through
    /// `migrations`, and events with their tables in it.
    ///
    /// # Errors
    ///
    /// If the database has another history of tables than this version knows, or its address is none.
    pub async fn open(
        app: &mut App<Settings>,
        migrations: &[Migration],
    ) -> Result<(Database, Self), OpenError> {
        let config = app.config();
        let database = config.map(|config| &config.database);
        let database = Database::attach(app, database, migrations).await?;
        let broker = config.map(|config| &config.broker);
        let settings = config.map(|config| &config.events);
        let events = Self::attach(app, &database, &broker, settings).await?;
        Ok((database, events))
    }

    /// As [`Events::attach_to`], at the broker that `broker` names. It is connected to in the background,
    /// and let go at the end of the process, when nothing needs it any more.
    ///
    /// # Errors
    ///
    /// If the database has another history of tables than this version knows.
    pub async fn attach<C: Section>(
        app: &mut App<C>,
        database: &Database,
        broker: &Live<broker::Config>,
        config: Live<Config>,
    ) -> Result<Self, OpenError> {
        let tasks = Tasks::new(app.journal());
        let connected = broker::connect(broker, &tasks, &app.journal());
        app.on_close("broker", async move { tasks.stop().await });
        let url = broker.read(|broker| broker.url.to_string());
        Self::attach_at(app, database, (connected, url), config).await
    }

    /// Ties events to a service that starts, at `broker`: what is in its outbox is published, a check
    /// reports whether the broker answers, and the drain of the process waits for what is in flight:
    /// consumers begin nothing more as soon as it drains and finish what they have begun beside its last
    /// calls; after both, the relay waits for what it has published. The tables are brought into
    /// `database`, which is waited for.
    ///
    /// # Errors
    ///
    /// If the database has another history of tables than this version knows.
    pub async fn attach_to<C: Section>(
        app: &mut App<C>,
        database: &Database,
        broker: Arc<dyn Broker>,
        config: Live<Config>,
    ) -> Result<Self, OpenError> {
        Self::attach_at(app, database, (broker, String::new()), config).await
    }

    async fn attach_at<C: Section>(
        app: &mut App<C>,
        database: &Database,
        (broker, url): (Arc<dyn Broker>, String),
        config: Live<Config>,
    ) -> Result<Self, OpenError> {
        database
            .extend_patiently(LIBRARY, consumer::MIGRATIONS)
            .await?;
        let service = app.identity().name;
        let outbox = Outbox::open(database, service).await?;
        let settings = config.map(|config| &config.relay);
        let relay = Relay::new(&outbox, Arc::clone(&broker), settings).journal(app.journal());
        let state = Arc::new(State::new(Arc::clone(&broker), url, relay.shown()));
        let shown = Arc::clone(&state);
        app.show_events(move || shown.on_wire());
        app.spawn("event relay", relay.run(app.tasks().stopping()));
        let asked = Arc::clone(&broker);
        app.check(Check::dependency("broker", move || {
            let broker = Arc::clone(&asked);
            async move { broker.ping().await.map_err(BoxError::from) }
        }));
        let consumers = TaskTracker::new();
        let finished = consumers.clone();
        app.on_finish("events in flight", async move {
            finished.close();
            finished.wait().await;
        });
        let process = Process {
            tasks: app.tasks(),
            health: app.health(),
            draining: app.draining(),
        };
        let instance = Uuid::now_v7().to_string();
        let events = Self::of(process, (service, instance), outbox, broker, config);
        Ok(Self {
            consumers,
            state,
            journal: app.journal(),
            ..events
        })
    }

    /// Events of a process of a service, whose database has all tables; nothing is published yet.
    pub(crate) fn of(
        process: Process,
        (service, instance): (&'static str, String),
        outbox: Outbox,
        broker: Arc<dyn Broker>,
        config: Live<Config>,
    ) -> Self {
        let state = State::new(Arc::clone(&broker), String::new(), Arc::default());
        let state = Arc::new(state);
        Self {
            service,
            instance,
            database: outbox.database().clone(),
            outbox,
            broker,
            config,
            state,
            journal: Journal::new(),
            process,
            consumers: TaskTracker::new(),
            names: Mutex::default(),
        }
    }

    /// Where events are written down, in the transaction of what they tell of.
    #[must_use]
    pub fn outbox(&self) -> Outbox {
        self.outbox.clone()
    }

    /// A consumer of this service: to be given its handlers, and started. `name` is fixed for good: what
    /// is done and what waits is kept under it. Instances of the service share what comes.
    pub fn consumer(&self, name: &'static str) -> Consumer<'_> {
        Consumer::new(self, name)
    }

    pub(crate) fn journal(&self) -> Journal {
        self.journal.clone()
    }

    /// Has operators see a consumer.
    pub(crate) fn show(&self, consumer: Arc<consumer::Shown>) {
        self.state.add(consumer);
    }

    /// Runs an instance of the consumer `name` until the process drains.
    pub(crate) fn run(&self, name: &'static str, instance: impl FnOnce(Process) -> Instance) {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(names.insert(name), "two consumers are named {name}");
        let instance = instance(self.process.clone()).run();
        let stopping = self.process.tasks.stopping();
        let running = self.consumers.track_future(async move {
            stopping.run_until_cancelled(instance).await;
        });
        self.process
            .tasks
            .spawn_essential("events consumer", running);
    }
}
